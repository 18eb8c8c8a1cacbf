"""A log of somebody else's rows, replayed as events of ours."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from msgspec import Struct, structs

from stream.events import MAX_EVENT_BYTES, Event
from stream.logs.files import (
    EmptyLogError,
    EventLog,
    Identity,
    LogEntry,
    recognized,
)
from stream.logs.recognize import Form, Recognized, values
from stream.mapping.mapping import EventMapping, UnmappedError
from stream.mapping.slips import other_delimiter, slips


class Row(Struct, frozen=True):
    """One row as it came; `error` says why it is none."""

    number: int
    data: bytes
    value: Mapping[str, Any] | None
    error: str = ""


class MappedLog:
    """Rows of JSON (one on a line, or an array) or of a table, compressed or not, as a `Log`.

    Positions count rows. A row that no rule of the mapping is about gives nothing and is counted in
    `unmapped`; one that can't be made an event is an entry with its error.
    """

    def __init__(self, path: Path, mapping: EventMapping) -> None:
        """Raises `LogNotFoundError`."""
        self._file = EventLog(path)
        self.path = path
        self.once = self._file.once
        self.mapping = mapping
        self.fraction = 0.0
        self.unmapped = 0

    def identity(self) -> Identity:
        return self._file.identity()

    def continues(self, earlier: Identity) -> bool:
        return self._file.continues(earlier)

    def entries(self, start: int = 0, number: int = 0) -> Iterator[LogEntry]:
        for row in self.rows():
            if row.number <= start:
                continue
            if row.value is None:
                yield LogEntry(row.number, row.number, None, row.data, row.error)
                continue
            made = list(self.mapping.events(row.value))
            self.unmapped += not made
            for place, one in enumerate(made, 1):
                # Until all of a row is done, going on from there gives all of it again.
                end = row.number if place == len(made) else row.number - 1
                if isinstance(one, UnmappedError):
                    yield LogEntry(row.number, end, None, row.data, str(one))
                else:
                    yield LogEntry(row.number, end, one, row.data)

    def rows(self) -> Iterator[Row]:
        """Every row. Raises a `LogError` where it is empty or does not end well."""
        number = 0
        with recognized(self.path, lambda: f"row {number:,}") as (found, fraction):
            rows = self._table if self.mapping.is_table else _objects
            for row in rows(found):
                number = row.number
                self.fraction = fraction()
                yield row
        if not number:
            raise EmptyLogError(f"{self.path} is empty")
        self.fraction = 1.0

    def _table(self, found: Recognized) -> Iterator[Row]:
        table = self.mapping.table
        text = io.TextIOWrapper(found.reader, "utf-8-sig", "surrogateescape", newline="")
        lines: list[str] = []  # of the row in hand

        def line_by_line() -> Iterator[str]:
            for line in text:
                lines.append(line)
                yield line.replace("\0", "")

        reader = table.cells(line_by_line())
        columns = table.columns
        number = 0
        while True:
            lines.clear()
            cells: list[str] | None = []
            error = ""
            try:
                cells = next(reader, None)
            except csv.Error as fault:
                error = f"{fault}: is a quote not closed, or is `quote` of [table] another?"
            if cells is None:
                return
            if not cells and not error:
                continue
            if not columns and not error:
                columns = cells
                continue
            number += 1
            data = "".join(lines).encode("utf-8", "surrogateescape").rstrip(b"\r\n")
            if not error and len(cells) != len(columns):
                error = f"expected {len(columns)} columns, got {len(cells)}"
                if other := other_delimiter(table.delimiter, cells):
                    error += f": is `delimiter` of [table] {other!r}?"
            if not error and any(map(_not_utf8, cells)):
                error = "not UTF-8: convert the file (`iconv -f LATIN1 -t UTF-8`, say)"
            row = None if error else dict(zip(columns, cells, strict=True))
            yield Row(number, data[:MAX_EVENT_BYTES], row, error)


def _not_utf8(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)


def _objects(found: Recognized) -> Iterator[Row]:
    number = 0
    for text in _texts(found.form, found.reader):
        number += 1
        data = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            yield Row(number, data, None, f"not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(number, data, value)
        else:
            yield Row(number, data, None, "expected a JSON object")


def _texts(form: Form | None, reader: BinaryIO) -> Iterator[bytes]:
    if form is not Form.lines:
        for data, _, _ in values(reader, MAX_EVENT_BYTES):
            yield data
        return
    for line in reader:
        if data := line.strip(b" \t\r\n\0"):
            yield data


class Preview(Struct, frozen=True):
    """What a mapping makes of the beginning of a log or a topic."""

    rows: int
    unmapped: int
    events: tuple[Event, ...]
    errors: tuple[tuple[int | str, str], ...]
    """Which row (of a topic `partition:offset`), and why it is none."""
    hints: tuple[str, ...] = ()
    """What may be wrong with the mapping, where there are no events."""


def gathered(found: Iterable[tuple[int | str, Sequence[Event | UnmappedError]]]) -> Preview:
    """Of rows, each with what was made of it."""
    events: list[Event] = []
    errors: list[tuple[int | str, str]] = []
    rows = unmapped = 0
    for where, made in found:
        rows += 1
        unmapped += not made
        for one in made:
            if isinstance(one, UnmappedError):
                errors.append((where, str(one)))
            else:
                events.append(one)
    return Preview(rows, unmapped, tuple(events), tuple(errors))


def preview(log: MappedLog, rows: int = 1000) -> Preview:
    """What the first rows of a log come to. Reads a pipe to no purpose: don't."""

    def made(row: Row) -> Sequence[Event | UnmappedError]:
        if row.value is None:
            return [UnmappedError(row.error)]
        return list(log.mapping.events(row.value))

    taken = list(islice(log.rows(), rows))
    seen = gathered((row.number, made(row)) for row in taken)
    if seen.events:
        return seen
    values = [row.value for row in taken if row.value is not None]
    return structs.replace(seen, hints=slips(log.mapping, values))
