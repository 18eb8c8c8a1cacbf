"""Outcomes and metrics against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onebar.evaluation.metrics import Interval, compare, mean_of, summary
from onebar.evaluation.outcomes import Outcomes, OutcomesError, measure
from onebar.evaluation.predict import Prediction
from onebar.recommending.candidates import REJECT
from onebar.triggers import Trigger


class Fixed:
    """Gives what it was told to."""

    name = "fixed"

    def __init__(self, *predictions: Prediction) -> None:
        self._predictions = dict(enumerate(predictions))

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        return [self._predictions[int(trigger.trigger_id)] for trigger in triggers]


def click(number: int, target: str, user: str = "u", video: str = "v") -> Trigger:
    return Trigger(
        trigger_id=str(number), kind="click", ts=0.0, video_id=video, user_id=user, target=target
    )


def reject(number: int, user: str = "u") -> Trigger:
    return Trigger(
        trigger_id=str(number), kind="reject", ts=0.0, video_id="s", user_id=user, target=REJECT
    )


TRIGGERS = [
    click(0, "red shoes", "a"),
    click(1, "blue hat", "b"),
    click(2, "green tea", "c"),
    click(3, "wool socks", "d"),
    reject(4, "e"),
    reject(5, "f"),
]
PREDICTIONS = [
    Prediction(("red shoes", "x")),
    Prediction(("a", "b", "c", "Blue  Hat")),
    Prediction(("green teas", "a")),
    Prediction((), rejected=True),
    Prediction((), rejected=True),
    Prediction(("a",)),
]


def measured() -> Outcomes:
    return measure(Fixed(*PREDICTIONS), TRIGGERS)


def test_outcomes_are_the_ranks_and_hits_of_each_trigger() -> None:
    outcomes = measured()
    assert outcomes.rank.tolist() == [1, 4, 0, 0, 0, 0]
    assert outcomes.ed_hit.tolist() == [True, True, True, False, False, False]
    assert outcomes.has_target.tolist() == [True] * 4 + [False] * 2
    assert outcomes.first.tolist() == ["red shoes", "a", "green teas", "", "", "a"]
    assert outcomes.count.tolist() == [2, 4, 2, 0, 0, 1]


def test_values_are_those_of_the_formulas() -> None:
    found = {name: interval.value for name, interval in summary(measured()).items()}
    assert found["hr@1"] == 0.25
    assert found["hr@8"] == 0.5
    assert found["mrr@8"] == pytest.approx((1 + 1 / 4) / 4)
    assert found["ed_hr@8"] == 0.75
    assert found["reject_precision"] == 0.5
    assert found["reject_recall"] == 0.5
    assert found["answered"] == pytest.approx(4 / 6)
    assert found["distinct_first"] == 3
    assert found["entropy_first"] == pytest.approx(math.log(3))
    assert "relevance@8" not in found
    assert "bas@8" not in found


def test_an_edit_distance_of_three_is_no_hit() -> None:
    triggers = [click(0, "green tea"), click(1, "green tea")]
    outcomes = measure(Fixed(Prediction(("green teapo",)), Prediction(("green teapot",))), triggers)
    assert outcomes.ed_hit.tolist() == [True, False]


def test_bleu_is_that_of_the_best_query() -> None:
    # 4 words, 1 wrong at the end: precisions 3/4, 2/3, 1/2, and 1/2 of 1 for the 4-grams
    # (exponential smoothing of a zero count).
    prediction = Prediction(("nothing alike", "cheap red shoes men"))
    outcomes = measure(Fixed(prediction), [click(0, "cheap red shoes women")])
    assert outcomes.bleu[0] == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


def test_bleu_of_chinese_counts_characters() -> None:
    outcomes = measure(Fixed(Prediction(("红色跑鞋",))), [click(0, "红色跑鞋男")])
    assert outcomes.bleu[0] == pytest.approx(math.exp(1 - 5 / 4))  # only the brevity penalty


def test_only_the_first_k_count_and_each_once() -> None:
    outcomes = measure(Fixed(Prediction(("a", "A ", "b", "c"))), [click(0, "c")], k=2)
    assert outcomes.rank.tolist() == [0]
    assert measure(Fixed(Prediction(("a", "A ", "b"))), [click(0, "b")], k=2).rank.tolist() == [2]


def test_relevance_is_over_the_queries_given() -> None:
    grades = {("v", "good"): 3, ("v", "bad"): 0}
    triggers = [click(0, "good"), click(1, "good"), click(2, "good", video="unknown")]
    predictions = [Prediction(("good", "bad")), Prediction((), rejected=True), Prediction(("x",))]
    outcomes = measure(Fixed(*predictions), triggers, relevance=lambda v, q: grades[v, q])
    found = summary(outcomes)
    assert found["relevance@8"].value == 1.5
    assert found["relevant@8"].value == 0.5


def test_a_mask_is_a_part_of_the_triggers() -> None:
    mask = np.array([True, False, True, False, True, False])
    found = summary(measured(), mask)
    assert found["hr@8"].value == 0.5
    assert found["reject_recall"].value == 1.0


def test_nothing_counted_is_nan() -> None:
    found = summary(measure(Fixed(Prediction(("a",))), [click(0, "a")]))
    assert math.isnan(found["reject_recall"].value)
    assert math.isnan(found["reject_recall"].low)
    empty = summary(measured(), np.zeros(6, dtype=np.bool_))
    assert math.isnan(empty["hr@1"].value)


def many(hits: Sequence[bool], users: Sequence[str]) -> Outcomes:
    triggers = [click(n, "t", user) for n, user in enumerate(users)]
    predictions = [Prediction(("t",) if hit else ("x",)) for hit in hits]
    return measure(Fixed(*predictions), triggers)


def test_the_interval_is_that_of_a_binomial_where_users_are_alike() -> None:
    rng = np.random.default_rng(1)
    outcomes = many((rng.random(900) < 0.3).tolist(), [f"u{n}" for n in range(900)])
    found = summary(outcomes)["hr@1"]
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 900)
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_triggers_of_one_user_are_no_independent_evidence() -> None:
    hits = [n % 2 == 0 for n in range(30) for _ in range(30)]
    by_user = summary(many(hits, [f"u{n // 30}" for n in range(900)]))["hr@1"]
    alone = summary(many(hits, [""] * 900))["hr@1"]
    assert by_user.value == alone.value == 0.5
    assert by_user.high - by_user.low > 4 * (alone.high - alone.low)


def test_intervals_of_counts_lie_around_their_value() -> None:
    rng = np.random.default_rng(2)
    triggers = [click(n, "t", f"u{n}") for n in range(300)]
    predictions = [Prediction((f"q{int(rng.integers(200))}",)) for _ in triggers]
    found = summary(measure(Fixed(*predictions), triggers))
    for name in ("distinct_first", "entropy_first"):
        assert found[name].low < found[name].value < found[name].high


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    users = [f"u{n}" for n in range(400)]
    before = rng.random(400) < 0.4
    after = before | (rng.random(400) < 0.05)
    a, b = many(before.tolist(), users), many(after.tolist(), users)
    difference = compare(a, b)["hr@1"]
    assert difference.value == pytest.approx(float(after.mean() - before.mean()))
    assert difference.low > 0
    single = summary(a)["hr@1"]
    assert difference.high - difference.low < (single.high - single.low) / 2
    assert compare(a, a)["hr@1"] == Interval(0.0, 0.0, 0.0, p=1.0)


def test_several_seeds_are_their_mean() -> None:
    users = [f"u{n}" for n in range(4)]
    a, b = many([True, True, False, False], users), many([True, True, True, True], users)
    found = summary(mean_of([a, b]))
    assert found["hr@1"].value == 0.75
    assert compare(a, mean_of([a, b]))["hr@1"].value == 0.25


def test_other_triggers_or_another_k_do_not_compare() -> None:
    a, b = many([True], ["u"]), many([True, False], ["u", "u"])
    with pytest.raises(OutcomesError, match="not of the same triggers"):
        compare(a, b)
    with pytest.raises(OutcomesError, match="not of the same triggers"):
        mean_of([a, b])
    with pytest.raises(OutcomesError, match="k=8"):
        compare(a, measure(Fixed(Prediction(("t",))), [click(0, "t")], k=2))
    with pytest.raises(OutcomesError, match="at least one"):
        mean_of([])


def test_the_same_seed_gives_the_same_intervals() -> None:
    first, second = summary(measured()), summary(measured())
    assert repr(first) == repr(second)  # NaN is not itself


def test_saved_outcomes_come_back(tmp_path: Path) -> None:
    masks = {"head": np.array([True, False] * 3)}
    before = measured().with_slices(masks)
    before.save(tmp_path / "seed-1.fixed")
    after = Outcomes.load(tmp_path / "seed-1.fixed")
    assert after.name == "fixed"
    assert after.slices["head"].tolist() == masks["head"].tolist()
    assert after.first.tolist() == before.first.tolist()
    assert compare(before, after)["mrr@8"] == Interval(0.0, 0.0, 0.0, p=1.0)
    (tmp_path / "seed-1.fixed.npz").write_bytes(b"no zip")
    with pytest.raises(OutcomesError, match="measure again"):
        Outcomes.load(tmp_path / "seed-1.fixed")
    with pytest.raises(OutcomesError, match="measure again"):
        Outcomes.load(tmp_path / "nowhere")


def test_a_predictor_that_leaves_some_out_is_told() -> None:
    class Short(Fixed):
        def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
            return []

    with pytest.raises(OutcomesError, match="0 predictions for 1 triggers"):
        measure(Short(), [click(0, "a")])
