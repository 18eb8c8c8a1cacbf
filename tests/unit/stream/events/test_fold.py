"""What each event changes."""

from __future__ import annotations

from event_strategies import events
from hypothesis import given
from hypothesis import strategies as st

from feature_store.memory import MemoryStore
from feature_store.writes import BehaviorAdd, HistoryPut, ReactionPut, UserDelete, VideoPut
from onebar.evidence.text import clean_video
from onebar.policy import StatePolicy
from onebar.records import VideoText
from stream.events import (
    Click,
    Deletion,
    Engagement,
    Event,
    Exposure,
    Impression,
    Removal,
    Search,
    ShownQuery,
    Video,
)
from stream.events.fold import FoldWeights, fold

COMMON = {"event_id": "e", "ts": 7.0}


def test_a_video_is_cleaned_and_put() -> None:
    event = Video(**COMMON, video_id="v", caption="Red boots #fyp @shop", sensitive=True)
    [write] = fold(event, clean_video)
    assert isinstance(write, VideoPut)
    assert (write.video_id, write.ts, write.event_id) == ("v", 7.0, "e")
    assert write.text == VideoText(caption="Red boots", sensitive=True)


def test_an_impression_changes_nothing() -> None:
    assert fold(Impression(**COMMON, video_id="v", user_id="u"), clean_video) == ()


def test_a_search_after_a_video_is_an_anchor_and_history() -> None:
    writes = fold(Search(**COMMON, user_id="u", query="  Red BOOTS ", video_id="v"), clean_video)
    assert writes == (
        BehaviorAdd("v", 7.0, "e", anchors=(("red boots", 1000),), user_id="u", kind="search"),
        HistoryPut("u", "red boots", 7.0),
    )


def test_a_search_without_a_video_is_history_alone() -> None:
    writes = fold(Search(**COMMON, user_id="u", query="boots"), clean_video)
    assert writes == (HistoryPut("u", "boots", 7.0),)


def test_an_exposure_counts_each_query_once() -> None:
    shown = [ShownQuery("Boots", 0), ShownQuery("boots", 1), ShownQuery("red boots", 2)]
    writes = fold(Exposure(**COMMON, video_id="v", user_id="u", queries=shown), clean_video)
    assert writes == (
        BehaviorAdd("v", 7.0, "e", exposures=("boots", "red boots"), user_id="u", kind="exposure"),
        ReactionPut("u", 7.0, "e", "shown", ("boots", "red boots")),
    )


def test_a_click_is_anchor_count_and_history() -> None:
    writes = fold(Click(**COMMON, video_id="v", user_id="u", query="boots"), clean_video)
    assert writes == (
        BehaviorAdd("v", 7.0, "e", (("boots", 500),), clicks=("boots",), user_id="u", kind="click"),
        HistoryPut("u", "boots", 7.0),
        ReactionPut("u", 7.0, "e", "tapped", ("boots",)),
    )


def test_what_was_typed_weighs_more_than_a_tap_on_the_first_of_what_was_shown() -> None:
    def weight(event: Event) -> int:
        add = fold(event, clean_video)[0]
        assert isinstance(add, BehaviorAdd)
        return add.anchors[0][1]

    def tap(position: int | None) -> int:
        at = {} if position is None else {"position": position}
        return weight(Click(**COMMON, video_id="v", user_id="u", query="boots", **at))

    typed = weight(Search(**COMMON, video_id="v", user_id="u", query="boots"))
    assert tap(None) == tap(0) < tap(1) == tap(7) <= typed


@given(st.permutations([0, 0, 1, 3]))
def test_where_a_user_tapped_first_is_no_matter(positions: list[int]) -> None:
    store = MemoryStore(StatePolicy())
    for number, position in enumerate(positions):
        click = Click(
            event_id=f"e{number}", ts=7.0, video_id="v", user_id="u", query="b", position=position
        )
        for write in fold(click, clean_video):
            store.apply(write, None)
    [anchors] = [video.anchors for video in store.snapshot().videos.values()]
    assert list(anchors.values()) == [1500]


def test_an_engagement_weighs_by_its_kind() -> None:
    weights = FoldWeights(order=9.5)
    event = Engagement(**COMMON, video_id="v", user_id="u", query="boots", kind="order", value=3)
    assert fold(event, clean_video, weights) == (
        BehaviorAdd(
            "v", 7.0, "e", (("boots", 9500),), engagements=("boots",), user_id="u", kind="order"
        ),
        ReactionPut("u", 7.0, "e", "ordered", ("boots",)),
    )


def test_a_removal_leaves_nothing_of_the_text() -> None:
    [write] = fold(Removal(**COMMON, video_id="v"), clean_video)
    assert write == VideoPut("v", 7.0, "e", VideoText(removed=True))


def test_a_deletion_forgets_the_user() -> None:
    assert fold(Deletion(**COMMON, user_id="u"), clean_video) == (UserDelete("u", 7.0),)


def test_a_query_with_nothing_in_it_changes_nothing() -> None:
    assert fold(Click(**COMMON, video_id="v", user_id="u", query="[SEP]"), clean_video) == ()


@given(events())
def test_every_write_of_every_event_can_be_taken_by_a_store(event: Event) -> None:
    fold(event, clean_video)  # raises for any other
