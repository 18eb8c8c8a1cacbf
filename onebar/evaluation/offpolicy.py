"""How often a model's queries would have been tapped, from a log that another policy wrote.

Item–position model (Li et al. 2018): a tap needs the place to be looked at, with a propensity that
depends on the position alone, and the query to be wanted, whatever stands around it. So what was
shown at position p tells of the same query at rank r, weighted by w = e(r)/e(p). Two numbers:

per look        Σ w·tap / Σ w·e(p), self-normalised (SNIPS, Swaminathan & Joachims 2015): taps per
                looked-at slot among the model's queries that the log happened to show. Not
                Σ w·tap / Σ w: that is lower for any other order than the log's, also for one as
                good, because e(r)/e(p) is on average more than 1 where the order changes.
per impression  Σ w·tap / impressions (IPS): how many taps these slots bring. A model that lists
                one safe query, or mostly rejects, can be good per look and poor here.

About queries that the log never showed, neither says anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.evaluation.bars import CLIP, up_to_tap
from onebar.evaluation.metrics import RESAMPLES, SEED, Interval
from onebar.triggers import Shown, Trigger

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_POSITIONS = 16
"""Places behind these count as the last of them."""
ENOUGH_SHOWN = 200
"""Times the same (video, query) must have stood at two neighbouring positions before the ratio of
their click rates is believed."""
ROUNDS, MORE_ROUNDS = 60, 8
"""Of estimating the propensities: of the whole log, and of a resample from there."""
ENOUGH_CLICKS = 30
"""Logged taps on a model's queries below which nothing is concluded."""


class Estimate(Struct, frozen=True):
    """A model's estimated taps with 95 % intervals, and what they stand on.

    `effective` is (Σw)²/Σw² over the shown queries the model lists; `supported` counts the logged
    taps on queries that it lists, of `clicks` in all.
    """

    per_look: Interval
    per_impression: Interval
    effective: float
    supported: int
    clicks: int

    @property
    def conclusive(self) -> bool:
        """Whether there is enough to say anything."""
        return self.supported >= ENOUGH_CLICKS and self.effective >= ENOUGH_CLICKS


class OffPolicy(Struct, frozen=True):
    """Both models' estimates, and new less old through the same resamples."""

    old: Estimate
    new: Estimate
    per_look: Interval
    per_impression: Interval
    propensity: tuple[float, ...]
    """e(p) by position, e(0) = 1."""


class Slots(Struct, frozen=True):
    """Everything that stood in a bar, one row a query; all arrays are of one length."""

    impressions: int
    impression: Ints
    position: Ints
    tapped: Floats
    query: Ints
    """Index of the (video, query)."""


def bars(triggers: Sequence[Trigger]) -> list[Sequence[Shown]]:
    """What stood in each bar, up to the tap.

    Whoever taps leaves the bar. What stands behind the tap was not passed over, and to count it
    as untapped makes the places behind look worse than they are (Chapelle & Zhang 2009). In a log
    with several taps on one bar people stay: there all of it counts.
    """
    if any(sum(item.clicked for item in trigger.shown) > 1 for trigger in triggers):
        return [trigger.shown for trigger in triggers]
    return [up_to_tap(trigger.shown) for trigger in triggers]


