"""Float weights of a checkpoint that has only those that serve: as CTranslate2 keeps them.

What ships is eight bits a weight, to keep it small. Multiplied out they are the very model that
serves, and as good a start as any: what rounding took is less than a few steps of training give.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebar.generator.checkpoint import (
    CONFIG,
    MODEL,
    OUTPUTS,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointMismatchError,
)

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 6
"""Of the file's layout: CTranslate2's `CURRENT_BINARY_VERSION`."""
_POSITIONS_BEFORE = 2
"""Rows that transformers' BART has before its first position, and CTranslate2 leaves out."""


def served_model(checkpoint: Checkpoint) -> Any:
    """A transformers BART in evaluation mode with the weights that CTranslate2 serves, in float32.

    Entries of the vocabulary that are not scored when serving have their embeddings all the same,
    for prompts are read with them. Raises `CheckpointMismatchError` where the checkpoint has no
    such weights or they are of another layout, `CheckpointCorruptError` where they end early.
    """
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    path = checkpoint.need(MODEL)
    try:
        kept = dict(_read(path))
        config = BartConfig.from_json_file(str(checkpoint.need(CONFIG)))
        weights = _named_as_transformers(kept, config)
    except CheckpointMismatchError:
        raise
    except (struct.error, KeyError, UnicodeDecodeError, RuntimeError) as error:
        raise CheckpointCorruptError(
            f"{path} does not hold the weights of a BART ({type(error).__name__}: {error}): copy "
            "the checkpoint again"
        ) from error
    model = BartForConditionalGeneration(config)
    bias = kept.get("decoder/projection/bias")
    if bias is not None:
        outputs = checkpoint.optional(OUTPUTS)
        tokens = _tokens(outputs) if outputs else None
        rows = range(config.vocab_size) if tokens is None else checkpoint.tokenizer().ids(tokens)
        weights["final_logits_bias"] = torch.zeros(1, config.vocab_size)
        weights["final_logits_bias"][0, list(rows)] = bias
    wrong = model.load_state_dict(weights, strict=False)
    # What is tied to the shared embeddings is not in the file by its own name.
    missing = set(wrong.missing_keys) - {"final_logits_bias", *_TIED}
    if missing or wrong.unexpected_keys:
        raise CheckpointMismatchError(
            f"{path} is no BART of {checkpoint.path / CONFIG}: "
            f"{', '.join(sorted({*missing, *wrong.unexpected_keys})[:3])} do not agree"
        )
    return model.eval()


_TIED = (
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)


def _tokens(path: Path) -> list[str]:
    import msgspec

    return msgspec.json.decode(path.read_bytes(), type=list[str])


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The variables of a file of CTranslate2's, by all of their names, as float32: those in eight
    or sixteen bits multiplied out by their scales. Raises `struct.error` where it ends early."""
    import torch

    kinds = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
    data = memoryview(path.read_bytes())
    at = 0

    def number(form: str) -> int:
        nonlocal at
        found: int = struct.unpack_from(form, data, at)[0]
        at += struct.calcsize(form)
        return found

    def name() -> str:
        nonlocal at
        size = number("<H")
        at += size
        return bytes(data[at - size : at - 1]).decode()

    version = number("<I")
    if version != VERSION:
        raise CheckpointMismatchError(
            f"{path} has layout {version}, this program reads {VERSION}: export the checkpoint "
            "again"
        )
    name()
    number("<I")
    plain: dict[str, Tensor] = {}
    for _ in range(number("<I")):
        called = name()
        shape = [number("<I") for _ in range(number("<B"))]
        kind = kinds[number("<B")]
        size = number("<I")
        if at + size > len(data):
            raise struct.error(f"{called} ends behind the file")
        found = torch.frombuffer(bytearray(data[at : at + size]), dtype=kind)
        plain[called] = found.reshape(shape)
        at += size
    for _ in range(number("<I")):
        called, same = name(), name()
        plain[called] = plain[same]
        if f"{same}_scale" in plain:
            plain[f"{called}_scale"] = plain[f"{same}_scale"]
    for called, found in plain.items():
        if called.endswith("_scale"):
            continue
        scale = plain.get(f"{called}_scale")
        value = found.float()
        if scale is not None and not found.is_floating_point():
            value = value / (scale if scale.dim() == 0 else scale[:, None])
        yield called, value


def _named_as_transformers(kept: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    import torch

    weights = {"model.shared.weight": kept["encoder/embeddings_0/weight"]}
    for half, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        positions = kept[f"{half}/position_encodings/encodings"]
        before = torch.zeros(_POSITIONS_BEFORE, positions.shape[1])
        weights[f"model.{half}.embed_positions.weight"] = torch.cat((before, positions))
        _norm(weights, f"model.{half}.layernorm_embedding", kept, f"{half}/layernorm_embedding")
        for layer in range(layers):
            theirs, ours = f"model.{half}.layers.{layer}", f"{half}/layer_{layer}"
            _linear(weights, (f"{theirs}.fc1",), kept, f"{ours}/ffn/linear_0")
            _linear(weights, (f"{theirs}.fc2",), kept, f"{ours}/ffn/linear_1")
            _norm(weights, f"{theirs}.final_layer_norm", kept, f"{ours}/ffn/layer_norm")
            own, other = f"{theirs}.self_attn", f"{theirs}.encoder_attn"
            joined = tuple(f"{own}.{one}_proj" for one in "qkv")
            _linear(weights, joined, kept, f"{ours}/self_attention/linear_0")
            _linear(weights, (f"{own}.out_proj",), kept, f"{ours}/self_attention/linear_1")
            _norm(weights, f"{own}_layer_norm", kept, f"{ours}/self_attention/layer_norm")
            if half == "encoder":
                continue
            _linear(weights, (f"{other}.q_proj",), kept, f"{ours}/attention/linear_0")
            joined = tuple(f"{other}.{one}_proj" for one in "kv")
            _linear(weights, joined, kept, f"{ours}/attention/linear_1")
            _linear(weights, (f"{other}.out_proj",), kept, f"{ours}/attention/linear_2")
            _norm(weights, f"{other}_layer_norm", kept, f"{ours}/attention/layer_norm")
    return weights


def _norm(weights: dict[str, Tensor], name: str, kept: Mapping[str, Tensor], source: str) -> None:
    weights[f"{name}.weight"] = kept[f"{source}/gamma"]
    weights[f"{name}.bias"] = kept[f"{source}/beta"]


def _linear(
    weights: dict[str, Tensor], names: tuple[str, ...], kept: Mapping[str, Tensor], source: str
) -> None:
    """What CTranslate2 has put into one matrix, apart again."""
    for part in ("weight", "bias"):
        for name, one in zip(names, kept[f"{source}/{part}"].chunk(len(names)), strict=True):
            weights[f"{name}.{part}"] = one.clone()
