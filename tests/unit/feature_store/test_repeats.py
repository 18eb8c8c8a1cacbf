"""What counts once is a property of the log, not of how it was read."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from feature_store.repeats import count_change, dedupe_window, recorded_at
from feature_store.writes import BehaviorAdd, Position

DAY = 86400.0


def counted(windows: list[int]) -> int:
    seen: set[tuple[int, Hashable]] = set()
    return sum(count_change(seen, "event", window) for window in windows)


def stretches(windows: list[int]) -> int:
    """Runs of neighbouring windows, counted the plain way."""
    ordered = sorted(set(windows))
    return sum(1 for i, w in enumerate(ordered) if i == 0 or w > ordered[i - 1] + 1)


@given(st.lists(st.integers(-3, 12), max_size=12), st.randoms(use_true_random=False))
def test_it_counts_once_a_stretch_in_any_order(windows: list[int], random: object) -> None:
    shuffled = list(windows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert counted(windows) == counted(shuffled) == stretches(windows)


def test_a_retry_over_midnight_counts_once_and_a_replay_days_later_again() -> None:
    before, after, later = (dedupe_window(t, DAY) for t in (DAY - 1, DAY + 1, 5 * DAY))
    assert counted([before, after]) == 1
    assert counted([before, after, later]) == 2


def test_what_no_log_took_is_told_by_its_own_time() -> None:
    add = BehaviorAdd("v", 7.0, "e")
    assert recorded_at(add, None) == recorded_at(add, Position("t", 0, 0)) == 7.0
    assert recorded_at(add, Position("t", 0, 0, 9.0)) == 9.0
