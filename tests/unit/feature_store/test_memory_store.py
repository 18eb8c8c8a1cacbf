"""The reference store's rules, one by one; the contract suite holds Redis to the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
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

POLICY = StatePolicy(
    bucket_s=10.0,
    max_entries=3,
    history_size=2,
    dedupe_window_s=100.0,
    deletion_reach_s=0.0,
    showable_users=1,
)
THRESHOLD = msgspec.structs.replace(
    POLICY, showable_users=3, showable_lookback_s=20.0, max_entries=9
)


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
    [counted] = store.features([("v", None)], counted=True)
    assert counted.counts == (("a", 2, 1, 0), ("b", 1, 0, 1))
    [plain] = store.features([("v", None)])
    assert plain.counts == ()


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


def asked(user: str, ts: float, query: str = "q", kind: str = "search") -> BehaviorAdd:
    event_id = f"{user} {ts} {query} {kind}"
    return BehaviorAdd("v", ts, event_id, ((query, 1000),), user_id=user, kind=kind)


def shown(store: MemoryStore, now: float) -> list[str]:
    [features] = store.features([("v", "who else")], now=now)
    return [anchor.query for anchor in features.anchors]


def test_a_query_is_shown_to_others_once_enough_users_asked_it() -> None:
    store = MemoryStore(THRESHOLD)
    for number in range(60):
        store.apply(asked("spam", float(number % 10), f"followers {number % 2}"), None)
    for user, ts in (("a", 1.0), ("a", 2.0), ("b", 15.0)):
        store.apply(asked(user, ts), None)
    assert shown(store, 19.0) == []
    assert [anchor.showable for anchor in store.anchors("v", now=19.0)] == [False] * 3
    store.apply(asked("c", 16.0), None)
    assert shown(store, 19.0) == ["q"]


def test_users_count_within_the_lookback() -> None:
    store = MemoryStore(THRESHOLD)
    for user, ts in (("a", 1.0), ("b", 15.0), ("c", 25.0)):
        store.apply(asked(user, ts), None)
    assert shown(store, 29.0) == ["q"]
    assert shown(store, 30.0) == []
    store.apply(asked("a", 35.0), None)
    assert shown(store, 39.0) == ["q"]


def test_a_user_counts_once_for_a_kind_a_query_and_a_bucket() -> None:
    many = [
        *(asked("u", ts) for ts in (1.0, 2.0, 3.0)),
        asked("u", 4.0, kind="click"),
        asked("u", 5.0, "r"),
        asked("w", 6.0),
        asked("u", 11.0),
    ]
    for order in (many, many[::-1]):
        anchors = stored(*order).snapshot().videos["v"].anchors
        assert anchors == {(0, "q"): 3000, (0, "r"): 1000, (1, "q"): 1000}


def test_a_removed_video_keeps_nothing_and_stays_removed() -> None:
    old, new = VideoText(title="old"), VideoText(title="new")
    removal = VideoPut("v", 2.0, "r", VideoText(removed=True))
    puts = [VideoPut("v", 1.0, "a", old), removal, VideoPut("v", 1.5, "b", new)]
    for order in (puts, puts[::-1]):
        [features] = stored(*order).features([("v", None)])
        assert features.text == VideoText(removed=True)
        assert features.sensitive
    again = stored(*puts, VideoPut("v", 3.0, "c", new))
    assert again.features([("v", None)])[0].text == new


def test_a_deletion_reaches_what_was_stamped_ahead() -> None:
    reach = msgspec.structs.replace(POLICY, deletion_reach_s=60.0)
    put, later = HistoryPut("u", "ahead", 150.0), HistoryPut("u", "after", 161.0)
    for order in ((put, UserDelete("u", 100.0), later), (UserDelete("u", 100.0), later, put)):
        store = MemoryStore(reach)
        for write in order:
            store.apply(write, None)
        assert store.history("u") == (HistoryEntry("after", 161.0),)
