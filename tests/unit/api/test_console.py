"""What the operations page is told: numbers, click rates, what another model would say."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api.console.clicks import click_rates, whose_words
from api.console.models import compare
from api.console.numbers import read_numbers
from onebar.evidence.evidence import Evidence
from onebar.recommending.candidates import Chosen
from onebar.recommending.grounding import Ground
from onebar.recommending.material import Material
from onebar.recommending.recommend import Grounding
from onebar.records import Candidate, Features, QueryCounts, VideoText


def test_numbers_are_those_that_were_counted() -> None:
    registry = CollectorRegistry()
    counter = Counter("onebar_things", "x", ["kind"], registry=registry)
    counter.labels("a").inc(3)
    Gauge("onebar_level", "x", registry=registry).set(7)
    Gauge("other_level", "x", registry=registry).set(1)
    histogram = Histogram("onebar_seconds", "x", ["route"], buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.5, 0.5, 5.0):
        histogram.labels("/").observe(value)
    found = read_numbers(generate_latest(registry).decode())
    assert {name: [(s.labels, s.value) for s in each] for name, each in found.values.items()} == {
        "onebar_things": [({"kind": "a"}, 3.0)],
        "onebar_level": [({}, 7.0)],
    }
    [seconds] = found.distributions["onebar_seconds"]
    assert seconds.labels == {"route": "/"}
    assert (seconds.bounds, seconds.counts) == ([0.1, 1.0], [1.0, 3.0])
    assert (seconds.count, seconds.sum) == (4.0, pytest.approx(6.05))


def test_what_is_no_prometheus_text_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        read_numbers('onebar_things{kind="a" 3\n')


@pytest.mark.parametrize(
    ("query", "whose"),
    [
        ("hiking boots", "video"),
        ("waterproof hiking boots", "both"),
        ("toy train", "people"),
        ("the", "people"),
    ],
)
def test_whose_words_a_query_is_in(query: str, whose: str) -> None:
    assert whose_words(query, Ground(["My hiking boots"])) == whose


def test_click_rates_add_up() -> None:
    known = Features(VideoText(title="My hiking boots"))
    counts = {
        "hiking boots": QueryCounts(10, 2, 1),
        "boots": QueryCounts(10, 4, 0),
        "toy train": QueryCounts(5, 0, 0),
        "never shown": QueryCounts(0, 0, 0),
    }
    found = {each.whose: each for each in click_rates([(known, counts), (known, counts)])}
    video = found["video"]
    assert (video.queries, video.exposures, video.clicks, video.engagements) == (4, 40, 12, 2)
    assert video.rate == pytest.approx(0.3)
    assert found["people"].rate == 0.0
    assert found["both"].rate is None


def test_what_another_model_would_change() -> None:
    features = Features(VideoText(title="t"))
    groundings = [
        Grounding(
            (f"v{n}", None), features, Evidence(), "p", Material(), "d", "p", Material(), "d", 0.0
        )
        for n in range(4)
    ]

    def chosen(*texts: str) -> Chosen:
        return Chosen(tuple(Candidate(text, 0.0) for text in texts))

    now = [chosen("a", "b"), chosen("a", "b"), chosen("a"), chosen()]
    then = [chosen("a", "b"), chosen("b", "c"), chosen(), chosen()]
    found = compare("m", groundings, now, then, 1.0, 2.0)
    assert (found.videos, found.other_first, found.other_list) == (4, 0.5, 0.5)
    assert found.overlap == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found.now_rejected, found.then_rejected) == (0.25, 0.5)
    assert [each.video_id for each in found.lists] == ["v1", "v2"]
