"""What is kept of Redis is what Redis has, or what it is about to say has changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feature_store.kept import Kept, Reading

KEYS = st.sampled_from("abc")


def count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


class Watched(RuleBasedStateMachine):
    """A server that tells of changes, the line from it, and a reader who takes time to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Kept[str, int] = Kept(6, count)
        self.server = dict.fromkeys("abc", 0)
        self.tracked: set[str] = set()
        self.line: deque[object] = deque()
        self.received: deque[tuple[Reading[str], ExitStack, dict[str, int]]] = deque()
        self.kept.trust()

    @rule(key=KEYS)
    def write(self, key: str) -> None:
        self.server[key] += 1
        if key in self.tracked:
            self.tracked.discard(key)
            self.line.append(key)

    @rule(keys=st.sets(KEYS, min_size=1))
    def read(self, keys: set[str]) -> None:
        stack = ExitStack()
        reading = stack.enter_context(self.kept.reading())
        self.tracked |= keys
        self.line.append((reading, stack, {key: self.server[key] for key in keys}))

    @precondition(lambda self: self.line)
    @rule()
    def hear(self) -> None:
        said = self.line.popleft()
        if isinstance(said, str):
            self.kept.change(said)
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
        self.server = {key: value + 1 for key, value in self.server.items()}
        self.tracked.clear()
        self.kept.change_all()
        self.line = deque(said for said in self.line if not isinstance(said, str))

    @invariant()
    def current_or_about_to_be_told(self) -> None:
        for key, value in self.server.items():
            assert self.kept.get(key) in (None, value) or key in self.line


TestWatched = Watched.TestCase


def filled(limit: int, count: int) -> Kept[int, bytes]:
    kept: Kept[int, bytes] = Kept(limit, lambda items: sum(len(value) for _, value in items))
    kept.trust()
    with kept.reading() as reading:
        for key in range(count):
            kept.keep(reading, {key: b"0123456789"})
    return kept


def test_nothing_is_kept_while_nobody_tells() -> None:
    kept: Kept[str, int] = Kept(100, count)
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
