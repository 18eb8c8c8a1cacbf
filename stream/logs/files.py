"""Logs of events as files, read in bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from onebar.errors import OneBarError, UsageError
from stream.events import MAX_EVENT_BYTES, Event, InvalidEventError, parse
from stream.logs.compression import DECOMPRESSION_ERRORS, decompressed
from stream.logs.recognize import BLANK, Form, Recognized, values

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
    """What can be replayed. `fraction` says how much of it has been read, 0 to 1; `once` that it
    can't be read again, as a pipe."""

    path: Path
    fraction: float
    once: bool

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


class UnrecognizedLogError(LogError):
    """A file that holds no events; the text says what it looks like, and what to do."""


STDIN = Path("-")


class EventLog:
    """A file of events in OneBar's own format: one JSON object a line, or several, or an array of
    them, in UTF-8, UTF-16 or UTF-32, compressed or not; told by its first bytes. Positions are
    bytes of the uncompressed text. `-` is the standard input; it, and a pipe, is read once."""

    def __init__(self, path: Path) -> None:
        """Raises `LogNotFoundError`."""
        if path.is_dir():
            raise LogNotFoundError(
                f"expected a log file, but {path} is a directory, not a file: name the files in it"
            )
        if path != STDIN and not path.exists():
            raise LogNotFoundError(f"expected a log file, but {path} does not exist")
        self.path = path
        self.fraction = 0.0
        self.once = path == STDIN or not path.is_file()

    def recognize(self) -> None:
        """Raises `UnrecognizedLogError` where it holds no events. What can be read only once is
        looked at as it is read."""
        if not self.once:
            try:
                next(self.entries(), None)
            except UnrecognizedLogError:
                raise
            except LogError:  # told when it is reached
                return

    def identity(self) -> Identity:
        return Identity(0, 0, "") if self.once else identify(self.path)

    def continues(self, earlier: Identity) -> bool:
        return (
            not self.once
            and identify(self.path, earlier.head).digest == earlier.digest
            and self.path.stat().st_size >= earlier.size
        )

    def entries(self, start: int = 0, number: int = 0) -> Iterator[LogEntry]:
        seen = False
        with recognized(self.path, lambda: f"line {number:,}") as (found, fraction):
            if found.form is None:
                raise UnrecognizedLogError(f"{self.path} can't be replayed: {found.why_not}")
            entries = _lines if found.form is Form.lines else _objects
            _skip(found.reader, start)
            for entry in entries(found.reader, start, number):
                number, seen = entry.number, True
                self.fraction = fraction()
                yield entry
        if not seen and start == 0:
            raise EmptyLogError(f"{self.path} is empty: expected one event a line")
        self.fraction = 1.0


@contextmanager
def recognized(
    path: Path, last: Callable[[], str]
) -> Iterator[tuple[Recognized, Callable[[], float]]]:
    """A file, decompressed and looked at, and how much of it has been read (0 where its size is not
    known). `last` names what was read last, for errors.

    Raises `TruncatedLogError` and `CorruptLogError` where it can't be decompressed to its end.
    """
    with _opened(path) as file:
        size = path.stat().st_size if path != STDIN and path.is_file() else 0
        try:
            yield Recognized(decompressed(file)), lambda: file.tell() / size if size else 0.0
        except EOFError as error:
            raise TruncatedLogError(f"{path} is cut off after {last()}") from error
        except DECOMPRESSION_ERRORS as error:
            raise CorruptLogError(
                f"{path} cannot be decompressed after {last()}: {error}"
            ) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


def _lines(reader: BinaryIO, position: int, number: int) -> Iterator[LogEntry]:
    while line := reader.readline(MAX_EVENT_BYTES + 2):
        whole = line.endswith(b"\n")
        blank = not line.strip(BLANK)
        before = position
        position += len(line)
        if blank and not whole:
            continue
        number += 1
        if blank:
            continue
        if not whole and len(line) > MAX_EVENT_BYTES:
            position += _skip_line(reader)
            error = f"the line is longer than {MAX_EVENT_BYTES:,} bytes"
            yield LogEntry(number, position, None, line, error)
            continue
        yield from _of_line(line, whole, number, before, position)


def _of_line(
    line: bytes, whole: bool, number: int, before: int, position: int
) -> Iterator[LogEntry]:
    data = line.strip(BLANK)
    if number == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        yield LogEntry(number, position, parse(data), data)
        return
    except InvalidEventError as error:
        why = str(error)
    several = list(values(io.BytesIO(data)))
    objects = bool(several) and all(complete for _, _, complete in several)
    if len(several) > 1 and objects:
        for value, _, _ in several[:-1]:
            # Until all of the line is done, reading from its beginning gives what is left, and
            # what comes again counts once.
            yield _parsed(value, number - 1, before)
        yield _parsed(several[-1][0], number, position)
    elif whole or objects:
        yield LogEntry(number, position, None, data, why)
    else:
        # A whole JSON object is an event even without its line end; half of one is none.
        raise TruncatedLogError(f"the log ends in the middle of line {number:,}") from None


def _objects(reader: BinaryIO, position: int, number: int) -> Iterator[LogEntry]:
    last: LogEntry | None = None
    for value, end, whole in values(reader, MAX_EVENT_BYTES, position):
        if last is not None:
            yield last
        number += 1
        last = _parsed(value, number, end)
        if not whole and len(value) >= MAX_EVENT_BYTES:
            error = f"the object is longer than {MAX_EVENT_BYTES:,} bytes"
            last = LogEntry(number, end, None, value, error)
        elif not whole and value.startswith(b"{"):
            raise TruncatedLogError(f"the log ends in the middle of object {number:,}")
    if last is not None:
        yield last


def _parsed(data: bytes, number: int, position: int) -> LogEntry:
    try:
        return LogEntry(number, position, parse(data), data)
    except InvalidEventError as error:
        return LogEntry(number, position, None, data, str(error))


def identify(path: Path, head: int = HEAD_BYTES) -> Identity:
    """The identity of a file, by its first `head` bytes."""
    with path.open("rb") as file:
        data = file.read(head)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Identity(path.stat().st_size, len(data), digest)


def _skip(reader: BinaryIO, count: int) -> None:
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
