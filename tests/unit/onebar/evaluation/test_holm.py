"""Comparisons are corrected for their number, and intervals are over users and seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evaluation.metrics import compare, holm, mean_of, summary
from onebar.evaluation.outcomes import Outcomes, measure
from onebar.evaluation.predict import Prediction
from onebar.triggers import Trigger


def test_holm_as_in_the_textbook() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "none": math.nan})
    assert found["d"] == pytest.approx(0.02)
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == pytest.approx(0.06)
    assert found["b"] == pytest.approx(0.06)  # never below one before it
    assert math.isnan(found["none"])


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_a_correction_never_makes_anything_surer(chances: dict[str, float]) -> None:
    found = holm(chances)
    assert all(chances[name] <= found[name] <= 1 for name in chances)
    order = sorted(chances, key=lambda name: chances[name])
    assert [found[name] for name in order] == sorted(found.values())


class Fixed:
    name = "fixed"

    def __init__(self, hits: set[int]) -> None:
        self._hits = hits

    def predict(self, triggers: object, k: int) -> list[Prediction]:
        return [
            Prediction((t.target if int(t.trigger_id) in self._hits else "none",))
            for t in triggers  # type: ignore[attr-defined]
        ]


TRIGGERS = [
    Trigger(trigger_id=str(n), kind="click", ts=n, video_id="v", user_id=f"u{n}", target=f"q {n}")
    for n in range(200)
]


def outcomes(hits: set[int]) -> Outcomes:
    return measure(Fixed(hits), TRIGGERS)


def test_seeds_that_disagree_widen_the_interval() -> None:
    agree = mean_of([outcomes(set(range(0, 200, 2)))] * 3)
    differ = mean_of([outcomes(set()), outcomes(set(range(0, 200, 2))), outcomes(set(range(200)))])
    a, b = summary(agree)["hr@1"], summary(differ)["hr@1"]
    assert a.value == b.value == pytest.approx(0.5)
    assert b.high - b.low > 2 * (a.high - a.low)


def test_a_difference_says_how_likely_it_is_by_chance() -> None:
    base = outcomes(set(range(60)))
    assert compare(base, outcomes(set(range(120))))["hr@1"].p <= 0.002
    assert compare(base, base)["hr@1"].p == 1
    swapped = {*range(2, 60), 100, 101}  # as many hits, other ones
    assert compare(base, outcomes(swapped))["hr@1"].p > 0.5


def test_coverage_counts_different_queries() -> None:
    same = replace(outcomes(set()), name="same")
    assert summary(same)["coverage"].value == pytest.approx(1 / 200)
    assert summary(outcomes(set(range(200))))["coverage"].value == pytest.approx(1)
    assert np.isfinite(summary(same)["coverage"].low)
