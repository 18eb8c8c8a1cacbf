"""Whatever a fill and the workers that take it over do, and wherever they are killed, the version
that is filled comes to be the fold of the log."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from event_strategies import events
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.memory import MemoryStore
from feature_store.writes import InvalidWriteError
from onebar.policy import StatePolicy
from stream.events import RULES, Event, InvalidEventError, encode
from stream.kafka.records import Record
from stream.workers.dead_letters import FutureEventError
from stream.workers.ingest import to_writes

POLICY = StatePolicy(max_entries=4, history_size=2, dedupe_window_s=1000.0)
PARTITIONS = 2
Partition = tuple[str, int]


def log_of(found: Sequence[Event]) -> dict[Partition, list[Record]]:
    """Each partition's records in their order."""
    log: dict[Partition, list[Record]] = {}
    for number, event in enumerate(found):
        place = getattr(event, "video_id", None)
        pair = event.topic, crc32(str(place).encode()) % PARTITIONS if event.topic != RULES else 0
        part = log.setdefault(pair, [])
        part.append(Record(*pair, len(part), event.ts + number, None, encode(event)))
    return log


class Filled:
    """A version of the state, and how far it says that it is."""

    def __init__(self) -> None:
        self.store = MemoryStore(POLICY)
        self.reached: dict[Partition, int] = {}

    def take(self, records: Sequence[Record], done: int | None = None) -> None:
        """Take a batch in; killed after `done` of its records, it notes nothing."""
        for record in records[:done]:
            try:
                _, writes = to_writes(record, 60.0)
            except (InvalidEventError, FutureEventError, InvalidWriteError):
                continue
            for write, position in writes:
                self.store.apply(write, position)
        if records and (done is None or done >= len(records)):
            pair = records[-1].topic, records[-1].partition
            self.reached[pair] = max(records[-1].offset, self.reached.get(pair, -1))


class Reader:
    """The fill, or a worker: it begins where the state, or what is committed, says."""

    def __init__(self, filled: Filled, log: dict[Partition, list[Record]]) -> None:
        self.filled = filled
        self.log = log
        self.at = {pair: filled.reached.get(pair, -1) + 1 for pair in log}

    def step(self, pair: Partition, size: int, killed_after: int | None) -> bool:
        """Whether it lives on."""
        batch = self.log[pair][self.at[pair] : self.at[pair] + size]
        self.filled.take(batch, killed_after)
        self.at[pair] += len(batch)
        return killed_after is None


@settings(max_examples=150)
@given(st.lists(events(), max_size=30), st.data())
def test_a_filled_version_is_the_fold_of_the_log(found: list[Event], data: st.DataObject) -> None:
    log = log_of(found)
    clean = Filled()
    for part in log.values():
        clean.take(part)
    filled = Filled()
    readers = [Reader(filled, log)]
    steps = st.tuples(
        st.integers(0, 1),  # the fill, or the worker that took over
        st.sampled_from(sorted(log) or [("", 0)]),
        st.integers(1, 5),
        st.none() | st.integers(0, 4),  # killed after so many records
    )
    for who, pair, size, killed in data.draw(st.lists(steps, max_size=25)) if log else ():
        if who == len(readers):
            readers.append(Reader(filled, log))  # begins where the fill is, and is late from then
        if not readers[who].step(pair, size, killed):
            readers[who] = Reader(filled, log)
    last = Reader(filled, log)
    for pair in log:
        while last.at[pair] < len(log[pair]):
            last.step(pair, 3, None)
    assert filled.store.snapshot() == clean.store.snapshot()
