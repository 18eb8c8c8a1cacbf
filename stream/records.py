"""A Kafka record, without Kafka."""

from __future__ import annotations

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
