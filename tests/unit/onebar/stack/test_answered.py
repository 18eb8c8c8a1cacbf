"""Which list an answer was taken from, what had been done before it, and the evidence of then."""

from __future__ import annotations

from typing import Any

import pytest

from onebar.policy import StatePolicy
from onebar.records import Anchor, Candidate, Features, HistoryEntry, VideoText
from onebar.stack.answered import Behind, as_of, behind, newest_with
from stream.answers.placed import Made, Placed
from stream.events import Click, Engagement, Event, Exposure, Search, ShownQuery, Video

POLICY = StatePolicy(showable_users=1)


def placed(*events: Event) -> list[Placed]:
    return [Placed(event, event.ts, f"t/0@{at}") for at, event in enumerate(events)]


def searched(ts: float, user: str, query: str, video: str = "v") -> Search:
    name = f"{ts} {user} {query}"
    return Search(event_id=name, ts=ts, user_id=user, video_id=video, query=query)


def exposed(ts: float, *queries: str) -> Exposure:
    shown = [ShownQuery(query, place) for place, query in enumerate(queries)]
    return Exposure(event_id=f"x{ts}", ts=ts, video_id="v", user_id="u", queries=shown)


def made(at: float, *queries: str) -> Made:
    return Made(tuple(Candidate(query, -1.0) for query in queries), "m", "d", at, "somewhere")


@pytest.mark.parametrize(
    ("lists", "at"),
    [
        ([made(1.0, "a", "b"), made(2.0, "a", "b", "c")], 2.0),  # the newest
        ([made(1.0, "A", "b"), made(2.0, "a", "c")], 1.0),  # that has what was shown
        ([made(1.0, "a", "b"), made(99.0, "a", "b")], 1.0),  # from before
        ([made(2.0, "a")], None),
        ([], None),
    ],
)
def test_the_list_that_was_served(lists: list[Made], at: float | None) -> None:
    found = newest_with(lists, 3.0, exposed(3.0, "a", "b"))
    assert (found and found.generated_at) == at


def test_what_people_had_done_with_a_query_counts_each_event_once() -> None:
    pair = {"video_id": "v", "user_id": "u2", "query": "boots"}
    log = placed(
        searched(1.0, "u1", "Boots"),
        searched(1.0, "u1", "Boots"),
        searched(2.0, "u2", "boots"),
        searched(3.0, "u3", "boots", video="another"),
        exposed(4.0, "socks", "boots"),
        Click(event_id="c", ts=5.0, **pair),
        Engagement(event_id="e", ts=6.0, kind="cart", **pair),
    )
    assert behind(log, "v", "boots") == Behind(2, 1, 1, 1, users=2, last=6.0)
    assert behind(log, "v", "hats") == Behind()


def test_the_evidence_of_then_is_the_fold_of_what_was_there() -> None:
    log = placed(
        Video(event_id="v", ts=1.0, video_id="v", title="Trail shoes"),
        searched(2.0, "u1", "trail shoes"),
        Search(event_id="h", ts=3.0, user_id="u", query="socks"),
    )
    now = Features(
        text=VideoText(title="Another by now"),
        anchors=(Anchor("near", 0.5, "neighbor"), Anchor("later", 9.0)),
        history=(
            HistoryEntry("later", 99.0),
            HistoryEntry("socks", 99.0),
            HistoryEntry("old", 0.5),
        ),
    )
    then, counts = as_of(log, ("v", "u"), 4.0, now, POLICY)
    assert then.text is not None
    assert then.text.title == "Trail shoes"
    assert [(one.query, one.source) for one in then.anchors] == [
        ("trail shoes", "behavior"),
        ("near", "neighbor"),
    ]
    assert [one.query for one in then.history] == ["socks", "old"]
    assert counts == {}


def test_a_video_that_the_log_does_not_tell_of_is_as_it_is_now() -> None:
    now = Features(text=VideoText(title="Trail shoes"))
    fields: dict[str, Any] = {"video_id": "v", "user_id": "u", "query": "boots"}
    then, _ = as_of(placed(Click(event_id="c", ts=1.0, **fields)), ("v", "u"), 2.0, now, POLICY)
    assert then.text == now.text
