"""Texts into vectors of one space: any sentence-transformers model, and static ones without torch.

A static model is a table of token vectors whose mean is taken (sentence-transformers'
`StaticEmbedding`). It takes microseconds a text on a CPU, so that a video's anchors can follow its
upload at once; its directory is an ordinary sentence-transformers one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.errors import OneBarError
from onebar.process.files import replace_file

CARD = "embedder.json"
MODULES = "modules.json"
FORMAT = 1
BATCH = 256
THRESHOLD = 0.88
"""Least similarity of an anchor in the paper's space; another space has another scale."""

_HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")

Vectors = NDArray[np.float32]


class EmbedderError(OneBarError, ValueError):
    """An embedding model that can't be used. The text names it and says why."""


class EmbedderCard(Struct, frozen=True, kw_only=True):
    """What an embedder of ours says of itself; other sentence-transformers models have none."""

    format: int = FORMAT
    name: str
    """Of its content: other weights, another name."""
    created_at: str
    dim: int
    base: str
    threshold: float | None = None
    """The least similarity of a neighbour anchor to its video, as `onebar embed calibrate --save`
    found it."""
    history_threshold: float | None = None
    """The least similarity of a user's query to a video that it touches, found likewise."""
    training: dict[str, Any] = {}


class Encoder(Protocol):
    """What turns texts into vectors."""

    @property
    def name(self) -> str:
        """Names the space: vectors of two names are not to be compared."""
        ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), dim): rows of unit length, zero where a text holds nothing known."""
        ...


class StaticEncoder:
    """A static model with numpy alone."""

    def __init__(self, path: Path, module: Path, *, name: str) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        try:
            self._table: Vectors = load_file(module / "model.safetensors")["embedding.weight"]
            self._tokenizer = Tokenizer.from_file(str(module / "tokenizer.json"))
        except (SafetensorError, OSError, KeyError) as error:
            raise EmbedderError(f"{path} can't be read as an embedder: {error}") from error
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise EmbedderError(f"{path} has no readable tokenizer: {error}") from error
        if self._tokenizer.get_vocab_size() > len(self._table):
            raise EmbedderError(
                f"{path}: its tokenizer has {self._tokenizer.get_vocab_size():,} tokens, its "
                f"table {len(self._table):,} rows: they don't belong together"
            )
        self._tokenizer.no_padding()
        self.name = name

    @property
    def dim(self) -> int:
        return int(self._table.shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            for at, encoding in enumerate(
                self._tokenizer.encode_batch_fast(batch, add_special_tokens=False), start
            ):
                if encoding.ids:
                    found[at] = self._table[encoding.ids].mean(axis=0)
        return unit(found)


class SentenceEncoder:
    """Any other model, through sentence-transformers (the extra `embed`)."""

    def __init__(self, model: Any, *, name: str) -> None:
        self._model = model
        self.name = name

    @property
    def dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), self.dim), dtype=np.float32)
        said = [at for at, text in enumerate(texts) if text.strip()]
        if said:
            found[said] = self._model.encode(
                [texts[at] for at in said], batch_size=64, show_progress_bar=False
            )
        return unit(found)


def unit(vectors: Vectors) -> Vectors:
    """The rows at unit length; a row of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.maximum(norms, 1e-12)
    return found


def read_card(path: Path) -> EmbedderCard | None:
    """The card of an embedder of ours. Raises `EmbedderError` where it can't be read."""
    card = path / CARD
    if not card.is_file():
        return None
    try:
        return msgspec.json.decode(card.read_bytes(), type=EmbedderCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EmbedderError(f"{card} can't be read ({error}): train it again") from None


def write_card(path: Path, card: EmbedderCard) -> None:
    """Write the card of an embedder, whole or not at all."""
    replace_file(path / CARD, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def threshold_of(source: str | Path) -> float:
    """The threshold an embedder was calibrated to; the paper's where it never was."""
    card = read_card(Path(source))
    return THRESHOLD if card is None or card.threshold is None else card.threshold


def load_encoder(source: str | Path) -> Encoder:
    """The encoder in a directory, or of a name on the hub. Raises `EmbedderError`."""
    path = Path(source)
    if not path.exists() and not _HUB_NAME.fullmatch(str(source)):
        raise EmbedderError(f"{source} is no directory, and no name of a model on the hub")
    card = read_card(path)
    name = card.name if card else path.name
    module = static_module(path)
    if module is not None:
        return StaticEncoder(path, module, name=name)
    return SentenceEncoder(load_sentence_transformer(str(source)), name=name)


def static_module(path: Path) -> Path | None:
    """Where the table of a static model is; None where `path` holds none."""
    try:
        modules = json.loads((path / MODULES).read_text(encoding="utf-8"))
        kinds = {str(each["type"]).rpartition(".")[2]: str(each["path"]) for each in modules}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if "StaticEmbedding" not in kinds or set(kinds) - {"StaticEmbedding", "Normalize"}:
        return None
    return path / kinds["StaticEmbedding"]


def load_sentence_transformer(source: str) -> Any:
    """A sentence-transformers model, in float32 whatever its weights were saved in: steps of
    training are lost between two numbers of bfloat16, and in it a text's vector depends on the
    batch it came in. Raises `EmbedderError`."""
    from onebar.process.extras import how_to_install
    from onebar.process.quiet import quiet_transformers

    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise EmbedderError(
            f"{source} needs sentence-transformers: {how_to_install('embed')}"
        ) from None
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    try:
        with quiet_transformers():
            return SentenceTransformer(source, model_kwargs={"dtype": "float32"})
    except Exception as error:
        raise EmbedderError(
            f"{source} can't be loaded as a sentence-transformers model: {error}"
        ) from error
