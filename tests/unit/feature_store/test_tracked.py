"""What is kept of Redis is what Redis has, or what it is about to say has changed."""

from __future__ import annotations

import tracemalloc
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feature_store.cache.tracked import Reading, TrackedValues

KEYS = ("ax", "bx", "ay", "c")
NAMES = (*KEYS, "x", "y")


def count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def second(key: str) -> str | None:
    """The group of a key: its second letter."""
    return key[1:] or None


class Watched(RuleBasedStateMachine):
    """A server that tells of changes, the line from it, and a reader who takes time to keep.

    A value is what the server has under its key and under the name of its group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: TrackedValues[str, tuple[int, int]] = TrackedValues(6, count, second)
        self.server = dict.fromkeys(NAMES, 0)
        self.tracked: set[str] = set()
        self.line: deque[object] = deque()
        self.received: deque[tuple[Reading, ExitStack, dict[str, tuple[int, int]]]] = deque()
        self.kept.trust()

    def value(self, key: str) -> tuple[int, int]:
        group = second(key)
        return self.server[key], self.server[group] if group else 0

    @rule(name=st.sampled_from(NAMES))
    def write(self, name: str) -> None:
        self.server[name] += 1
        if name in self.tracked:
            self.tracked.discard(name)
            self.line.append(name)

    @rule(keys=st.sets(st.sampled_from(KEYS), min_size=1))
    def read(self, keys: set[str]) -> None:
        stack = ExitStack()
        reading = stack.enter_context(self.kept.reading())
        self.tracked |= keys | {group for key in keys if (group := second(key))}
        self.line.append((reading, stack, {key: self.value(key) for key in keys}))

    @precondition(lambda self: self.line)
    @rule()
    def hear(self) -> None:
        said = self.line.popleft()
        if isinstance(said, str):
            if said in KEYS:
                self.kept.change(said)
            else:
                self.kept.change_group(said)
        elif isinstance(said, tuple):
            self.received.append(said)

    @precondition(lambda self: self.received)
    @rule()
    def keep(self) -> None:
        reading, stack, values = self.received.popleft()
        with stack:
            self.kept.keep(reading, values)

    @rule()
    def lose(self) -> None:
        """The connection is lost with all that was on it, and made again."""
        for said in self.line:
            if isinstance(said, tuple):
                said[1].close()
        self.line.clear()
        self.tracked.clear()
        self.kept.distrust()
        self.kept.trust()

    @rule()
    def flush(self) -> None:
        """The server has lost all; what it says of it can't be overtaken."""
        self.server = {name: value + 1 for name, value in self.server.items()}
        self.tracked.clear()
        self.kept.change_all()
        self.line = deque(said for said in self.line if not isinstance(said, str))

    @invariant()
    def current_or_about_to_be_told(self) -> None:
        for key in KEYS:
            told = key in self.line or second(key) in self.line
            assert told or self.kept.get(key) in (None, self.value(key))


TestWatched = Watched.TestCase


def total_bytes(items: Iterable[tuple[int, bytes]]) -> int:
    return sum(len(value) for _, value in items)


def filled(limit: int, count: int) -> TrackedValues[int, bytes]:
    kept: TrackedValues[int, bytes] = TrackedValues(limit, total_bytes, lambda key: key % 2)
    kept.trust()
    with kept.reading() as reading:
        for key in range(count):
            kept.keep(reading, {key: b"0123456789"})
    return kept


def test_nothing_is_kept_while_nobody_tells() -> None:
    kept: TrackedValues[str, int] = TrackedValues(100, count, second)
    with kept.reading() as reading:
        kept.keep(reading, {"a": 1})
        assert kept.get("a") is None
        kept.trust()
        kept.keep(reading, {"a": 1})
        assert kept.get("a") == 1
        kept.distrust()
        kept.trust()
        kept.keep(reading, {"b": 1})
    assert len(kept) == 0


@given(st.integers(20, 400), st.integers(0, 100))
def test_no_more_is_kept_than_the_limit(limit: int, count: int) -> None:
    kept = filled(limit, count)
    assert len(kept) * 10 <= limit + 20
    assert kept.get(count - 1) is not None or count == 0 or limit < 20


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    kept = filled(200, 10)
    for key in range(10, 60):
        assert kept.get(3) is not None
        with kept.reading() as reading:
            kept.keep(reading, {key: b"0123456789"})
    assert kept.get(3) is not None
    assert kept.get(4) is None


def test_a_value_read_again_counts_once() -> None:
    kept = filled(200, 1)
    with kept.reading() as reading:
        for _ in range(100):
            kept.keep(reading, {0: b"0123456789"})
        kept.keep(reading, {1: b"0123456789"})
    assert len(kept) == 2
    kept.change(1)
    assert len(kept) == 1


@pytest.mark.parametrize("group", [False, True])
def test_what_changes_while_it_is_read_is_not_kept(group: bool) -> None:
    kept: TrackedValues[str, int] = TrackedValues(8, count, second)
    kept.trust()
    with kept.reading() as reading:
        if group:
            kept.change_group("x")
        else:
            kept.change("ax")
        kept.keep(reading, {"ax": 1, "ay": 2})
    assert kept.get("ax") is None
    assert kept.get("ay") == 2


def test_a_group_goes_as_a_whole() -> None:
    kept: TrackedValues[str, int] = TrackedValues(8, count, second)
    kept.trust()
    with kept.reading() as reading:
        kept.keep(reading, {"ax": 1, "bx": 2, "ay": 3, "c": 4, "d": 5})  # now these are old
        kept.keep(reading, {"cx": 6})
    kept.change_group("x")
    assert [kept.get(key) for key in ("ax", "bx", "cx", "ay", "c")] == [None, None, None, 3, 4]
    assert len(kept) == 3


class Name(str):
    """A string that can be watched."""


@pytest.mark.parametrize("old", [False, True])
def test_of_what_changed_nothing_is_left(old: bool) -> None:
    kept: TrackedValues[str, int] = TrackedValues(2 if old else 100, count, second)
    kept.trust()
    name = Name("ax")
    gone = weakref.ref(name)
    with kept.reading() as reading:
        kept.keep(reading, {name: 1, "bx": 2})
    assert kept.turns == old
    kept.change("ax")
    del name, reading
    assert gone() is None
    assert kept.get("bx") == 2


def test_a_group_that_lost_nearly_all_takes_little() -> None:
    kept: TrackedValues[int, int] = TrackedValues(10**6, count, lambda key: "all")
    kept.trust()
    keys = list(range(20_000))
    tracemalloc.start()
    try:
        with kept.reading() as reading:
            kept.keep(reading, dict.fromkeys(keys, 0))
        full, _ = tracemalloc.get_traced_memory()
        for key in keys[:-1]:
            kept.change(key)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.get(keys[-1]) == 0
    assert full - left > 16 * 20_000  # a place in a set has 16 bytes


def test_what_was_known_when_trust_was_lost_can_be_had_until_it_is_back() -> None:
    kept: TrackedValues[str, int] = TrackedValues(100, count, second)
    kept.trust()
    with kept.reading() as reading:
        kept.keep(reading, {"ax": 1, "by": 2})
    assert kept.last_known("ax") is None
    kept.distrust()
    kept.distrust()
    assert (kept.get("ax"), kept.last_known("ax")) == (None, 1)
    kept.change_group("x")
    assert (kept.last_known("ax"), kept.last_known("by")) == (None, 2)
    kept.trust()
    assert kept.last_known("by") is None
