"""Offsets: nothing is committed before everything up to it is done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.offsets import OffsetTracker
from stream.kafka.records import Record, next_offsets

KEY = ("t", 0)


def record(offset: int, partition: int = 0) -> Record:
    return Record("t", partition, offset, 0.0, None, b"")


@given(st.permutations(range(8)))
def test_committable_is_the_end_of_the_finished_prefix(order: list[int]) -> None:
    tracker = OffsetTracker()
    tracker.begin(map(record, range(8)))
    finished: set[int] = set()
    for offset in order:
        tracker.done([record(offset)])
        finished.add(offset)
        prefix = next(n for n in range(9) if n not in finished)
        assert tracker.committable().get(KEY, 0) == prefix
    assert tracker.pending == 0


def test_what_was_committed_is_not_offered_again() -> None:
    tracker = OffsetTracker()
    tracker.begin([record(5), record(6)])
    tracker.done([record(5)])
    offered = tracker.committable()
    assert offered == {KEY: 6}
    tracker.committed(offered)
    assert tracker.committable() == {}


def test_gaps_in_a_compacted_log_are_no_obstacle() -> None:
    tracker = OffsetTracker()
    tracker.begin([record(3), record(9)])
    tracker.done([record(3), record(9)])
    assert tracker.committable() == {KEY: 10}


def test_a_partition_that_went_away_is_forgotten() -> None:
    tracker = OffsetTracker()
    tracker.begin([record(3), record(1, partition=1)])
    tracker.forget([KEY])
    tracker.done([record(3), record(1, partition=1)])
    assert tracker.committable() == {("t", 1): 2}


def test_next_offsets_are_one_past_the_last() -> None:
    assert next_offsets([record(4), record(2), record(7, 1)]) == {KEY: 5, ("t", 1): 8}
