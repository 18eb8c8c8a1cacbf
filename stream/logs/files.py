"""Logs of events as files: one event a line, plain, `.gz` or `.zst`, read in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from onebar.errors import OneBarError, UsageError
from stream.events import MAX_EVENT_BYTES, Event, InvalidEventError, parse
from stream.logs.compression import DECOMPRESSION_ERRORS, decompressed

HEAD_BYTES = 65_536
_CHUNK = 65_536


class LogError(OneBarError, ValueError):
    """A log that cannot be read, or not to its end. The text says where and why."""


class LogNotFoundError(UsageError, LogError):
    """There is no such file or directory."""


class EmptyLogError(LogError):
    """A log without a single line."""


class TruncatedLogError(LogError):
    """A log that ends in the middle of a line or of a compressed stream."""


class CorruptLogError(LogError):
    """Compressed data that cannot be decompressed."""


class Identity(Struct, frozen=True):
    """Which log this is: its size in bytes and the hash of its first `head` bytes."""

    size: int
    head: int
    digest: str


class LogEntry(Struct, frozen=True):
    """One line of a log: an event, or `error` saying why it is none.

    `end` is the position behind it, in the log's own unit: reading from there gives the next
    entry. `number` counts lines (or the events made of a row) from 1.
    """

    number: int
    end: int
    event: Event | None
    data: bytes = b""
    error: str = ""


class Log(Protocol):
    """What can be replayed. `fraction` says how much of it has been read, 0 to 1."""

    path: Path
    fraction: float

    def identity(self) -> Identity: ...

    def continues(self, earlier: Identity) -> bool:
        """Whether this is the log that `earlier` was taken of, perhaps grown since."""
        ...

    def entries(self, start: int = 0, number: int = 0) -> Iterator[LogEntry]:
        """The entries from position `start`, before which `number` entries stand.

        Raises a `LogError` where the log is empty or does not end well, after every entry
        before that place.
        """
        ...


class EventLog:
    """A file of events in OneBar's own format. Positions are bytes of the uncompressed text."""

    def __init__(self, path: Path) -> None:
        """Raises `LogNotFoundError`."""
        if not path.is_file():
            kind = "is a directory, not a file" if path.is_dir() else "does not exist"
            raise LogNotFoundError(f"expected a log file, but {path} {kind}")
        self.path = path
        self.fraction = 0.0

    def identity(self) -> Identity:
        return identify(self.path)

    def continues(self, earlier: Identity) -> bool:
        return identify(self.path, earlier.head).digest == earlier.digest and (
            self.path.stat().st_size >= earlier.size
        )

    def entries(self, start: int = 0, number: int = 0) -> Iterator[LogEntry]:
        size = self.path.stat().st_size
        position = start
        with self.path.open("rb") as file:
            reader = decompressed(self.path, file)
            try:
                _skip(reader, start)
                while line := reader.readline(MAX_EVENT_BYTES + 2):
                    number += 1
                    position += len(line)
                    whole = line.endswith(b"\n")
                    if not whole and len(line) > MAX_EVENT_BYTES:
                        position += _skip_line(reader)
                        error = f"the line is longer than {MAX_EVENT_BYTES:,} bytes"
                        yield LogEntry(number, position, None, line, error)
                        continue
                    self.fraction = file.tell() / size
                    yield _entry(number, position, line, whole)
            except EOFError as error:
                raise TruncatedLogError(f"{self.path} is cut off after line {number:,}") from error
            except DECOMPRESSION_ERRORS as error:
                raise CorruptLogError(
                    f"{self.path} cannot be decompressed after line {number:,}: {error}"
                ) from error
        if position == 0:
            raise EmptyLogError(f"{self.path} is empty: expected one event a line")
        self.fraction = 1.0


def _entry(number: int, position: int, line: bytes, whole: bool) -> LogEntry:
    data = line.rstrip(b"\r\n")
    if number == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return LogEntry(number, position, parse(data), data)
    except InvalidEventError as error:
        if whole:
            return LogEntry(number, position, None, data, str(error))
        # A whole JSON object is an event even without its line end; half of one is none.
        raise TruncatedLogError(f"the log ends in the middle of line {number:,}") from None


def identify(path: Path, head: int = HEAD_BYTES) -> Identity:
    """The identity of a file, by its first `head` bytes."""
    with path.open("rb") as file:
        data = file.read(head)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Identity(path.stat().st_size, len(data), digest)


def _skip(reader: BinaryIO, count: int) -> None:
    if count and not isinstance(reader, gzip.GzipFile) and reader.seekable():
        reader.seek(count)
        return
    while count:
        data = reader.read(min(count, _CHUNK))
        if not data:
            raise EOFError
        count -= len(data)


def _skip_line(reader: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that was."""
    skipped = 0
    while data := reader.readline(_CHUNK):
        skipped += len(data)
        if data.endswith(b"\n"):
            break
    return skipped
