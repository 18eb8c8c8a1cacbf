"""The preference list of one trigger (paper, Table 2): candidates, CTR filter, one a level."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from onebar.evidence.evidence import terms
from onebar.records import QueryCounts
from onebar.triggers import Preference, Shown
from stream.dataset.config import DatasetConfig

NOTHING = QueryCounts()


def smoothed_ctr(counts: QueryCounts, config: DatasetConfig) -> float:
    """Clicks over exposures as if the query had been seen `prior_exposures` times before."""
    clicks = counts.clicks + config.prior_ctr * config.prior_exposures
    return clicks / (max(counts.exposures, counts.clicks) + config.prior_exposures)


def draw(seed: int, *parts: str) -> int:
    """A number fixed by the seed and the parts: chance that is the same in every run."""
    key = "\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def candidates(
    *,
    target: str,
    engaged: bool,
    shown: Sequence[Shown],
    counts: Mapping[str, QueryCounts],
    own: Collection[str],
    anchors: Collection[str],
    pool: Iterable[str],
) -> dict[int, list[str]]:
    """Queries by behaviour level, in order of their text where nothing else orders them.

    `counts` are those under the video before the impression, `own` the queries this user clicked
    there before (they say nothing of others), `pool` what retrieval could have offered; of that
    the video's own `anchors` are none of the weakest level.
    """
    exposed = {item.query for item in shown}
    clicked_at = max((item.position for item in shown if item.clicked), default=0)
    levels: dict[int, list[str]] = {1 if engaged else 2: [target]}
    for query in sorted(counts):
        count = counts[query]
        if query == target or count.clicks - (query in own) <= 0:
            continue
        levels.setdefault(3 if count.engagements else 4, []).append(query)
    known = {query for queries in levels.values() for query in queries}
    for item in shown:
        # What stood far below the tap was hardly looked at.
        if item.query not in known and not item.clicked and item.position <= clicked_at + 1:
            levels.setdefault(5, []).append(item.query)
    levels[6] = [
        query
        for query in pool
        if query not in known and query not in exposed and query not in anchors
    ]
    return levels


def preference_list(
    levels: Mapping[int, Sequence[str]],
    counts: Mapping[str, QueryCounts],
    evidence: str,
    config: DatasetConfig,
    trigger_id: str,
) -> tuple[Preference, ...]:
    """At most one query a level, best level first, CTRs falling from level to level.

    Monotonic-CTR filter: a candidate that was seen often enough to judge and whose smoothed CTR is
    above that of what stands before it in the list, or (levels 3 and 4) below that of something
    exposed and not clicked, contradicts its level and is dropped. The first query is the user's own
    click and is never dropped. Of several, levels 3 and 4 give the highest CTR, level 5 the lowest,
    level 6 one that shares a term with `evidence` where there is one.
    """

    def ctr(query: str) -> float:
        return smoothed_ctr(counts.get(query, NOTHING), config)

    def judged(query: str) -> bool:
        return counts.get(query, NOTHING).exposures >= config.min_exposures

    def chance(query: str) -> int:
        return draw(config.seed, trigger_id, query)

    floor = min((ctr(query) for query in levels.get(5, ()) if judged(query)), default=0.0)
    kept: list[Preference] = []
    ceiling = 1.0
    for level in range(1, 7):
        found = [
            query
            for query in levels.get(level, ())
            if level <= 2
            or not judged(query)
            or (ctr(query) <= ceiling and not (level <= 4 and ctr(query) < floor))
        ]
        if not found:
            continue
        if level in (3, 4):
            chosen = max(found, key=lambda query: (ctr(query), chance(query)))
        elif level == 5:
            chosen = min(found, key=lambda query: (ctr(query), chance(query)))
        elif level == 6:
            known = terms(evidence)
            near = [query for query in found if not known.isdisjoint(terms(query))]
            chosen = min(near or found, key=chance)
        else:
            chosen = found[0]
        count = counts.get(chosen, NOTHING)
        kept.append(Preference(chosen, level, count.exposures, count.clicks))
        if level > 2 and judged(chosen):
            ceiling = min(ceiling, ctr(chosen))
    return tuple(kept)
