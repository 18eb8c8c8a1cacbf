"""Which offsets may be committed while several batches of one partition are under way. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from stream.kafka.records import Record

PartitionKey = tuple[str, int]


class OffsetTracker:
    """Keeps what has begun and what is done, and says how far each partition is done for good.

    An offset is committable only when it and everything begun before it is done, so a crash
    redelivers and never loses. Records of a partition must begin in their order.
    """

    def __init__(self) -> None:
        self._pending: dict[PartitionKey, dict[int, bool]] = {}
        self._next: dict[PartitionKey, int] = {}
        self._committed: dict[PartitionKey, int] = {}

    @property
    def pending(self) -> int:
        """Offsets begun and not yet passed by the committable one."""
        return sum(len(offsets) for offsets in self._pending.values())

    def pending_of(self, key: PartitionKey) -> int:
        """`pending` of one partition."""
        return len(self._pending.get(key, ()))

    def begin(self, records: Iterable[Record]) -> None:
        """These are taken in hand."""
        for record in records:
            key = record.topic, record.partition
            self._pending.setdefault(key, {})[record.offset] = False
            self._next[key] = record.offset + 1

    def done(self, records: Iterable[Record]) -> None:
        """These have had their effect. One that was forgotten meanwhile is passed over."""
        for record in records:
            offsets = self._pending.get((record.topic, record.partition), {})
            if record.offset in offsets:
                offsets[record.offset] = True

    def forget(self, partitions: Iterable[PartitionKey]) -> None:
        """These partitions begin anew: another member may have had them in between."""
        for key in partitions:
            self._pending.pop(key, None)
            self._next.pop(key, None)
            self._committed.pop(key, None)

    def committable(self) -> dict[PartitionKey, int]:
        """The next offset to read of each partition that came further since `committed`."""
        found: dict[PartitionKey, int] = {}
        for key, offsets in self._pending.items():
            for offset in list(offsets):
                if not offsets[offset]:
                    break
                del offsets[offset]
            upto = next(iter(offsets), self._next[key])
            if upto > self._committed.get(key, -1):
                found[key] = upto
        return found

    def committed(self, offsets: dict[PartitionKey, int]) -> None:
        """These were committed."""
        self._committed.update(offsets)
