"""Checkpoints as the registry sees them."""

from __future__ import annotations

from pathlib import Path

from onebar.evidence.prompt import PromptConfig
from onebar.generator.checkpoint import GenerationConfig, seal
from onebar.process.files import staging


def make(out: Path, text: str, *, preset: str = "tiny") -> Path:
    """A checkpoint as the registry sees one: files and a card; it generates nothing."""
    with staging(out) as staged:
        (staged / "ct2").mkdir()
        (staged / "tokenizer.json").write_text(text)
        (staged / "ct2" / "model.bin").write_text(text * 2)
        seal(
            staged,
            out,
            preset=preset,
            prompt=PromptConfig(),
            generation=GenerationConfig(),
            training={},
        )
    return out


def damage(path: Path) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
