"""A ranker learns what is asked of texts, and what the sources of a candidate are worth."""

from __future__ import annotations

import pytest

from onebar.gating.risk import shipped_rules
from onebar.learning.phrases import Example, learn_phrases, learn_sources
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material
from onebar.recommending.pool import Taste
from onebar.records import Candidate, VideoText

THINGS = ("lamp", "kettle", "tent", "sofa", "drill", "violin")


def example(thing: str, *beam: str) -> Example:
    video = VideoText(title=f"honestly obsessed, brandnew {thing} arrived yesterday")
    return Example(
        Material(video), (thing,), tuple(Candidate(q, -1.0 - i) for i, q in enumerate(beam))
    )


def first(taste: Taste, one: Example) -> str:
    return choose(one.material, one.beam, 1, taste).queries[0].text


def test_it_learns_where_in_a_text_the_thing_is() -> None:
    ranker = learn_phrases([example(thing) for thing in THINGS], l2=0.1, least=2)
    assert first(Taste(ranker, shipped_rules()), example("piano")) == "piano"


def test_it_learns_what_the_beam_is_worth_and_keeps_the_phrases() -> None:
    phrases = learn_phrases([example(thing) for thing in THINGS], l2=0.1, least=2)
    asked = [
        Example(one.material, (one.beam[0].text,), one.beam)
        for one in (example(thing, f"big {thing} sale", thing) for thing in THINGS)
    ]
    ranker = learn_sources(asked, phrases, l2=0.01)
    assert phrases.weights.items() <= ranker.weights.items()
    assert first(Taste(ranker, shipped_rules()), example("piano", "big piano sale", "piano")) == (
        "big piano sale"
    )
    assert ranker.weights == learn_sources(asked, phrases, l2=0.01).weights


def test_examples_that_teach_nothing_are_told() -> None:
    nothing = Example(Material(VideoText(title="lamp")), ("zzz",))
    with pytest.raises(ValueError, match="no example"):
        learn_phrases([nothing])
