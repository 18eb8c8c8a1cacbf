"""What a bar of queries is worth, beside the one query that was clicked.

CTR-HungF1 (From Short Video to Clickable Search, ACL 2026 Industry): the queries of a bar are
assigned to reference queries one to one so that the token F1 of the pairs, weighed by each
reference's click rate, is the greatest (Hungarian method). Recall is that sum over the references'
weights, precision the assigned F1 over the bar's queries; the metric is their harmonic mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from onebar.evidence.text import normalize_query
from onebar.evidence.words import words
from onebar.ranking.overlap import overlap, pairs
from onebar.recommending.phrases.spans import signature
from onebar.triggers import Shown, Trigger

CLIP = 10.0
"""Largest weight of one shown query."""
PRIOR_TAPS, PRIOR_EXPOSURES = 0.5, 10.0
"""A reference's click rate is smoothed as if it had been shown so often, and tapped at 5 %."""


def references(trigger: Trigger) -> dict[str, float]:
    """What was tapped under the video, with click rates: what this user clicked at 1, and what
    others had clicked before by the counters."""
    found = {
        normalize_query(one.query): (one.clicks + PRIOR_TAPS) / (one.exposures + PRIOR_EXPOSURES)
        for one in trigger.counts
        if one.clicks
    }
    found[normalize_query(trigger.target)] = 1.0
    return {query: min(1.0, rate) for query, rate in found.items() if query}


def hung_f1(queries: Sequence[str], wanted: Mapping[str, float]) -> float:
    """CTR-HungF1 of a bar, 0 to 1; `wanted` has the click rate (> 0) of each reference."""
    if not queries or not wanted:
        return 0.0
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    rates = np.array(list(wanted.values()))
    table = np.array([[token_f1(query, other) for other in wanted] for query in queries])
    rows, columns = linear_sum_assignment(-table * rates)
    matched = table[rows, columns]
    recall = float((matched * rates[columns]).sum() / rates.sum())
    precision = float(matched.sum() / len(queries))
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def token_f1(one: str, other: str) -> float:
    """F1 of two queries' words, each counted as often as it stands there, 0 to 1."""
    a, b = _tokens(one), _tokens(other)
    return 2 * (a & b).total() / max(1, a.total() + b.total())


@lru_cache(maxsize=65536)
def _tokens(query: str) -> Counter[str]:
    return Counter(word.key for word in words(query))


def diversity(queries: Sequence[str]) -> float:
    """1 less the mean overlap (F1 of character pairs) of two queries; NaN for fewer than two."""
    if len(queries) < 2:
        return math.nan
    said = [pairs(query) for query in queries]
    near = [overlap(a, b) for a, b in combinations(said, 2)]
    return 1.0 - sum(near) / len(near)


def repeats(queries: Sequence[str]) -> float:
    """How many say what one before them says, in another order, number or with trivial words."""
    if not queries:
        return math.nan
    return float(len(queries) - len({signature(words(query)) for query in queries}))


def up_to_tap(shown: Sequence[Shown]) -> Sequence[Shown]:
    """What a user passed over, and the one query that they tapped: whoever taps leaves the bar, and
    what stands behind was not passed over. All of it where they tapped nothing, or several."""
    taps = [item.position for item in shown if item.clicked]
    return [item for item in shown if item.position <= taps[0]] if len(taps) == 1 else shown


def logged_taps(
    trigger: Trigger, queries: Sequence[str], propensity: Sequence[float] | None
) -> tuple[float, float]:
    """Inverse-propensity taps and looks of a bar on what the log showed
    (`onebar.evaluation.offpolicy`); NaN where it showed nothing."""
    if not propensity or not trigger.shown:
        return math.nan, math.nan
    last = len(propensity) - 1
    rank = {query: min(at, last) for at, query in enumerate(queries)}
    taps = looks = 0.0
    for item in up_to_tap(trigger.shown):
        at = rank.get(normalize_query(item.query))
        if at is None:
            continue
        looked = max(1e-9, propensity[min(item.position, last)])
        weight = min(CLIP, propensity[at] / looked)
        taps += weight * item.clicked
        looks += weight * looked
    return taps, looks
