"""Files that may be compressed: plain, `.gz` or `.zst`, told by their suffix."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

DECOMPRESSION_ERRORS = (gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading raises where the bytes are none of its kind; `EOFError` where they are cut off."""
_CHUNK = 65_536
_ZSTD_CHUNK = 1024
"""Small: one zstd block of a few bytes may hold 128 KB."""


def decompressed(path: Path, file: BinaryIO) -> BinaryIO:
    """What the open `file` at `path` holds, in bounded memory. Raises `DECOMPRESSION_ERRORS` and
    `EOFError` while it is read."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if path.suffix == ".zst":
        return io.BufferedReader(_Zstd(file), _CHUNK)
    return file


class _Zstd(io.RawIOBase):
    """zstd frames, one after the other. Unlike the library's reader, it tells a cut frame.

    Raises `EOFError` where the last frame has no end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._make = zstandard.ZstdDecompressor(max_window_size=2**27)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")
        self._input = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._ready:
            data = self._input or self._file.read(_ZSTD_CHUNK)
            self._input = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the zstd frame has no end")
                return 0
            self._frame = self._frame or self._make.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
