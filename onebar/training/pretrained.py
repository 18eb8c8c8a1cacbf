"""Models to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from onebar.checkpoint import CONFIG, TOKENIZER, WEIGHTS, open_checkpoint


def load_pretrained(source: str | Path, work: Path) -> tuple[Any, Path]:
    """The transformers model of a OneBar checkpoint with float weights, and the path of a copy of
    its tokenizer in the directory `work`. Raises `CheckpointError`."""
    from safetensors.torch import load_file
    from transformers import BartConfig, BartForConditionalGeneration

    checkpoint = open_checkpoint(source)
    model = BartForConditionalGeneration(BartConfig.from_json_file(str(checkpoint.need(CONFIG))))
    model.load_state_dict(load_file(str(checkpoint.need(WEIGHTS))), strict=False)
    model.tie_weights()
    path = work / TOKENIZER
    shutil.copyfile(checkpoint.need(TOKENIZER), path)
    return model, path
