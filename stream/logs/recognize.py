"""What is in a file of events, told by its first bytes, whatever it is called: its encoding, and
how the objects stand in it. What holds no events is refused before anything is done with it."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO

import msgspec

from stream.events import NO_JSON

HEAD_BYTES = 65_536
LINES = 20
"""So many lines at the beginning are looked at before what has no object on any is refused."""
_CHUNK = 65_536
BLANK = b" \t\r\n\0"
"""What a line may be of and be passed over. Zeros are what a file system leaves after a crash."""


class Form(Enum):
    """How the objects stand."""

    lines = "one on a line"
    values = "in an array, or over several lines"


class Recognized:
    """What a file's beginning says. `why_not` where it holds no events: what it is, what to do."""

    def __init__(self, reader: BinaryIO) -> None:
        """Reads no more than it needs; `reader` then gives everything, as UTF-8."""
        first = _at_least(reader, b"", 4)
        encoding = _encoding(first)
        if encoding is None:
            self._head = _until_sure(reader, first)
            rest = reader
        else:
            rest = io.BufferedReader(_Transcoded(reader, first, encoding), _CHUNK)
            self._head = _until_sure(rest, b"")
        self.plain = encoding is None
        self.reader: BinaryIO = io.BufferedReader(_Again(self._head, rest), _CHUNK)
        text = self._head.removeprefix(codecs.BOM_UTF8)
        self.form = _form(text)
        self.why_not = "" if self.form is not None else _why_not(text)


def _at_least(reader: BinaryIO, data: bytes, count: int) -> bytes:
    while len(data) < count and (more := reader.read(count - len(data))):
        data += more
    return data


def _encoding(first: bytes) -> str | None:
    """The encoding that the first four bytes tell of; None for UTF-8."""
    if first.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(first) == 4:
        return "utf-16" if b"\0" in first[2:] else None
    if first[:1] in b"{[" and first[1:2] == b"\0" and first[3:4] == b"\0":
        return "utf-16-le"
    if first[:1] == b"\0" and first[1:2] in (b"{", b"[") and first[2:3] == b"\0":
        return "utf-16-be"
    return None


def _until_sure(reader: BinaryIO, head: bytes) -> bytes:
    """The beginning, as far as it takes to tell what it is."""
    while len(head) < HEAD_BYTES:
        lines = [line for line in head.split(b"\n")[:-1] if line.strip(BLANK)]
        if len(lines) > LINES * 10 or (lines and _sure(lines)):
            break
        more = reader.read1(8192) if hasattr(reader, "read1") else reader.read(8192)
        if not more:
            break
        head += more
    return head


def _sure(lines: list[bytes]) -> bool:
    first = lines[0].removeprefix(codecs.BOM_UTF8).strip(BLANK)
    if first.startswith(b"{"):
        return first.endswith(b"}")  # else it may go on
    return first.startswith(b"[") or len(lines) > LINES


def _opens(line: bytes) -> bool:
    return line.removeprefix(codecs.BOM_UTF8).strip(BLANK)[:1] in (b"{", b"[")


def _form(text: bytes) -> Form | None:
    lines = [line for line in text.split(b"\n") if line.strip(BLANK)]
    if _is_tar(text) or _kind(text, _BINARY):
        return None  # what it holds may look like events from the second line on
    if not lines:
        return Form.lines  # nothing yet: whoever reads on will see
    first = lines[0].strip(BLANK)
    if first.startswith(b"["):
        return Form.values
    if first.startswith(b"{"):
        # The first line may be bad, or cut short: only an object that goes on is one over lines.
        if first.endswith(b"},"):
            return Form.values  # an array's elements, without its brackets
        whole = first.endswith(b"}") or b"\n" not in text
        return Form.lines if whole or not _goes_on(text) else Form.values
    return Form.lines if any(_opens(line) for line in lines[: LINES + 1]) else None


def _goes_on(text: bytes) -> bool:
    first = next(iter(values(io.BytesIO(text))), None)
    if first is None:
        return False
    try:
        return isinstance(msgspec.json.decode(first[0]), dict) and b"\n" in first[0].strip()
    except NO_JSON:
        return False


_BINARY = (
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet): unpack it"),
    (b"\x1f\x8b", "gzip data that was compressed once more: unpack it once"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x04\x22\x4d\x18", "lz4 data: unpack it"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy data: unpack it"),
    (b"\x5d\x00\x00", "data of the old lzma format: unpack it"),
    (b"SQLite format 3", "an SQLite database"),
    (b"Obj\x01", "an Avro file"),
)
_KINDS = (
    *_BINARY,
    (b"ORC", "an ORC file"),
    (b"%PDF", "a PDF"),
    (b"<", "XML or HTML"),
)
Kinds = tuple[tuple[bytes, str], ...]


def _is_tar(text: bytes) -> bool:
    return text[257:262] == b"ustar"


