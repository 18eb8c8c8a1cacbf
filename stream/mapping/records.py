"""Records of somebody else's Kafka topic as events of ours. Pure.

A record's value is a row, or a list of rows; of a table, lines of it. What else the record says
stands beside it under `$kafka`: key, timestamp (UTC epoch seconds), topic, partition, offset,
headers, and `tombstone` where there is no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from msgspec import structs

from onebar.errors import OneBarError, UsageError
from stream.events import Event
from stream.kafka.records import Record
from stream.logs.dead_letters import DeadLetter
from stream.mapping.log import Preview, gathered
from stream.mapping.mapping import PLACE, EventMapping, UnmappedError
from stream.mapping.slips import slips
from stream.mapping.values import shown

Made = Event | UnmappedError
_REGISTRY = b"\x00"
"""The first byte of what is written by the schema of a registry, which no JSON has."""


class NoRowError(OneBarError, ValueError):
    """A record's value is no row of the mapping's form; the text says why."""


class TableWithoutColumnsError(UsageError):
    """A mapping of a table whose first line names the columns: a topic has no first line."""

    def __init__(self, mapping: EventMapping) -> None:
        super().__init__(
            f"the mapping {mapping.name!r} has the first line of a table name its columns, and a "
            "message has no first line: list them as `columns` under [table]"
        )


def check_fit(mapping: EventMapping) -> None:
    """Raises `TableWithoutColumnsError` where it can't be of a topic."""
    if mapping.is_table and not mapping.table.columns:
        raise TableWithoutColumnsError(mapping)


def events_of(record: Record, mapping: EventMapping) -> list[Made]:
    """What a record is: events, and why others can't be made; empty where it is none. Whatever
    stands in a record, nothing is raised: rows are anyone's."""
    made: list[Made] = []
    try:
        place = _place(record)
        rows = list(_rows(record, mapping))
        for number, row in enumerate(rows, 1):
            for one in mapping.events({**row, PLACE: place}, tombstone=record.null):
                if isinstance(one, UnmappedError) and len(rows) > 1:
                    one = UnmappedError(f"row {number} of {len(rows)}: {one}")
                made.append(one)
    except Exception as error:
        made.append(UnmappedError(str(error) or type(error).__name__))
    return made


def _place(record: Record) -> dict[str, Any]:
    place: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "headers": {name: _text(value) for name, value in record.headers},
        "key": _text(record.key),
    }
    return {**place, "tombstone": True} if record.null else place


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def _rows(record: Record, mapping: EventMapping) -> Iterator[Mapping[str, Any]]:
    if record.null:
        yield {}
    elif mapping.is_table:
        yield from _lines(record.value, mapping)
    else:
        yield from _objects(record.value)


def _objects(value: bytes) -> Sequence[Mapping[str, Any]]:
    if value.startswith(_REGISTRY):
        raise NoRowError(
            "not JSON: it begins with a zero byte, as what a schema registry's serializers write "
            "(Avro, Protobuf): have the topic converted to JSON"
        )
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise NoRowError(f"not JSON: {error}") from None
    rows = found if isinstance(found, list) else [found]
    for row in rows:
        if not isinstance(row, dict):
            raise NoRowError(f"expected a JSON object or a list of them, got {shown(row)}")
    return rows


def _lines(value: bytes, mapping: EventMapping) -> Iterator[Mapping[str, Any]]:
    table = mapping.table
    try:
        lines = value.decode("utf-8-sig").replace("\0", "").splitlines()
    except UnicodeDecodeError as error:
        raise NoRowError(f"no UTF-8: {error}") from None
    for cells in table.cells(lines):
        if cells and len(cells) != len(table.columns):
            raise NoRowError(f"expected {len(table.columns)} columns, got {len(cells)}")
        if cells:
            yield dict(zip(table.columns, cells, strict=True))


def preview_records(records: Sequence[Record], mapping: EventMapping) -> Preview:
    """What a mapping makes of these."""
    seen = gathered(
        (f"{record.partition}:{record.offset}", events_of(record, mapping)) for record in records
    )
    if seen.events:
        return seen
    return structs.replace(seen, hints=slips(mapping, _readable(records, mapping)))


def _readable(records: Sequence[Record], mapping: EventMapping) -> list[Mapping[str, Any]]:
    """The rows that can be read."""
    found: list[Mapping[str, Any]] = []
    for record in records:
        with suppress(Exception):  # rows are anyone's, and why one is none was told
            found += [{**row, PLACE: _place(record)} for row in _rows(record, mapping)]
    return found


def remade(letter: DeadLetter, mapping: EventMapping) -> list[Event]:
    """The events of a row that was set aside. Raises `UnmappedError` where it still can't be made
    them, or is none by this mapping."""
    record = Record(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        timestamp=letter.timestamp,
        key=letter.key,
        value=letter.value,
        headers=letter.headers,
        null=letter.null,
    )
    events: list[Event] = []
    for one in events_of(record, mapping):
        if isinstance(one, UnmappedError):
            raise one
        events.append(one)
    if not events:
        raise UnmappedError(
            f"by the mapping {mapping.name!r} it is of no event; `onebar dead-letters drop` is "
            "done with it"
        )
    return events
