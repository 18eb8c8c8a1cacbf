"""Where a run of the local stack puts its logs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

KEPT_RUNS = 10
LOCK = "run.lock"
"""Locked for as long as the run lasts."""


@contextmanager
def run_directory(given: Path | None = None) -> Iterator[Path]:
    """The directory given, made where it is not there; else a new one under the user's cache, of
    which those of the last runs stay, and every one that is in use."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    directory = _new_directory()
    with (directory / LOCK).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield directory


def _new_directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    runs = cache / "onebar" / "runs"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        clear_runs(runs, KEPT_RUNS - 1)
        directory = runs / name
        directory.mkdir()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="onebar-run-"))
    return directory


def clear_runs(runs: Path, keep: int) -> None:
    """Remove the oldest directories that no run uses, until `keep` are left."""
    old = sorted(path for path in runs.iterdir() if path.is_dir())
    for path in old[: max(0, len(old) - keep)]:
        with suppress(OSError):
            _remove_unused(path)


def _remove_unused(directory: Path) -> None:
    lock: IO[bytes]
    with (directory / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(directory, ignore_errors=True)
