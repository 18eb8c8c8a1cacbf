"""Off-policy estimates against values worked out by hand and against worlds that are known."""

from __future__ import annotations

import numpy as np
import pytest

from onebar.evaluation.metrics import Interval
from onebar.evaluation.offpolicy import Estimate, examination, snips, weights
from onebar.evaluation.predict import Prediction
from onebar.evaluation.shadow import shadow, verdict
from onebar.training.triggers import EmptyDatasetError, Shown, Trigger

EXAMINED = (1.0, 0.6, 0.4, 0.2)
WANTED = {"great": 0.5, "good": 0.25, "poor": 0.05, "bad": 0.01}


def shown(*items: tuple[str, int, bool], video: str = "v") -> Trigger:
    clicked = [query for query, _, tapped in items if tapped]
    return Trigger(
        trigger_id="t", kind="click" if clicked else "shown", ts=0.0, video_id=video,
        target=clicked[0] if clicked else "", shown=tuple(Shown(*item) for item in items),
    )  # fmt: skip


def world(count: int, seed: int) -> list[Trigger]:
    """Impressions of a policy that shuffles the bar; taps by the item-position model."""
    rng = np.random.default_rng(seed)
    triggers = []
    for number in range(count):
        order = rng.permutation(list(WANTED))
        taps = rng.random(4) < [EXAMINED[p] * WANTED[q] for p, q in enumerate(order)]
        items = ((str(q), p, bool(taps[p])) for p, q in enumerate(order))
        triggers.append(shown(*items, video=f"v{number % 5}"))
    return triggers


def test_weights_by_hand() -> None:
    propensity = np.array([1.0, 0.5, 0.25])
    triggers = [shown(("a", 0, False), ("b", 1, True)), shown(("a", 2, True), ("c", 0, False))]
    answers = [("b", "a"), ("x", "a")]
    sums, supported, clicks = weights(triggers, answers, propensity)
    # b moves from 1 up to 0: 1/0.5 = 2; a from 0 down to 1: 0.5. Then a from 2 to 1: 2.
    # Looked at: e of the new rank, whatever the logged position.
    assert sums.tolist() == [[2.0, 1.5, 2.5, 4.25], [2.0, 0.5, 2.0, 4.0]]
    assert (supported, clicks) == (2, 2)
    clipped, _, _ = weights(triggers, answers, propensity, clip=1.5)
    assert clipped.tolist() == [[1.5, 1.25, 2.0, 2.5], [1.5, 0.375, 1.5, 2.25]]
    unlisted, supported, _ = weights(triggers, [("x",), ()], propensity)
    assert not unlisted.any()
    assert supported == 0


def test_the_estimate_is_taps_over_weights() -> None:
    triggers = [shown(("a", 0, False), ("b", 1, True)), shown(("a", 0, True), ("b", 1, False))]
    old, new, difference = snips(triggers, [("a",)] * 2, [("b",)] * 2)
    assert old.value.value == pytest.approx(1 / 2)
    assert new.value.value == pytest.approx(1 / 2)
    assert difference.value == 0
    assert old.effective == pytest.approx(2.0)
    assert not old.conclusive


def test_propensities_are_found_in_the_log() -> None:
    found = examination(world(20_000, seed=1))
    assert found == pytest.approx(EXAMINED, abs=0.07)


def test_a_ranking_policy_does_not_fool_them() -> None:
    """Good queries mostly first: click rates by position fall faster than examination does, but
    what stood at both of two places tells the truth."""
    rng = np.random.default_rng(3)
    triggers = []
    for _ in range(25_000):
        order = list(WANTED)
        if rng.random() < 0.3:
            at = int(rng.integers(0, 3))
            order[at], order[at + 1] = order[at + 1], order[at]
        taps = rng.random(4) < [EXAMINED[p] * WANTED[q] for p, q in enumerate(order)]
        triggers.append(shown(*((q, p, bool(taps[p])) for p, q in enumerate(order))))
    found = examination(triggers)
    plain = [np.mean([t.shown[p].clicked for t in triggers]) for p in range(4)]
    assert plain[2] / plain[0] < 0.15
    assert found[1] == pytest.approx(EXAMINED[1], abs=0.12)
    assert found[2] == pytest.approx(EXAMINED[2], abs=0.12)


def test_a_known_difference_lies_in_its_interval() -> None:
    good, poor = ("great", "good"), ("poor", "bad")
    # Per looked-at slot, weighted by examination: (1·great + .6·good)/(1.6) and so on.
    truth = {answer: (WANTED[answer[0]] + 0.6 * WANTED[answer[1]]) / 1.6 for answer in (good, poor)}
    covered = 0
    for seed in range(10):
        triggers = world(1_500, seed=seed)
        old, new, difference = snips(
            triggers, [poor] * len(triggers), [good] * len(triggers), resamples=300
        )
        assert new.value.value > old.value.value
        assert old.conclusive
        assert new.conclusive
        assert difference.low > 0
        covered += difference.low <= truth[good] - truth[poor] <= difference.high
    assert covered >= 8


def test_nothing_is_concluded_from_little() -> None:
    little = Estimate(Interval(0.5, 0.1, 0.9), 3.0, 2, 50)
    much = Estimate(Interval(0.5, 0.4, 0.6), 900.0, 90, 100)
    better, unknown = Interval(0.1, 0.05, 0.15), Interval(0.1, -0.1, 0.3)
    assert "only 2 of 50" in verdict(better, little, much, better)
    assert verdict(unknown, much, much, better) == (
        "hits on logged clicks: no difference can be told; "
        "estimated taps per looked-at slot: the new model is better"
    )
    assert "worse" in verdict(Interval(-0.1, -0.2, -0.05), much, much, unknown)


class Fixed:
    def __init__(self, name: str, *queries: str) -> None:
        self.name = name
        self._answer = Prediction(queries, rejected=not queries)

    def predict(self, triggers: list[Trigger], k: int) -> list[Prediction]:
        return [self._answer] * len(triggers)


def test_a_shadow_run_tells_what_would_change() -> None:
    triggers = world(1_500, seed=5)
    report = shadow(Fixed("old", "poor", "bad"), Fixed("new", "great", "poor"), triggers)  # type: ignore[arg-type]
    assert (report.old, report.new, report.triggers) == ("old", "new", 1_500)
    assert report.other_first == 1.0
    assert report.overlap == 0.5
    assert report.differences["hr@8"].low > 0
    assert report.ctr_difference.low > 0
    assert report.verdict.count("better") == 2
    silent = shadow(Fixed("old", "poor"), Fixed("new"), triggers)  # type: ignore[arg-type]
    assert silent.now_rejected == 1.0
    assert not silent.new_ctr.conclusive


def test_a_slice_without_exposures_is_refused() -> None:
    with pytest.raises(EmptyDatasetError, match="exposures"):
        shadow(Fixed("a", "q"), Fixed("b", "q"), [shown()])  # type: ignore[arg-type]
