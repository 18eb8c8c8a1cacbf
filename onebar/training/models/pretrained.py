"""Models to go on from: a checkpoint of ours, or any BART in transformers' format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from onebar.evidence.text import SEP
from onebar.evidence.tokens import BOS, EOS, PAD
from onebar.generator.checkpoint import (
    CARD,
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    directory_of,
    open_checkpoint,
)
from onebar.process.files import replace_file
from onebar.process.quiet import quiet_transformers
from onebar.training.models.served import served_model
from onebar.training.models.vocabulary import Vocabulary, adopt, read_object, read_tokenizer

NEVER = -100.0
"""The bias of an output that a model must not give: no chance, yet no infinity in a loss."""

_KEPT = (
    *("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim"),
    *("encoder_attention_heads", "decoder_attention_heads", "max_position_embeddings"),
    *("activation_function", "scale_embedding", "init_std", "dropout", "attention_dropout"),
    *("activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "decoder_start_token_id"),
)
"""What of a foreign `config.json` is taken over: the rest says how to generate, or nothing."""
_FIXED = {
    "activation_function": ("gelu", "gelu_new", "relu"),
    "normalize_before": (False,),
    "normalize_embedding": (True,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (False,),
    "tie_word_embeddings": (True,),
    "is_encoder_decoder": (True,),
}
"""Settings that must be so, or left out, for a BART to be one that the engines run."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")


def load_pretrained(source: str | Path, work: Path) -> tuple[Any, Path]:
    """A transformers BART model in evaluation mode, and the path of its tokenizer in the existing
    directory `work`.

    `source` is a checkpoint of ours, `shipped` the one of the package; of one without float weights
    the model is made of those that serve (`onebar.training.models.served`). Or it is a
    directory with a BART in transformers' format (`config.json`, `model.safetensors` or
    `pytorch_model.bin`, and a tokenizer), or the name of such a one on the Hugging Face hub. A
    foreign vocabulary gets `[SEP]` and `[REJECT]`,
    the embeddings rows for them, and both exactly as many rows as entries
    (`onebar.training.models.vocabulary`). No token is forced, first or last, and `[SEP]` is never
    given.

    Raises `CheckpointNotFoundError` where nothing is found, `CheckpointMismatchError` for what is
    no BART that the engines run or has a tokenizer of another model, `CheckpointCorruptError`.
    """
    directory = locate(source)
    if (directory / CARD).is_file():
        checkpoint = open_checkpoint(directory)
        checkpoint.tokenizer()
        content = checkpoint.need(TOKENIZER).read_bytes()
        if checkpoint.optional(WEIGHTS) is None and checkpoint.has_ctranslate2:
            return served_model(checkpoint), _write(work / TOKENIZER, content)
        checkpoint.need(WEIGHTS)
        from transformers import BartConfig

        config = BartConfig.from_json_file(str(checkpoint.need(CONFIG)))
        return _load(directory, config), _write(work / TOKENIZER, content)
    raw = read_config(directory)
    vocabulary = adopt(read_tokenizer(directory), raw["vocab_size"])
    model = _load(directory, _bart_config(directory, raw, vocabulary))
    resize(model, vocabulary)
    content = json.dumps(vocabulary.tokenizer, ensure_ascii=False).encode()
    return model, _write(work / TOKENIZER, content)


def _write(path: Path, content: bytes) -> Path:
    """Whole or not at all, whatever other processes write the same."""
    replace_file(path, content)
    return path


def source_name(source: str | Path) -> str:
    """What a model from `source` is called: the last part of its name, as it may stand in a
    checkpoint's."""
    name = re.sub(r"[^a-z0-9.-]+", "-", Path(source).resolve().name.lower()).strip("-.")
    return name or "bart"


def locate(source: str | Path) -> Path:
    """The directory of `source`; fetched from the hub where it is none here but may be there."""
    directory = directory_of(source)
    if directory.is_dir():
        return directory
    if directory.exists():
        raise CheckpointMismatchError(
            f"{source} is a file; name the directory with the model and its tokenizer"
        )
    name = str(source)
    beside_others = directory.parent != Path() and directory.parent.is_dir()
    if beside_others or not _HUB_NAME.fullmatch(name):
        raise CheckpointNotFoundError(
            f"no directory {source}; name a checkpoint, a directory with a BART in transformers' "
            "format, or such a model on the hub (facebook/bart-base)"
        )
    from onebar.training.models.hub import fetch

    return fetch(name)


