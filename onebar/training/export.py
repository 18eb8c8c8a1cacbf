"""From a trained model to a checkpoint directory, CTranslate2 weights included."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebar.checkpoint import (
    CONFIG,
    CTRANSLATE2,
    TOKENIZER,
    WEIGHTS,
    Checkpoint,
    GenerationConfig,
    seal,
    staging,
)
from onebar.prompt import PromptConfig
from onebar.tokens import BOS, EOS, MASK, PAD, UNK


def export_checkpoint(
    model: Any,
    tokenizer_path: Path,
    out: Path,
    *,
    preset: str,
    prompt: PromptConfig,
    generation: GenerationConfig,
    training: Mapping[str, Any],
    weights: bool = True,
    quantization: str = "int8",
) -> Checkpoint:
    """Write a checkpoint of a transformers BART model to `out`, whole or not at all.

    `weights` keeps the float weights as well, for the torch engine and further training.
    """
    with staging(out) as staged:
        shutil.copyfile(tokenizer_path, staged / TOKENIZER)
        model.config.to_json_file(str(staged / CONFIG))
        convert(model, tokenizer_path, staged / CTRANSLATE2, quantization=quantization)
        if weights:
            _save_weights(model, staged / WEIGHTS)
        return seal(
            staged, out, preset=preset, prompt=prompt, generation=generation, training=training
        )


def convert(model: Any, tokenizer_path: Path, out: Path, *, quantization: str) -> None:
    """Write CTranslate2 weights of a transformers BART model to the directory `out`."""
    from ctranslate2.converters import TransformersConverter
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer_path),
            bos_token=BOS,
            eos_token=EOS,
            pad_token=PAD,
            unk_token=UNK,
            mask_token=MASK,
        ).save_pretrained(scratch)
        TransformersConverter(scratch).convert(str(out), quantization=quantization)


def _save_weights(model: Any, path: Path) -> None:
    """float32 weights by name, each tied tensor once."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().float().contiguous().cpu()
    save_file(tensors, str(path), metadata={"format": "pt"})
