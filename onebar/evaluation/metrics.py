"""Metrics over outcomes, with intervals from a bootstrap over users, and over seeds where a model
was trained with several.

Every metric is a ratio of two sums over triggers, or a statistic of the first queries' counts, so
a resample of users is a vector of weights and a thousand of them are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.evaluation.outcomes import Outcomes, OutcomesError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RESAMPLES = 1000
SEED = 20260105
_CELLS = 8_000_000
"""Most weights held at a time."""


class Interval(Struct, frozen=True):
    """A value and the 2.5 % and 97.5 % points of its resamples; NaN where nothing was counted.

    Of a difference `p` is how likely one as far from 0 is where there is none: twice the share of
    resamples on the other side of 0, never less than what so many resamples can tell.
    """

    value: float
    low: float
    high: float
    p: float = float("nan")


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """p-values of a family of comparisons, corrected for their number (Holm 1979): the least is
    multiplied by how many there are, the next by one less, and none is below one before it. NaN is
    no comparison and stays."""
    known = sorted((p, name) for name, p in chances.items() if not np.isnan(p))
    found = dict(chances)
    most = 0.0
    for at, (p, name) in enumerate(known):
        most = max(most, min(1.0, p * (len(known) - at)))
        found[name] = most
    return found


class Runs(Struct, frozen=True):
    """Outcomes of several seeds on the same triggers: a metric is its mean over them."""

    runs: tuple[Outcomes, ...]


Measured = Outcomes | Runs


def mean_of(outcomes: Sequence[Outcomes]) -> Runs:
    """The seeds as one. Raises `OutcomesError` where they are not of the same triggers."""
    if not outcomes:
        raise OutcomesError("expected the outcomes of at least one seed, got none")
    for other in outcomes[1:]:
        _same(outcomes[0], other)
    return Runs(tuple(outcomes))


def summary(
    outcomes: Measured, mask: Mask | None = None, *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Interval]:
    """Every metric that can be told, by name, over the triggers in `mask` (all where None).

    The same triggers and seed always give the same intervals.
    """
    runs = _runs(outcomes)
    values, samples = _bootstrap(runs, mask, resamples, seed)
    return {name: _interval(name, values[name], samples[name]) for name in values}


def compare(
    a: Measured,
    b: Measured,
    mask: Mask | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Interval]:
    """`b` less `a`, paired: both are seen through the same resamples of users.

    Raises `OutcomesError` where they are not of the same triggers.
    """
    first, second = _runs(a), _runs(b)
    _same(first[0], second[0])
    values_a, samples_a = _bootstrap(first, mask, resamples, seed)
    values_b, samples_b = _bootstrap(second, mask, resamples, seed)
    return {
        name: _difference(name, values_b[name] - values_a[name], samples_b[name] - samples_a[name])
        for name in values_a
        if name in values_b
    }


def _difference(name: str, value: float, samples: Floats) -> Interval:
    found = _interval(name, value, samples)
    known = samples[~np.isnan(samples)]
    if np.isnan(found.low):
        return found
    if not known.any():
        return msgspec.structs.replace(found, p=1.0)  # nothing differs in any resample
    shift = (found.low - float(np.quantile(known, 0.025))) if name in (*COUNTED, COVERAGE) else 0.0
    below, above = (known + shift <= 0).mean(), (known + shift >= 0).mean()
    p = max(1 / len(known), 2 * float(min(below, above)))
    return msgspec.structs.replace(found, p=min(1.0, p))


def _runs(measured: Measured) -> tuple[Outcomes, ...]:
    return measured.runs if isinstance(measured, Runs) else (measured,)


def _same(a: Outcomes, b: Outcomes) -> None:
    if len(a) != len(b) or not np.array_equal(a.trigger_id, b.trigger_id):
        raise OutcomesError(
            f"{a.name} ({len(a)} triggers) and {b.name} ({len(b)}) are not of the same triggers: "
            "measure both on the same split, with the same limit"
        )
    if a.k != b.k:
        raise OutcomesError(f"{a.name} has k={a.k} and {b.name} k={b.k}: measure both with one k")


def ratios(o: Outcomes) -> dict[str, tuple[Floats, Floats]]:
    """By metric, (numerator, denominator) of each trigger."""
    target = o.has_target.astype(np.float64)
    hit = (o.rank > 0) & o.has_target
    one = np.ones(len(o))
    found: dict[str, tuple[Floats, Floats]] = {
        "hr@1": (((o.rank == 1) & hit).astype(np.float64), target),
        f"hr@{o.k}": (hit.astype(np.float64), target),
        f"mrr@{o.k}": (np.where(hit, 1.0 / np.maximum(o.rank, 1), 0.0), target),
        f"ed_hr@{o.k}": ((o.ed_hit & o.has_target).astype(np.float64), target),
        f"bleu@{o.k}": (o.bleu * target, target),
        "reject_precision": (
            (o.rejected & o.is_reject).astype(np.float64),
            o.rejected.astype(np.float64),
        ),
        "reject_recall": (
            (o.rejected & o.is_reject).astype(np.float64),
            o.is_reject.astype(np.float64),
        ),
        "answered": ((o.count > 0).astype(np.float64), one),
    }
    found[f"hung_f1@{o.k}"] = (o.hung_f1 * target, target)
    bar = ~np.isnan(o.ips_taps)
    if bar.any():
        taps = np.where(bar, o.ips_taps, 0.0)
        found[f"ips_taps@{o.k}"] = (taps, bar.astype(np.float64))
        found[f"snips_taps@{o.k}"] = (taps, np.where(bar, o.ips_looks, 0.0))
    for name, column in (
        ("true_tap@1", o.true_first),
        (f"true_tap@{o.k}", o.true_bar),
        (f"relevance@{o.k}", o.relevance),
        (f"relevant@{o.k}", o.good),
        (f"bas@{o.k}", o.closeness),
        (f"diversity@{o.k}", o.diversity),
        (f"repeats@{o.k}", o.repeats),
    ):
        known = ~np.isnan(column)
        if known.any():
            found[name] = (np.where(known, column, 0.0), known.astype(np.float64))
    return found


def _distinct(counts: Floats) -> float:
    return float(np.count_nonzero(counts))


def _entropy(counts: Floats) -> float:
    total = counts.sum()
    if total == 0:
        return float("nan")
    p = counts[counts > 0] / total
    return float(-(p * np.log(p)).sum()) + 0.0


COUNTED: dict[str, Callable[[Floats], float]] = {
    "distinct_first": _distinct,
    "entropy_first": _entropy,
}
"""Statistics of how often each first query was given, over triggers with a target."""
COVERAGE = "coverage"


def _bootstrap(
    runs: Sequence[Outcomes], mask: Mask | None, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Values, and as many resampled values, of every metric: means over the runs."""
    rows = np.ones(len(runs[0]), dtype=np.bool_) if mask is None else mask
    users, user = np.unique(runs[0].user[rows], return_inverse=True)
    weigh = np.ones((1, len(users)))
    once = np.ones((1, len(runs)))
    values = {name: float(v[0]) for name, v in _weighted(runs, rows, user, weigh, once).items()}
    parts: list[dict[str, Floats]] = []
    rng, others = np.random.default_rng(seed), np.random.default_rng((seed, len(runs)))
    step = max(1, _CELLS // max(1, len(users)))
    for at in range(0, resamples, step):
        size = (min(step, resamples - at), len(users))
        draws = (
            rng.multinomial(len(users), np.full(len(users), 1 / len(users)), size=size[0])
            if len(users)
            else np.zeros(size)
        )
        # Seeds are drawn as users are; as many seeds of another model, the same ones.
        again = np.full(len(runs), 1 / len(runs))
        seeds = others.multinomial(len(runs), again, size=size[0]).astype(np.float64)
        parts.append(_weighted(runs, rows, user, draws.astype(np.float64), seeds))
    return values, {name: np.concatenate([part[name] for part in parts]) for name in values}


def _weighted(
    runs: Sequence[Outcomes], rows: Mask, user: NDArray[np.intp], weights: Floats, seeds: Floats
) -> dict[str, Floats]:
    """Every metric under each row of user weights, (resamples, users): the mean over the seeds,
    each counted as often as `seeds`, (resamples, runs), says."""
    each = [_weighted_run(run, rows, user, weights) for run in runs]
    return {
        name: np.average([found[name] for found in each], axis=0, weights=seeds.T)
        for name in each[0]
        if all(name in found for found in each)
    }


def _weighted_run(
    run: Outcomes, rows: Mask, user: NDArray[np.intp], weights: Floats
) -> dict[str, Floats]:
    users = weights.shape[1]
    found: dict[str, Floats] = {}
    for name, (above, below) in ratios(run).items():
        top = weights @ np.bincount(user, above[rows], users)
        bottom = weights @ np.bincount(user, below[rows], users)
        found[name] = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
    counted = (rows & run.has_target & (run.count > 0))[rows]
    names, query = np.unique(run.first[rows][counted], return_inverse=True)
    who = user[counted]
    counts = [np.bincount(query, row[who], len(names)).astype(np.float64) for row in weights]
    for name, statistic in COUNTED.items():
        found[name] = np.array([statistic(count) for count in counts])
    found[COVERAGE] = _coverage(run, rows, user, weights)
    return found


def _coverage(run: Outcomes, rows: Mask, user: NDArray[np.intp], weights: Floats) -> Floats:
    """Different queries for each that was given, 0 to 1, over triggers with a target."""
    answered = run.has_target[rows]
    lists = [text.split("\n") if text else [] for text in run.given[rows][answered]]
    every = [query for queries in lists for query in queries]
    if not every:
        return np.full(len(weights), np.nan)
    names, query = np.unique(np.array(every), return_inverse=True)
    who = np.repeat(user[answered], [len(queries) for queries in lists])
    found = np.empty(len(weights))
    for at, row in enumerate(weights):
        counts = np.bincount(query, row[who], len(names))
        found[at] = np.count_nonzero(counts) / max(1.0, counts.sum())
    return found


def _interval(name: str, value: float, samples: Floats) -> Interval:
    """Percentiles of the resamples. A resample of users repeats some and so has fewer different
    queries than the log: for those statistics the spread is put around the value itself."""
    known = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, (0.025, 0.975))
    shift = value - float(known.mean()) if name in (*COUNTED, COVERAGE) else 0.0
    return Interval(value, float(low) + shift, float(high) + shift)