def _kind(text: bytes, kinds: Kinds = _KINDS) -> str | None:
    return next((kind for magic, kind in kinds if text.startswith(magic)), None)


def _why_not(text: bytes) -> str:
    kind = "a tar archive: unpack it" if _is_tar(text) else _kind(text)
    first = text.lstrip(BLANK).split(b"\n", 1)[0][:80].decode("utf-8", "replace").strip()
    readable = first.replace("\t", " ").replace("\ufffd", "\0").isprintable()
    if kind is None:
        separated = any(first.count(mark) for mark in ",;\t|")
        kind = "a table (CSV)" if separated and readable else "no JSON" if readable else "no text"
    line = f"; its first line is {first!r}" if readable else ""
    how = " (a table is read with --map, docs/mapping.md)" if kind.startswith("a table") else ""
    return (
        f"it looks like {kind}{line}. Expected JSON: one event a line, or an array of events "
        f"(docs/events.md){how}. Nothing was sent"
    )


class _Again(io.RawIOBase):
    """The beginning that was read already, then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data: memoryview | bytes = self._head[: len(view)]
        if data:
            self._head = self._head[len(data) :]
        elif hasattr(self._rest, "read1"):
            data = self._rest.read1(len(view))
        else:
            data = self._rest.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Transcoded(io.RawIOBase):
    """Text of another encoding as UTF-8; what is no text there stands as U+FFFD."""

    def __init__(self, file: BinaryIO, first: bytes, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = self._decoder.decode(first).encode("utf-8", "replace")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._ready and not self._ended:
            data = self._file.read(8192)
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._ready = text.encode("utf-8", "replace")
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


_OUTSIDE = re.compile(rb"[^\s,\[\]\0]")
_STRUCTURE = re.compile(rb'["{}]')
_STRING_END = re.compile(rb'["\\]')


def values(
    reader: BinaryIO, limit: int = 2**63, start: int = 0
) -> Iterator[tuple[bytes, int, bool]]:
    """The objects of a JSON text, in an array, one after another or both: (bytes, position behind
    it, whether it is whole). What stands between objects is given as well, not whole, and so is one
    of more than `limit` bytes, cut. `start` is the position at which the reader stands."""
    scan = _Scan(limit, start)
    while data := (reader.read1(_CHUNK) if hasattr(reader, "read1") else reader.read(_CHUNK)):
        yield from scan.feed(data)
    yield from scan.end()


class _Scan:
    def __init__(self, limit: int, start: int) -> None:
        self._limit = limit
        self._position = start  # of the buffer's beginning
        self._buffer = b""
        self._at = 0  # how far it was looked at
        self._depth = 0
        self._string = False
        self._cut = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, bool]]:
        self._buffer += data
        while True:
            if not self._depth:
                yield from self._between()
                if not self._depth:
                    return
            if not self._inside():
                if len(self._buffer) > self._limit:
                    self._cut = self._cut or self._buffer[: self._limit]
                    self._drop(len(self._buffer))
                return
            whole = not self._cut and self._at <= self._limit
            found = self._cut or self._buffer[: min(self._at, self._limit)]
            self._cut = b""
            self._drop(self._at)
            yield found, self._position, whole

    def end(self) -> Iterator[tuple[bytes, int, bool]]:
        rest = self._cut or self._buffer
        if self._depth or rest.strip(BLANK + b",[]"):
            yield rest, self._position + len(self._buffer), False

    @property
    def open(self) -> bool:
        return self._depth > 0

    def _between(self) -> Iterator[tuple[bytes, int, bool]]:
        """Up to the beginning of an object."""
        while (match := _OUTSIDE.search(self._buffer)) is not None:
            self._drop(match.start())
            if self._buffer.startswith(b"{"):
                self._depth, self._at = 1, 1
                return
            brace = self._buffer.find(b"{")
            line = self._buffer.find(b"\n")
            ends = [end for end in (brace, line) if end > 0]
            if not ends and len(self._buffer) <= self._limit:
                return  # it may go on
            end = min(ends, default=len(self._buffer))
            junk = self._buffer[:end]
            self._drop(end)
            yield junk.strip(BLANK + b",[]"), self._position, False
        if not self._depth:
            self._drop(len(self._buffer))

    def _inside(self) -> bool:
        """Whether the object ends within the buffer; `_at` is behind its end then."""
        while True:
            pattern = _STRING_END if self._string else _STRUCTURE
            match = pattern.search(self._buffer, self._at)
            if match is None:
                self._at = len(self._buffer)
                return False
            mark = match[0]
            if mark == b"\\":
                if match.end() >= len(self._buffer):
                    self._at = match.start()
                    return False
                self._at = match.end() + 1
                continue
            self._at = match.end()
            if mark == b'"':
                self._string = not self._string
            else:
                self._depth += 1 if mark == b"{" else -1
                if not self._depth:
                    return True

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._position += count
        self._at = max(0, self._at - count)
