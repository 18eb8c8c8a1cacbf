"""Directories that appear whole or not at all: checkpoints, datasets, relations, embedders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A temporary directory beside `out`, gone afterwards unless `publish` moved it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def occupied(out: Path, card: str) -> bool:
    """Whether `out` holds something that is not of the kind whose card is named so."""
    return out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / card).is_file()


def publish(staged: Path, out: Path) -> None:
    """Move a finished directory to `out` in one rename, in place of what is there."""
    staged.chmod(0o755)
    if out.exists():
        with staging(out) as aside:
            out.rename(aside / "old")
            staged.rename(out)
    else:
        staged.rename(out)
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
