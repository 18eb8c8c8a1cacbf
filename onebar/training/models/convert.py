"""A BART from elsewhere as a checkpoint, without training: to look at it, or to start from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onebar.evidence.prompt import PromptConfig
from onebar.generator.checkpoint import CARD, Checkpoint, CheckpointMismatchError, GenerationConfig
from onebar.training.models.export import EXACT_WITHIN, export_checkpoint
from onebar.training.models.pretrained import load_pretrained, locate, source_name


def import_model(
    source: str | Path,
    out: Path,
    *,
    name: str | None = None,
    quantization: str = "int8",
    weights: bool = True,
    prompt: PromptConfig | None = None,
    generation: GenerationConfig | None = None,
) -> Checkpoint:
    """Write a checkpoint of `source` (`onebar.training.models.pretrained.load_pretrained`) to
    `out`.

    `name` is what the checkpoint's begins with. Raises `CheckpointError`; nothing half-written is
    left.
    """
    directory = locate(source)
    if (directory / CARD).is_file():
        raise CheckpointMismatchError(f"{directory} is a checkpoint already: copy it")
    with tempfile.TemporaryDirectory() as work:
        model, tokenizer = load_pretrained(directory, Path(work))
        return export_checkpoint(
            model,
            tokenizer,
            out,
            preset=name or source_name(source),
            prompt=prompt or PromptConfig(),
            generation=generation
            or GenerationConfig(exact_within=EXACT_WITHIN if quantization == "int8" else 0.0),
            training={
                "stage": "import",
                "parent": source_name(source),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            },
            weights=weights,
            quantization=quantization,
        )