def read_config(directory: Path) -> dict[str, Any]:
    """The `config.json` of a BART that the engines can run.

    Raises `CheckpointMismatchError` for any other, `CheckpointNotFoundError` where there is none.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"{directory} holds no model: it has neither {CARD} nor {CONFIG}"
        )
    raw = read_object(path)
    if raw.get("model_type") != "bart":
        raise CheckpointMismatchError(
            f"{path} is of model type {raw.get('model_type')!r}; OneBar runs BART ('bart') only: "
            "take facebook/bart-base or one of its shape"
        )
    for name, allowed in _FIXED.items():
        if name in raw and raw[name] not in allowed:
            raise CheckpointMismatchError(
                f"{path} has {name} {raw[name]!r}, but the engines know "
                f"{' or '.join(map(repr, allowed))} only"
            )
    for name in ("vocab_size", "d_model"):
        if not isinstance(raw.get(name), int):
            raise CheckpointMismatchError(f"{path} does not say {name}: copy it again")
    return raw


def _bart_config(directory: Path, raw: dict[str, Any], vocabulary: Vocabulary) -> Any:
    """The config of the model as it lies there, with the ids of its own tokenizer."""
    from transformers import BartConfig

    ids = vocabulary.ids
    for name, token in (("eos_token_id", EOS), ("pad_token_id", PAD)):
        if raw.get(name, ids[token]) != ids[token]:
            raise CheckpointMismatchError(
                f"{directory / CONFIG} says {name} {raw[name]}, but its tokenizer gives {token} "
                f"the id {ids[token]}: they don't belong together"
            )
    start = raw.get("decoder_start_token_id", ids[EOS])
    if not isinstance(start, int) or not 0 <= start < vocabulary.kept:
        raise CheckpointMismatchError(
            f"{directory / CONFIG} says decoder_start_token_id {start!r}, which is no token"
        )
    settings = {name: raw[name] for name in _KEPT if name in raw}
    try:
        return BartConfig(
            **settings | {"decoder_start_token_id": start},
            vocab_size=raw["vocab_size"],
            bos_token_id=ids[BOS],
            pad_token_id=ids[PAD],
            eos_token_id=ids[EOS],
            forced_bos_token_id=None,
            forced_eos_token_id=None,
            # The CTranslate2 converter asks for it by name.
            normalize_before=False,
        )
    except Exception as error:  # a validation error of huggingface_hub, by no documented class
        raise CheckpointMismatchError(
            f"{directory / CONFIG} can't be used: {' '.join(str(error).split())}"
        ) from error


def _load(directory: Path, config: Any) -> Any:
    """The model of a directory in float32: one copy of the weights, whatever their file."""
    import torch
    from transformers import BartForConditionalGeneration, GenerationConfig

    if not any(directory.glob("model*.safetensors")) and not any(
        directory.glob("pytorch_model*.bin")
    ):
        raise CheckpointMismatchError(
            f"{directory} has no weights for torch: expected {WEIGHTS} or pytorch_model.bin"
        )
    with quiet_transformers():
        try:
            model, report = BartForConditionalGeneration.from_pretrained(  # nosec B615
                str(directory),
                config=config,
                generation_config=GenerationConfig(
                    bos_token_id=config.bos_token_id,
                    eos_token_id=config.eos_token_id,
                    pad_token_id=config.pad_token_id,
                    decoder_start_token_id=config.decoder_start_token_id,
                ),
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # whatever unpickling or parsing a damaged file comes to
            raise CheckpointCorruptError(
                f"the weights in {directory} can't be read ({type(error).__name__}: {error}): "
                "copy them again"
            ) from error
    wrong = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if wrong:
        raise CheckpointMismatchError(
            f"the weights in {directory} are not those of its {CONFIG}: {len(wrong)} are missing "
            f"or of another shape, {', '.join(wrong[:3])} among them"
        )
    return model


def resize(model: Any, vocabulary: Vocabulary) -> None:
    """Give a model one row of embeddings, and one output bias, for each entry of its vocabulary."""
    import torch

    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        starts = {at: rows[list(ids)].mean(dim=0) for at, ids in vocabulary.new.items()}
        with quiet_transformers():
            model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
        rows = model.get_input_embeddings().weight
        for at, start in starts.items():
            rows[at] = start
            model.final_logits_bias[0, at] = 0.0
        if vocabulary.ids[SEP] in vocabulary.new:
            # It starts as the end token's equal; only that is to be an output.
            model.final_logits_bias[0, vocabulary.ids[SEP]] = NEVER
