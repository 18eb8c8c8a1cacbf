"""What a bar is worth beside the clicked query: assignment, variety, logged taps, true taps."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evaluation.bars import (
    diversity,
    hung_f1,
    logged_taps,
    references,
    repeats,
    token_f1,
)
from onebar.triggers import Counted, Shown, Trigger

QUERIES = st.lists(
    st.sampled_from(("red shoes", "shoes", "red lamp", "blue tent", "tent", "lamp shade red")),
    min_size=1, max_size=4, unique=True,
)  # fmt: skip


def trigger(**facts: object) -> Trigger:
    values: dict[str, object] = {
        "trigger_id": "t", "kind": "click", "ts": 1.0, "video_id": "v", "user_id": "u",
    }  # fmt: skip
    return Trigger(**{**values, **facts})  # type: ignore[arg-type]


@given(QUERIES, QUERIES)
def test_the_assignment_is_the_best_there_is(queries: list[str], wanted: list[str]) -> None:
    rates = {query: 1.0 / (at + 1) for at, query in enumerate(wanted)}
    few, many = sorted((len(queries), len(wanted)))
    best = 0.0
    # Every one-to-one assignment, by hand.
    for chosen in permutations(range(many), few):
        pairs = [
            (at, other) if len(queries) <= len(wanted) else (other, at)
            for at, other in enumerate(chosen)
        ]
        best = max(best, sum(rates[wanted[w]] * token_f1(queries[q], wanted[w]) for q, w in pairs))
    recall = best / sum(rates.values())
    found = hung_f1(queries, rates)
    assert -1e-9 <= found <= 1 + 1e-9
    # The harmonic mean lies between recall and precision, and is 0 where either is.
    assert (found < 1e-12) == (recall < 1e-12)
    if set(queries) == set(wanted):
        assert found == pytest.approx(1)


def test_a_reference_that_is_tapped_more_weighs_more() -> None:
    often = {"red shoes": 0.5, "blue tent": 0.05}
    assert hung_f1(["red shoes"], often) > hung_f1(["blue tent"], often)
    assert hung_f1([], often) == 0


def test_references_are_what_was_tapped_here() -> None:
    one = trigger(target="Red  shoes", counts=(Counted("boots", 10, 5), Counted("socks", 100, 0)))
    assert references(one) == {"boots": pytest.approx(5.5 / 20), "red shoes": 1.0}


def test_variety_and_repeats() -> None:
    assert diversity(["red shoes", "red shoes"]) == 0
    assert diversity(["abc", "xyz"]) == 1
    assert math.isnan(diversity(["abc"]))
    assert repeats(["red shoes", "shoes red", "lamp"]) == 1
    assert math.isnan(repeats([]))


def test_a_logged_tap_counts_by_how_its_place_is_looked_at() -> None:
    bar = (Shown("a", 0, False), Shown("b", 1, True), Shown("c", 2, False))
    propensity = (1.0, 0.5, 0.25)
    # b moves from the second place to the first: twice the look, twice the tap; a moves back.
    assert logged_taps(trigger(shown=bar), ["b", "a"], propensity) == (2.0, 1.0 + 0.5)
    # What stands behind the tap was not passed over, and says nothing.
    assert logged_taps(trigger(shown=bar), ["c"], propensity) == (0.0, 0.0)
    assert all(map(math.isnan, logged_taps(trigger(), ["b"], propensity)))
    assert all(map(math.isnan, logged_taps(trigger(shown=bar), ["b"], None)))
