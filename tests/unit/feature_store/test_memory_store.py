"""The reference store's rules, one by one; the contract suite holds Redis to the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from feature_store.buckets import BucketRangeError
from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot, UserState, VideoState, diff
from feature_store.writes import (
    BehaviorAdd,
    HistoryPut,
    InvalidWriteError,
    Position,
    UserDelete,
    VideoPut,
    Write,
)
from onebar.policy import StatePolicy
from onebar.records import Anchor, HistoryEntry, QueryCounts, VideoText

POLICY = StatePolicy(bucket_s=10.0, max_entries=3, history_size=2, dedupe_window_s=100.0)


def stored(*writes: Write) -> MemoryStore:
    store = MemoryStore(POLICY)
    for offset, write in enumerate(writes):
        store.apply(write, Position("t", 0, offset))
    return store


def test_the_greatest_version_of_a_text_wins() -> None:
    a, b, c = (VideoText(title=title) for title in "abc")
    writes = [VideoPut("v", 1.0, "x", a), VideoPut("v", 2.0, "x", b), VideoPut("v", 2.0, "é", c)]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        video = stored(*(writes[i] for i in order)).snapshot().videos["v"]
        assert (video.text, video.version) == (c, (2.0, "é"))


def test_a_repeated_event_counts_once_inside_its_window() -> None:
    click = BehaviorAdd("v", 5.0, "e", (("q", 2000),), clicks=("q",))
    store = stored(click, click)
    assert store.snapshot().videos["v"].anchors == {(0, "q"): 2000}
    assert store.counts("v") == {"q": QueryCounts(clicks=1)}


def test_an_offset_already_passed_has_no_effect() -> None:
    store = MemoryStore(POLICY)
    store.apply(BehaviorAdd("v", 1.0, "e1", (("q", 1),)), Position("t", 0, 5))
    store.apply(BehaviorAdd("v", 1.0, "e2", (("q", 10),)), Position("t", 0, 5))
    store.apply(BehaviorAdd("v", 1.0, "e3", (("q", 100),)), Position("t", 1, 5))
    store.apply(BehaviorAdd("v", 1.0, "e4", (("q", 1000),)), None)
    assert store.snapshot().videos["v"].anchors == {(0, "q"): 1101}


def test_one_exposure_counts_each_query() -> None:
    store = stored(BehaviorAdd("v", 1.0, "e", (), ("a", "b", "a"), ("a",), ("b",)))
    assert store.counts("v") == {"a": QueryCounts(2, 1, 0), "b": QueryCounts(1, 0, 1)}


def test_only_the_newest_entries_stay() -> None:
    writes = [BehaviorAdd("v", ts, f"e{ts}", ((f"q{ts}", 1),), (f"q{ts}",)) for ts in range(90)]
    video = stored(*writes).snapshot().videos["v"]
    assert set(video.anchors) == set(video.counts) == {(8, "q87"), (8, "q88"), (8, "q89")}


def test_the_newest_queries_of_a_user_stay() -> None:
    store = stored(*(HistoryPut("u", query, ts) for query, ts in [("a", 1), ("b", 3), ("c", 2)]))
    assert store.history("u") == (HistoryEntry("b", 3.0), HistoryEntry("c", 2.0))
    store.apply(HistoryPut("u", "c", 9.0), None)
    store.apply(HistoryPut("u", "b", 1.0), None)
    assert store.history("u") == (HistoryEntry("c", 9.0), HistoryEntry("b", 3.0))


def test_a_deletion_forgets_and_keeps_older_events_out() -> None:
    put, late, delete = HistoryPut("u", "a", 5.0), HistoryPut("u", "b", 6.0), UserDelete("u", 5.0)
    expected = StateSnapshot(users={"u": UserState({"b": 6.0}, 5.0)})
    for order in (
        (put, late, delete),
        (delete, late, put),
        (late, delete, put, UserDelete("u", 1)),
    ):
        assert stored(*order).snapshot() == expected


def test_features_of_what_is_not_there_are_empty() -> None:
    store = MemoryStore(POLICY)
    [features] = store.features([("v", "u")])
    assert (features.text, features.anchors, features.history) == (None, (), ())
    assert store.snapshot() == StateSnapshot()


def test_neighbours_follow_the_anchors() -> None:
    store = stored(BehaviorAdd("v", 5.0, "e", (("q", 2000),)))
    store.put_neighbors("v", [Anchor("q", 1.0, "neighbor"), Anchor("n", 0.5, "neighbor")])
    [features] = store.features([("v", None)], now=0.0)
    assert features.anchors == (Anchor("q", 2.0), Anchor("n", 0.5, "neighbor"))


@pytest.mark.parametrize(
    "write",
    [
        lambda: HistoryPut("u", "q", math.nan),
        lambda: HistoryPut("u", "q", math.inf),
        lambda: UserDelete("u", -1.0),
        lambda: HistoryPut("u", "\ud800", 1.0),
        lambda: VideoPut("v", 1.0, "e", VideoText(ocr="\udfff")),
        lambda: BehaviorAdd("v", 1.0, "e", (("q", 0),)),
        lambda: BehaviorAdd("v", 1.0, "e", (("q", 2**31 + 1),)),
    ],
)
def test_a_write_no_store_can_take_is_not_made(write: Callable[[], Write]) -> None:
    with pytest.raises(InvalidWriteError):
        write()


def test_a_time_that_no_bucket_covers_changes_nothing() -> None:
    store = MemoryStore(POLICY)
    with pytest.raises(BucketRangeError):
        store.apply(BehaviorAdd("v", 1e12, "e", (("q", 1),)), None)
    assert store.snapshot() == StateSnapshot()


def test_diff_says_where() -> None:
    same = StateSnapshot({"v": VideoState(anchors={(1, "a"): 1})}, {"u": UserState({"a": 1.0})})
    assert diff(same, same) == []
    other = StateSnapshot(
        {
            "v": VideoState(anchors={(1, "a"): 2}, counts={(1, "b"): QueryCounts(1)}),
            "w": VideoState(),
        }
    )
    assert diff(same, other) == [
        "video 'v' anchors (1, 'a'): expected 1, found 2",
        "video 'v' counts (1, 'b'): expected nothing, found "
        "{'exposures': 1, 'clicks': 0, 'engagements': 0}",
        "video 'w': found, but not expected",
        "user 'u': expected, but missing",
    ]
    assert diff(same, other, limit=2)[-1] == "... and 3 more differences"
