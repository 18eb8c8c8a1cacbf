"""A model from the Hugging Face hub: only the files that are needed, kept in its cache."""

from __future__ import annotations

from pathlib import Path

from onebar.generator.checkpoint import CONFIG, WEIGHTS, CheckpointNotFoundError
from onebar.training.models.vocabulary import TOKENIZER_FILES

OLD_WEIGHTS = "pytorch_model.bin"


def fetch(name: str, *, endpoint: str | None = None, cache: Path | None = None) -> Path:
    """The directory of the hub's model `name` in the local cache.

    What the cache has whole is used as it is; else it is fetched. Raises
    `CheckpointNotFoundError`, saying how to bring a model by hand.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def get(file: str, *, cached: bool) -> Path | None:
        """None where the model has no such file."""
        try:
            # The model's newest revision is what is asked for; its weights are no programs.
            found = hf_hub_download(  # nosec B615
                name, file, endpoint=endpoint, cache_dir=cache, local_files_only=cached
            )
        except LocalEntryNotFoundError:
            if cached:
                return None
            raise
        except EntryNotFoundError:
            return None
        return Path(found)

    def get_all(*, cached: bool) -> Path | None:
        """The directory, or None where a needed file is missing."""
        config = get(CONFIG, cached=cached)
        if config is None:
            return None
        texts = [get(file, cached=cached) for file in TOKENIZER_FILES]
        weights = get(WEIGHTS, cached=cached) or get(OLD_WEIGHTS, cached=cached)
        return config.parent if any(texts) and weights else None

    try:
        if directory := get_all(cached=True) or get_all(cached=False):
            return directory
        reason = f"the hub's lacks {CONFIG}, a tokenizer, {WEIGHTS} or {OLD_WEIGHTS}"
    except RepositoryNotFoundError:
        reason = "there is no such model on the hub, or it is not public"
    except LocalEntryNotFoundError:
        reason = "the hub can't be reached"
    except (HfHubHTTPError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"the hub did not give it ({first})"
    raise CheckpointNotFoundError(
        f"no directory {name} here, and {reason}. On a machine with a network run "
        f"`hf download {name} --local-dir {name.split('/')[-1]}`, copy that directory and name it"
    )
