"""Files that may be compressed, told by their first bytes, whatever they are called: plain, gzip,
bzip2, xz or zstd."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import zstandard

from onebar.errors import OneBarError


class CorruptDataError(OneBarError, ValueError):
    """Compressed data that is none."""


DECOMPRESSION_ERRORS = (
    gzip.BadGzipFile,
    zlib.error,
    zstandard.ZstdError,
    lzma.LZMAError,
    CorruptDataError,
)
"""What reading raises where the bytes are none of its kind; `EOFError` where they are cut off."""
_CHUNK = 65_536
_ZSTD_CHUNK = 1024
"""Small: one zstd block of a few bytes may hold 128 KB."""


def decompressed(file: BinaryIO) -> BinaryIO:
    """What the open `file` holds, in bounded memory; it need not be one that can be sought in.
    Raises `DECOMPRESSION_ERRORS` and `EOFError` while it is read."""
    buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(cast(Any, file))
    first: bytes = buffered.peek(6)[:6]
    if first.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return io.BufferedReader(_Zstd(buffered), _CHUNK)
    if first.startswith(b"BZh"):
        return io.BufferedReader(_Streams(buffered, bz2.BZ2Decompressor), _CHUNK)
    if first.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(_Streams(buffered, lzma.LZMADecompressor), _CHUNK)
    return cast(BinaryIO, buffered)


class _Streams(io.RawIOBase):
    """bzip2 or xz streams, one after the other. Raises `EOFError` where the last has no end."""

    def __init__(
        self,
        file: BinaryIO,
        make: Callable[[], bz2.BZ2Decompressor] | Callable[[], lzma.LZMADecompressor],
    ) -> None:
        self._file = file
        self._make = make
        self._stream: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while True:
            data = self._input
            if not data and (self._stream is None or self._stream.needs_input):
                data = self._file.read(_CHUNK)
                if not data:
                    if self._stream is not None:
                        raise EOFError("the compressed stream has no end")
                    return 0
            self._input = b""
            if self._stream is None:
                data = data.lstrip(b"\0")  # what pads an xz stream
                if not data:
                    continue
                self._stream = self._make()
            try:
                out = self._stream.decompress(data, len(view))
            except OSError as error:
                raise CorruptDataError(str(error)) from error
            if self._stream.eof:
                self._input = self._stream.unused_data
                self._stream = None
            if out:
                view[: len(out)] = out
                return len(out)


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
