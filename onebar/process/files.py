"""Files and directories that appear whole or not at all, and are there after a crash."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
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
    sync(out.parent)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` for a file to be written under; at the end of the block it
    takes the place of what is at `path`, in one rename. After an error nothing has changed.

    `durable`: it is on the disk by then, and so is the rename; left out where a file that a crash
    of the machine cuts short is soon made again.

    What is there and no file (a pipe, `/dev/stdout`) is not replaced: its own name is given. A
    directory raises `IsADirectoryError`.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a directory, where a file was to be named", path)
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` in the place of what is at `path`, as `replacing` does."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the renames in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
