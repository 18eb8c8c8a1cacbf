"""Off-policy estimates against values worked out by hand and against worlds that are known."""

from __future__ import annotations

import numpy as np
import pytest

from onebar.evaluation.comparing.shadow import shadow, verdict
from onebar.evaluation.metrics import Interval
from onebar.evaluation.offpolicy import Estimate, Listed, OffPolicy, examination, off_policy, slots
from onebar.evaluation.predict import Prediction
from onebar.triggers import EmptyDatasetError, Shown, Trigger
from stream.simulator.taps import examined

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
    table = slots(triggers)
    ones = np.ones(4)
    listed = Listed(triggers, answers, table)
    # b moves from 1 up to 0: 1/0.5 = 2; a from 0 down to 1: 0.5. Then a from 2 to 1: 2.
    # Looked at: e of the new rank, whatever the logged position.
    assert listed.sums(propensity, ones, 10.0).tolist() == [2.0 + 2.0, 1.5 + 0.5, 2.5 + 2.0, 8.25]
    assert listed.supported == 2
    assert listed.sums(propensity, ones, 1.5).tolist() == [3.0, 1.25 + 0.375, 2.0 + 1.5, 4.75]
    # A resample that drew the first impression twice and the second never.
    twice = np.array([2.0, 2.0, 0.0, 0.0])
    assert listed.sums(propensity, twice, 10.0).tolist() == [4.0, 3.0, 5.0, 8.5]
    unlisted = Listed(triggers, [("x",), ()], table)
    assert not unlisted.sums(propensity, ones, 10.0).any()
    assert unlisted.supported == 0


def test_the_estimate_is_taps_over_looks_and_over_impressions() -> None:
    triggers = [
        shown(("a", 0, False), ("b", 1, True)),
        shown(("a", 0, True), ("b", 1, False)),
        shown(("a", 0, False), ("b", 1, False)),
    ]
    found = off_policy(triggers, [("a",)] * 3, [("b",)] * 3)
    # a and b were tapped alike often, so both places look alike: e = 1, 1.
    assert found.propensity == (1.0, 1.0)
    # b stood behind the tap once: there it was not passed over.
    assert found.old.per_look.value == pytest.approx(1 / 3)
    assert found.new.per_look.value == pytest.approx(1 / 2)
    for model in (found.old, found.new):
        assert model.per_impression.value == pytest.approx(1 / 3)
        assert not model.conclusive
    assert (found.old.effective, found.new.effective) == (pytest.approx(3), pytest.approx(2))
    assert found.per_impression.value == 0


def test_a_model_that_says_little_is_good_per_look_and_poor_per_impression() -> None:
    triggers = world(4_000, seed=8)
    whole = ("great", "good", "poor", "bad")
    seldom = [("great",) if at % 5 == 0 else () for at in range(len(triggers))]
    found = off_policy(triggers, [whole] * len(triggers), seldom, resamples=200)
    assert found.per_look.low > 0
    assert found.per_impression.high < 0
    said = verdict(Interval(0.0, -0.1, 0.1), found, 0.8)
    assert said.startswith("answers 80% fewer impressions; ")
    assert "estimated taps per impression: the new model is worse" in said


def test_propensities_are_found_in_the_log() -> None:
    found = examination(world(20_000, seed=1))
    assert found == pytest.approx(EXAMINED, abs=0.07)


def test_the_simulators_places_are_found_though_a_tap_ends_the_bar() -> None:
    """The simulator's own user: looks from the top, taps at most once, then leaves; some care for
    no query of the bar, some for all."""
    rng = np.random.default_rng(4)
    triggers = []
    for number in range(60_000):
        order = [str(q) for q in rng.permutation(list(WANTED))]
        care = float(rng.choice((0.35, 0.8, 1.0)))
        items, tapped = [], False
        for place, query in enumerate(order):
            tap = not tapped and rng.random() < examined(place) * care * WANTED[query]
            items.append((query, place, bool(tap)))
            tapped |= bool(tap)
        triggers.append(shown(*items, video=f"v{number % 5}"))
    found = examination(triggers)
    truth = [examined(place) for place in range(4)]
    assert found == pytest.approx(truth, abs=0.05)


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
    taps = {answer: WANTED[answer[0]] + 0.6 * WANTED[answer[1]] for answer in (good, poor)}
    difference = taps[good] - taps[poor]
    covered = {"look": 0, "impression": 0}
    for seed in range(40):
        triggers = world(1_500, seed=seed)
        found = off_policy(triggers, [poor] * len(triggers), [good] * len(triggers), resamples=200)
        assert found.old.conclusive
        assert found.new.conclusive
        assert found.per_look.low > 0
        covered["look"] += found.per_look.low <= difference / 1.6 <= found.per_look.high
        covered["impression"] += found.per_impression.low <= difference <= found.per_impression.high
    assert min(covered.values()) >= 35


def test_nothing_is_concluded_from_little() -> None:
    some = Interval(0.5, 0.4, 0.6)
    little, much = Estimate(some, some, 3.0, 2, 50), Estimate(some, some, 900.0, 90, 100)
    better, unknown = Interval(0.1, 0.05, 0.15), Interval(0.1, -0.1, 0.3)
    assert "only 2 of 50" in verdict(better, OffPolicy(little, much, better, better, (1.0,)))
    assert verdict(unknown, OffPolicy(much, much, unknown, better, (1.0,))) == (
        "hits on logged clicks: no difference can be told; "
        "estimated taps per impression: the new model is better; "
        "per looked-at slot: no difference can be told"
    )
    worse = OffPolicy(much, much, unknown, unknown, (1.0,))
    assert "worse" in verdict(Interval(-0.1, -0.2, -0.05), worse)


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
    assert report.taps.per_look.low > 0
    assert report.verdict.count("better") == 3
    fewer = shadow(Fixed("old", "poor", "bad"), Fixed("new", "great", "poor"), triggers, k=4)  # type: ignore[arg-type]
    assert {"hr@1", "hr@4", "mrr@4", "ed_hr@4", "bleu@4"} <= set(fewer.differences)
    silent = shadow(Fixed("old", "poor"), Fixed("new"), triggers)  # type: ignore[arg-type]
    assert silent.now_rejected == 1.0
    assert not silent.taps.new.conclusive
    assert silent.verdict.startswith("answers 100% fewer impressions")


def test_a_slice_without_exposures_is_refused() -> None:
    with pytest.raises(EmptyDatasetError, match="exposures"):
        shadow(Fixed("a", "q"), Fixed("b", "q"), [shown()])  # type: ignore[arg-type]


def test_a_slice_of_taps_only_is_refused() -> None:
    tapped = [shown(("a", 0, True)), shown(("b", 0, True))]
    with pytest.raises(EmptyDatasetError, match="without a tap"):
        shadow(Fixed("a", "q"), Fixed("b", "q"), tapped)  # type: ignore[arg-type]
