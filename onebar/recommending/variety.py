"""A bar of queries that differ: each is worth less where one like it is in already."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import exp

from onebar.ranking.overlap import Pairs, overlap, pairs

LEADING = 4
"""Times `k` texts, the best by their scores, are what is chosen from."""
SHARPNESS = 4
"""The power of the overlap by which a query is like another: half of the pairs is hardly."""


def varied(texts: Sequence[str], scores: Sequence[float], k: int, variety: float) -> list[int]:
    """Places of at most `k` texts, best first: chosen one by one, the one that is worth most then.

    A text is worth exp(score), times 1 − `variety` · overlap⁴ for each that is in already
    (overlap: F1 of character pairs, 0 to 1); those that are chosen from are the `LEADING` times `k`
    best by their scores. With `variety` 0 that is the order of the scores; of equals the earlier
    comes first.
    """
    left = sorted(range(len(texts)), key=lambda at: (-scores[at], at))[: LEADING * k]
    if not left or not variety:
        return left[:k]
    top = scores[left[0]]
    # What a text is worth only falls as others come in, so that it is worked out anew only for the
    # one that would be next: one that is still worth most then is worth most of all.
    waiting = [(-exp(scores[at] - top), -scores[at], at, 0) for at in left]
    heapify(waiting)
    chosen: list[int] = []
    said: list[Pairs] = []
    while waiting and len(chosen) < k:
        below, less, at, compared = heappop(waiting)
        own = pairs(texts[at])
        for other in said[compared:]:
            below *= 1 - variety * overlap(other, own) ** SHARPNESS
        if compared < len(said) and waiting and waiting[0] < (below, less, at):
            heappush(waiting, (below, less, at, len(said)))
        else:
            chosen.append(at)
            said.append(own)
    return sorted(chosen, key=lambda at: (-scores[at], at))
