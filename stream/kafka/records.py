"""A Kafka record, without Kafka."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from feature_store.writes import Position


class Record(Struct, frozen=True):
    """One message as it came. `topic` is without the prefix; `timestamp` is UTC epoch seconds."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def position(self) -> Position:
        """Where it stands in the log: what fences are kept by."""
        return Position(self.topic, self.partition, self.offset)


def next_offsets(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    """What to commit once all of these are done: the offset after the last of each partition."""
    found: dict[tuple[str, int], int] = {}
    for record in records:
        key = record.topic, record.partition
        found[key] = max(found.get(key, 0), record.offset + 1)
    return found
