"""The columns of each event type, and rows of events. They follow `stream.events`."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from stream.events import EVENT_TYPES, Event, ShownQuery

POSITION = ("topic", "partition", "offset", "timestamp")
"""Where a record stood in Kafka, and when Kafka took it (epoch seconds)."""
INVALID = "invalid"
TYPES: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in EVENT_TYPES)


def event_schema(type_name: str) -> Any:
    """The pyarrow schema of an event type. Its type and date stand in the path."""
    import pyarrow as pa

    kind = next(each for each in EVENT_TYPES if each.__struct_config__.tag == type_name)
    fields = [(name, _arrow(hint)) for name, hint in _hints(kind).items()]
    return pa.schema([*_position_fields(), *fields])


def invalid_schema() -> Any:
    """The pyarrow schema of messages that are no event."""
    import pyarrow as pa

    return pa.schema([*_position_fields(), ("value", pa.binary()), ("reason", pa.string())])


def event_row(event: Event) -> dict[str, Any]:
    """An event's own columns; what is absent is null."""
    row = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if value is UNSET:
            value = None
        elif isinstance(value, list):
            value = [msgspec.to_builtins(item) for item in value]
        row[name] = value
    return row


def _position_fields() -> list[tuple[str, Any]]:
    import pyarrow as pa

    kinds = (pa.string(), pa.int32(), pa.int64(), pa.float64())
    return list(zip(POSITION, kinds, strict=True))


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}  # type: ignore[attr-defined]


def _arrow(hint: Any) -> Any:
    """The Arrow type of a field's type. Raises TypeError for one that events don't have yet."""
    import pyarrow as pa

    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        [hint] = [part for part in typing.get_args(hint) if part is not UnsetType]
    if typing.get_origin(hint) is typing.Literal:
        return pa.string()
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow(typing.get_args(hint)[0]))
    if hint is ShownQuery:
        return pa.struct([(name, _arrow(inner)) for name, inner in _hints(ShownQuery).items()])
    known = {str: pa.string(), float: pa.float64(), int: pa.int32(), bool: pa.bool_()}
    if hint not in known:
        raise TypeError(f"no column type for {hint!r}: teach stream.archive.schema")
    return known[hint]
