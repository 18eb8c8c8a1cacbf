"""A bar of queries that differ: each is worth less where one like it is in already."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from onebar.ranking.overlap import masks

SHARPNESS = 4
"""The power of the overlap by which a query is like another: half of the pairs is hardly."""


def varied(texts: Sequence[str], scores: Sequence[float], k: int, variety: float) -> list[int]:
    """Places of at most `k` texts, best first: chosen one by one, the one that is worth most then.

    A text is worth exp(score), times 1 − `variety` · overlap⁴ for each that is in already
    (overlap: F1 of character pairs, 0 to 1). With `variety` 0 that is the order of the scores; of
    equals the earlier comes first.
    """
    top = max(scores, default=0.0)
    worth = [exp(score - top) for score in scores]
    bits = masks(texts) if variety else []
    sizes = [mask.bit_count() for mask in bits]
    left = list(range(len(texts)))
    chosen: list[int] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda at: (worth[at], scores[at], -at))
        chosen.append(best)
        left.remove(best)
        if variety:
            for at in left:
                shared = 2 * (bits[best] & bits[at]).bit_count()
                near = shared / max(1, sizes[best] + sizes[at])
                worth[at] *= 1 - variety * near**SHARPNESS
    return sorted(chosen, key=lambda at: (-scores[at], at))
