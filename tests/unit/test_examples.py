"""Examples from a log: what the user saw before acting, and never what came after."""

from __future__ import annotations

from onebar.prompt import PromptConfig
from onebar.training.dataset import Example
from onebar.training.evaluate import prompt_anchors
from stream.events import Click, Event, Exposure, Impression, Search, ShownQuery, Video
from stream.examples import examples

VIDEO = Video(event_id="v1", ts=1.0, video_id="v", title="Trail running shoes")
RISKY = Video(event_id="v2", ts=1.0, video_id="r", title="Cheap cigarettes", sensitive=True)


def impression(ts: float, user: str = "u", video: str = "v") -> Impression:
    return Impression(event_id=f"i{ts}{user}{video}", ts=ts, video_id=video, user_id=user)


def click(ts: float, query: str, user: str = "u", video: str = "v") -> Click:
    return Click(event_id=f"c{ts}{user}", ts=ts, video_id=video, user_id=user, query=query)


def search(ts: float, query: str, user: str) -> Search:
    return Search(event_id=f"s{ts}{user}", ts=ts, video_id="v", user_id=user, query=query)


def test_the_evidence_is_that_of_the_impression() -> None:
    log: list[Event] = [
        VIDEO,
        search(2.0, "trail shoes men", "other"),
        impression(10.0),
        Exposure(
            event_id="e", ts=10.1, video_id="v", user_id="u", queries=[ShownQuery("Red  SHOES")]
        ),
        search(10.2, "later anchor", "other"),
        click(10.3, "Red  SHOES"),
        click(10.4, "blue shoes"),
        impression(20.0),
        click(21.0, "blue shoes"),
    ]
    made = list(examples(log))
    assert [example.target for example in made] == ["red shoes", "blue shoes", "blue shoes"]
    assert prompt_anchors(made[0].prompt) == ["trail shoes men"]
    assert made[0].prompt == made[1].prompt
    assert prompt_anchors(made[2].prompt) == [
        "blue shoes",
        "red shoes",
        "later anchor",
        "trail shoes men",
    ]
    assert made[2].prompt.endswith("[SEP] blue shoes | red shoes")
    assert not made[0].prompt.rstrip().endswith("shoes men | ")


def test_a_click_without_an_impression_has_what_was_known_before_it() -> None:
    (made,) = examples([VIDEO, click(5.0, "red shoes")])
    assert made == Example("Trail running shoes [SEP]  [SEP]  [SEP] ", "red shoes")


def test_searches_count_where_asked_for() -> None:
    log: list[Event] = [VIDEO, impression(2.0), search(3.0, "Trail SHOES", "u")]
    assert list(examples(log)) == []
    (made,) = examples(log, searches=True)
    assert made.target == "trail shoes"
    assert prompt_anchors(made.prompt) == []


def test_flagged_videos_teach_rejection_a_few_times_each() -> None:
    log: list[Event] = [
        RISKY,
        *(impression(float(i), f"u{i}", "r") for i in range(2, 9)),
        click(10.0, "cigarettes", video="r"),
    ]
    made = list(examples(log, rejects_per_video=3))
    assert [example.target for example in made] == ["[REJECT]"] * 3
    assert made[0].prompt.startswith("Cheap cigarettes [SEP]")


def test_prompts_follow_the_config() -> None:
    log: list[Event] = [VIDEO, search(2.0, "trail shoes", "o"), impression(3.0), click(4.0, "x")]
    (made,) = examples(log, prompt=PromptConfig(anchors=False))
    assert prompt_anchors(made.prompt) == []


def test_outside_text_teaches_no_structure() -> None:
    log: list[Event] = [VIDEO, impression(2.0), click(3.0, "[REJECT]"), click(4.0, "[SEP] a")]
    assert [example.target for example in examples(log)] == ["a"]