def slots(triggers: Sequence[Trigger]) -> Slots:
    """What the impressions showed, in their order, as far as it was passed over (`bars`)."""
    known: dict[tuple[str, str], int] = {}
    rows = [
        (
            at,
            min(item.position, MOST_POSITIONS - 1),
            item.clicked,
            known.setdefault((trigger.video_id, item.query), len(known)),
        )
        for at, (trigger, bar) in enumerate(zip(triggers, bars(triggers), strict=True))
        for item in bar
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Slots(len(triggers), table[0], table[1], table[2].astype(np.float64), table[3])


class Examination:
    """e(p) by position, e(0) = 1, never rising: how likely a place is looked at.

    Intervention harvesting (Agarwal et al. 2019): where one (video, query) stood now at one place
    and now at another, the ratio of its click rates there is that of the places, for the query is
    the same. Of all such pairs of places at once: the e that make the places of the taps of each
    query likeliest, given how often it stood at each (conditional likelihood, by
    minorisation-maximisation). Where too little stood at both of two neighbours, the ratio of all
    click rates stands in, which also has the ranking's own judgement in it. Which of the two is
    decided once, on the whole log, and holds for its resamples.
    """

    def __init__(self, slots: Slots) -> None:
        self._position, self._tapped = slots.position, slots.tapped
        self._places = int(slots.position.max(initial=0)) + 1
        # Only what stood at more than one place has something to say of their ratio.
        low = np.full(int(slots.query.max(initial=-1)) + 1, MOST_POSITIONS)
        high = np.full(len(low), -1)
        np.minimum.at(low, slots.query, slots.position)
        np.maximum.at(high, slots.query, slots.position)
        moved = (high > low)[slots.query]
        self._rows = np.flatnonzero(moved)
        names, query = np.unique(slots.query[moved], return_inverse=True)
        self._cell = query * self._places + slots.position[moved]
        self._shape = (len(names), self._places)
        shown, _ = self._table(np.ones(len(slots.position)))
        both = np.minimum(shown[:, :-1], shown[:, 1:]).sum(0)
        self._believed = both >= ENOUGH_SHOWN
        self._start = np.ones(self._places)
        self._start = self._likeliest(np.ones(len(slots.position)), ROUNDS)

    def __call__(self, weight: Floats) -> Floats:
        """The propensities where each slot counts `weight` times."""
        looked = self._likeliest(weight, MORE_ROUNDS)
        taps = _count(self._position, weight * self._tapped, self._places)
        plain = taps / np.maximum(_count(self._position, weight, self._places), 1e-9)
        ratio = np.ones(self._places - 1)
        for at in range(self._places - 1):
            if self._believed[at] and looked[at] > 0 and looked[at + 1] > 0:
                ratio[at] = looked[at + 1] / looked[at]
            elif plain[at] > 0 and plain[at + 1] > 0:
                ratio[at] = plain[at + 1] / plain[at]
        return np.concatenate(([1.0], np.cumprod(np.minimum(1.0, ratio))))

    def _likeliest(self, weight: Floats, rounds: int) -> Floats:
        """The likeliest e after so many rounds from where the whole log ended, e(0) = 1; 0 where
        nothing that moved was tapped."""
        shown, tapped = self._table(weight)
        per_query, per_place = tapped.sum(1), tapped.sum(0)
        some = per_query > 0
        shown, per_query = shown[some], per_query[some]
        looked = self._start
        for _ in range(rounds):
            share = per_query / np.maximum(shown @ looked, 1e-12)
            expected = share @ shown
            looked = np.divide(per_place, expected, out=np.zeros_like(looked), where=expected > 0)
            looked = looked / looked[0] if looked[0] > 0 else looked
        return looked

    def _table(self, weight: Floats) -> tuple[Floats, Floats]:
        """How often each moved query was shown at each place, and tapped there."""
        many = self._shape[0] * self._shape[1]
        mine = weight[self._rows]
        shown = _count(self._cell, mine, many)
        tapped = _count(self._cell, mine * self._tapped[self._rows], many)
        return shown.reshape(self._shape), tapped.reshape(self._shape)


def examination(triggers: Sequence[Trigger]) -> Floats:
    """The propensities that a log tells, (positions,)."""
    found = slots(triggers)
    return Examination(found)(np.ones(len(found.position)))


class Listed:
    """One model's answers against the slots: which shown queries it lists, and at which rank."""

    def __init__(
        self, triggers: Sequence[Trigger], answers: Sequence[Sequence[str]], slots: Slots
    ) -> None:
        ranks: list[int] = []
        for bar, queries in zip(bars(triggers), answers, strict=True):
            place = {query: rank for rank, query in enumerate(queries)}
            ranks += [place.get(item.query, -1) for item in bar]
        rank = np.array(ranks, dtype=np.int64)
        self._places = int(slots.position.max(initial=0)) + 1
        self._rows = np.flatnonzero(rank >= 0)
        last = self._places - 1
        self._cell = np.minimum(rank, last)[self._rows] * self._places + slots.position[self._rows]
        self._tapped = slots.tapped[self._rows]
        self.supported = int(self._tapped.sum())

    def sums(self, propensity: Floats, weight: Floats, clip: float) -> Floats:
        """Σw·tap, Σw·e(p), Σw and Σw² over the listed slots, each counted `weight` times.

        w = min(clip, e(rank)/e(position)). Ranks behind the last known place count as it.
        """
        many = self._places * self._places
        mine = weight[self._rows]
        shown = _count(self._cell, mine, many).reshape(self._places, self._places)
        taps = _count(self._cell, mine * self._tapped, many).reshape(shown.shape)
        looked_at = np.maximum(propensity, 1e-9)
        w = np.minimum(clip, looked_at[:, None] / looked_at[None, :])
        return np.array(
            [
                (w * taps).sum(),
                (w * looked_at * shown).sum(),
                (w * shown).sum(),
                (w * w * shown).sum(),
            ]
        )


def off_policy(
    triggers: Sequence[Trigger],
    old: Sequence[Sequence[str]],
    new: Sequence[Sequence[str]],
    *,
    clip: float = CLIP,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> OffPolicy:
    """What the log says of two models' ordered queries on the same impressions.

    `triggers` are impressions with what they showed, tapped or not: leaving out those without a
    tap makes every rate wrong. Intervals are from a bootstrap over impressions, the same
    resamples for both models; the propensities are estimated anew in each, for they are no more
    certain than the log is.
    """
    table = slots(triggers)
    looked = Examination(table)
    models = [Listed(triggers, answers, table) for answers in (old, new)]
    ones = np.ones(len(table.position))
    propensity = looked(ones)
    whole = [model.sums(propensity, ones, clip) for model in models]
    drawn = np.empty((resamples, 2, 4))
    rng = np.random.default_rng(seed)
    for at in range(resamples):
        picked = rng.integers(0, table.impressions, table.impressions)
        times = np.bincount(picked, minlength=table.impressions).astype(np.float64)
        weight = times[table.impression]
        again = looked(weight)
        drawn[at] = [model.sums(again, weight, clip) for model in models]
    values = [_rates(sums[None], table.impressions)[0] for sums in whole]
    samples = [_rates(drawn[:, at], table.impressions) for at in range(2)]
    estimates = [
        Estimate(
            _interval(value[0], sample[:, 0]),
            _interval(value[1], sample[:, 1]),
            float(sums[2] ** 2 / sums[3]) if sums[3] else 0.0,
            model.supported,
            int(table.tapped.sum()),
        )
        for value, sample, sums, model in zip(values, samples, whole, models, strict=True)
    ]
    less = values[1] - values[0], samples[1] - samples[0]
    return OffPolicy(
        old=estimates[0],
        new=estimates[1],
        per_look=_interval(less[0][0], less[1][:, 0]),
        per_impression=_interval(less[0][1], less[1][:, 1]),
        propensity=tuple(round(float(e), 4) for e in propensity),
    )


def _count(cell: Ints, weight: Floats, many: int) -> Floats:
    """The weights that fall into each of `many` cells (of none, bincount makes integers)."""
    return np.bincount(cell, weight, many).astype(np.float64)


def _rates(sums: Floats, impressions: int) -> Floats:
    """Per look and per impression, (n, 2); NaN where nothing stands below."""
    taps, looks = sums[:, 0], sums[:, 1]
    per_look = np.divide(taps, looks, out=np.full_like(taps, np.nan), where=looks > 0)
    per_impression = taps / impressions if impressions else np.full_like(taps, np.nan)
    return np.stack([per_look, per_impression], axis=1)


def _interval(value: float, samples: Floats) -> Interval:
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(known):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))
