"""How often a model's queries would have been tapped, from a log that another policy wrote.

Item–position model (Li et al. 2018): a tap needs the place to be looked at, with a propensity that
depends on the position alone, and the query to be wanted, whatever stands around it. So what was
shown at position p tells of the same query at rank r, weighted by w = e(r)/e(p). Self-normalised
(SNIPS, Swaminathan & Joachims 2015): Σ w·tap over Σ w·e(p), which is taps per looked-at slot among
the model's queries that the log happened to show; about queries it never showed it says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.evaluation.metrics import RESAMPLES, SEED, Interval
from onebar.training.triggers import Trigger

Floats = NDArray[np.float64]

CLIP = 10.0
"""Largest weight of one shown query."""
MOST_POSITIONS = 16
ENOUGH_SHOWN = 200
"""Times the same (video, query) must have stood at two neighbouring positions before the ratio of
their click rates is believed."""
ENOUGH_CLICKS = 30
"""Logged taps on a model's queries below which nothing is concluded."""


class Estimate(Struct, frozen=True):
    """Taps per looked-at slot (SNIPS) with its 95 % interval, and what it stands on.

    `effective` is (Σw)²/Σw² over the shown queries the model lists; `supported` counts the logged
    taps on queries that it lists, of `clicks` in all.
    """

    value: Interval
    effective: float
    supported: int
    clicks: int

    @property
    def conclusive(self) -> bool:
        """Whether there is enough to say anything."""
        return self.supported >= ENOUGH_CLICKS and self.effective >= ENOUGH_CLICKS


def examination(triggers: Sequence[Trigger]) -> Floats:
    """e(p) by position, e(0) = 1, falling: how likely a place is looked at.

    Intervention harvesting (Agarwal et al. 2019): where one (video, query) stood now at p and now
    at p+1, the ratio of its click rates there is that of the places, for the query is the same.
    Ratios of neighbours are chained; where too little stood at both, the ratio of all click rates
    stands in, which also has the ranking's own judgement in it.
    """
    shown: defaultdict[tuple[str, str], Floats] = defaultdict(lambda: np.zeros((MOST_POSITIONS, 2)))
    last = 0
    for trigger in triggers:
        for item in trigger.shown:
            if item.position < MOST_POSITIONS:
                shown[trigger.video_id, item.query][item.position] += (1.0, item.clicked)
                last = max(last, item.position)
    if not shown:
        return np.ones(1)
    table = np.stack(list(shown.values()))[:, : last + 1]  # (queries, positions, [shown, clicks])
    counts, clicks = table[..., 0], table[..., 1]
    rates = np.divide(clicks, counts, out=np.zeros_like(clicks), where=counts > 0)
    plain = clicks.sum(0) / np.maximum(counts.sum(0), 1.0)
    propensity = np.ones(last + 1)
    for at in range(last):
        both = np.minimum(counts[:, at], counts[:, at + 1])
        near, far = (both * rates[:, at]).sum(), (both * rates[:, at + 1]).sum()
        if both.sum() >= ENOUGH_SHOWN and near > 0 and far > 0:
            ratio = far / near
        elif plain[at] > 0 and plain[at + 1] > 0:
            ratio = plain[at + 1] / plain[at]
        else:
            ratio = 1.0
        propensity[at + 1] = propensity[at] * min(1.0, float(ratio))
    return propensity


def weights(
    triggers: Sequence[Trigger],
    answers: Sequence[Sequence[str]],
    propensity: Floats,
    *,
    clip: float = CLIP,
) -> tuple[Floats, int, int]:
    """For each impression Σw·tap, Σw·e(p), Σw and Σw² over its shown queries, (triggers, 4); the
    taps on listed queries; the taps in all.

    w = min(clip, e(rank)/e(position)) where the model lists the query, else 0. Places behind the
    last known count as the last.
    """
    sums = np.zeros((len(triggers), 4))
    supported = 0
    for row, (trigger, queries) in enumerate(zip(triggers, answers, strict=True)):
        ranks = {query: rank for rank, query in enumerate(queries)}
        for item in trigger.shown:
            rank = ranks.get(item.query)
            if rank is None:
                continue
            looked_at = max(_at(propensity, item.position), 1e-9)
            w = min(clip, _at(propensity, rank) / looked_at)
            sums[row] += (w * item.clicked, w * looked_at, w, w * w)
            supported += item.clicked
    clicks = sum(item.clicked for trigger in triggers for item in trigger.shown)
    return sums, supported, clicks


def _at(propensity: Floats, place: int) -> float:
    return float(propensity[min(place, len(propensity) - 1)])


def snips(
    triggers: Sequence[Trigger],
    old: Sequence[Sequence[str]],
    new: Sequence[Sequence[str]],
    *,
    clip: float = CLIP,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Estimate, Estimate, Interval]:
    """The estimates of two models' ordered queries on the same impressions, and of new less old.

    `triggers` are impressions with what they showed, tapped or not; intervals are from a bootstrap
    over impressions, the same resamples for both models.
    """
    propensity = examination(triggers)
    found = [weights(triggers, answers, propensity, clip=clip) for answers in (old, new)]
    rng = np.random.default_rng(seed)
    many = len(triggers)
    draws = np.stack(
        [np.bincount(rng.integers(0, many, many), minlength=many) for _ in range(resamples)]
    ).astype(np.float64) if many else np.zeros((resamples, 0))  # fmt: skip
    estimates = []
    samples = []
    for sums, supported, clicks in found:
        clicked, looked_at, weight, squares = sums.sum(0)
        resampled = draws @ sums
        values = _ratio(resampled[:, 0], resampled[:, 1])
        samples.append(values)
        estimates.append(
            Estimate(
                _interval(clicked / looked_at if looked_at else float("nan"), values),
                weight * weight / squares if squares else 0.0,
                supported,
                clicks,
            )
        )
    before, after = estimates
    difference = _interval(after.value.value - before.value.value, samples[1] - samples[0])
    return before, after, difference


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _interval(value: float, samples: Floats) -> Interval:
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(value, float(low), float(high))
