"""A Kafka record, without Kafka."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from feature_store.writes import Position
from stream.events import RULES, VIDEOS, Event, InvalidEventError, from_object, parse
from stream.events.pseudonyms import NONE, Pseudonyms


class Record(Struct, frozen=True):
    """One message as it came. `topic` is without the prefix; `timestamp` is UTC epoch seconds. With
    `null` it had no value, which is not the same as an empty one."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    null: bool = False

    @property
    def position(self) -> Position:
        """Where it stands in the log: what fences and repeats are told by."""
        return Position(self.topic, self.partition, self.offset, self.timestamp)


def event_in(record: Record, pseudonyms: Pseudonyms = NONE) -> Event:
    """The event that a record is, its user by a pseudonym where there is a key for them. An empty
    one takes back what its key names: a video, on the topic of rules a rule.

    Raises `InvalidEventError`."""
    if record.value or record.topic not in (VIDEOS, RULES):
        return pseudonyms.event(parse(record.value))
    try:
        name = (record.key or b"").decode()
    except UnicodeDecodeError:
        raise InvalidEventError("the key of an empty message is no id") from None
    common = {
        "event_id": f"tombstone-{record.partition}-{record.offset}",
        "ts": max(0.0, record.timestamp),
    }
    if record.topic == VIDEOS:
        return from_object({**common, "type": "removal", "video_id": name})
    return from_object({**common, "type": "rule", "rule_id": name, "action": "remove"})


def next_offsets(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    """What to commit once all of these are done: the offset after the last of each partition."""
    found: dict[tuple[str, int], int] = {}
    for record in records:
        key = record.topic, record.partition
        found[key] = max(found.get(key, 0), record.offset + 1)
    return found
