"""Two versions of the state are compared while both are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from feature_store.snapshot import RuleState, StateSnapshot, UserState, VideoState
from onebar.records import QueryCounts, VideoText
from stream.kafka.records import Record
from stream.rebuild import compare as comparing
from stream.rebuild.compare import Comparison, compare
from stream.rebuild.fill import Span, wanted
from stream.rebuild.run import duration, missing


class Store:
    """A version whose videos have taken in so much, and which `reads` changes each time."""

    def __init__(
        self,
        videos: dict[str, VideoState],
        users: dict[str, UserState] | None = None,
        rules: dict[str, RuleState] | None = None,
    ) -> None:
        self.state = StateSnapshot(videos=videos, users=users or {}, rules=rules or {})
        self.fence = dict.fromkeys(videos, 7)
        self.reads: Callable[[], None] = lambda: None

    async def entities(self, most: int) -> tuple[list[str], list[str]]:
        return list(self.state.videos), list(self.state.users)

    async def fences(self, videos: Sequence[str]) -> list[dict[str, int]]:
        return [{"t/0": self.fence.get(video, -1)} for video in videos]

    async def read(self, videos: Sequence[str], users: Sequence[str]) -> StateSnapshot:
        self.reads()
        return StateSnapshot(
            videos={v: self.state.videos[v] for v in videos if v in self.state.videos},
            users={u: self.state.users[u] for u in users if u in self.state.users},
        )

    async def rules(self) -> dict[str, RuleState]:
        return self.state.rules


def counted(count: int, title: str = "boots") -> VideoState:
    return VideoState(
        text=VideoText(title=title), version=(1.0, "e"), counts={(0, "q"): QueryCounts(count)}
    )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "PAUSE_S", 0.0)


async def compared(live: Store, target: Store, *, whole: bool = True) -> Comparison:
    return await compare(cast(Any, live), cast(Any, target), whole=whole)


async def test_equal_ones_have_no_differences() -> None:
    users = {"u": UserState(history={"q": 1.0})}
    found = await compared(Store({"v": counted(1)}, users), Store({"v": counted(1)}, users))
    assert (found.videos, found.users, found.differing, found.moving) == (1, 1, 0, 0)


async def test_what_differs_is_told() -> None:
    live = Store(
        {"v": counted(2), "w": counted(1)},
        {"u": UserState(history={"q": 1.0})},
        {"r": RuleState((1.0, "e"))},
    )
    found = await compared(live, Store({"v": counted(1), "w": counted(1)}))
    assert found.differing == 3
    told = "\n".join(found.differences)
    assert "video 'v' counts" in told
    assert "user 'u'" in told
    assert "rule 'r'" in told
    assert "'w'" not in told


async def test_what_was_only_behind_is_equal_in_the_end() -> None:
    live, target = Store({"v": counted(2)}), Store({"v": counted(1)})
    target.fence["v"] = 6
    times = 0

    def arrive() -> None:
        nonlocal times
        times += 1
        if times == 3:
            target.state.videos["v"], target.fence["v"] = counted(2), 7

    target.reads = arrive
    found = await compared(live, target)
    assert (found.differing, found.moving, found.videos) == (0, 0, 1)


async def test_what_never_stands_still_is_no_difference() -> None:
    live, target = Store({"v": counted(2)}), Store({"v": counted(1)})

    def move() -> None:
        live.fence["v"] += 1

    live.reads = move
    found = await compared(live, target)
    assert (found.differing, found.moving, found.videos) == (0, 1, 0)


async def test_of_a_log_that_is_not_whole_texts_and_rules_are_compared() -> None:
    users = {"u": UserState(history={"q": 1.0})}
    live, target = Store({"v": counted(5)}, users), Store({"v": counted(1)})
    target.fence["v"] = 3
    assert (await compared(live, target, whole=False)).differing == 0
    target.state.videos["v"] = counted(1, "sandals")
    assert (await compared(live, target, whole=False)).differing == 1


def test_from_a_time_on_are_behaviours_alone() -> None:
    topics = ("onebar.videos", "onebar.behaviors", "onebar.rules")
    records = [Record(topic, 0, at, float(at), None, b"") for topic in topics for at in (1, 5, 9)]
    assert wanted(records, None) == records
    left = [(record.topic, record.offset) for record in records if record not in wanted(records, 5)]
    assert left == [("onebar.behaviors", 1)]


def test_what_is_missing_is_told_by_topic() -> None:
    spans = {("a", 0): Span(0, 5, 9), ("a", 1): Span(0, 9, 9), ("b", 0): Span(2, 2, 3)}
    assert missing(spans) == {"a": 4, "b": 1}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (300, "5 min"), (7200, "2.0 h")]
)
def test_time_left_is_told_as_short_as_it_can_be(seconds: float, told: str) -> None:
    assert duration(seconds) == told
