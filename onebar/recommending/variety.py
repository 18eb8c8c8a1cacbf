"""A bar of queries that differ: each is worth less where one like it is in already."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from onebar.ranking.overlap import masks

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
    worth = {at: exp(scores[at] - top) for at in left}
    bits = dict(zip(left, masks([texts[at] for at in left]), strict=True))
    sizes = {at: mask.bit_count() for at, mask in bits.items()}
    chosen: list[int] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda at: (worth[at], scores[at], -at))
        chosen.append(best)
        left.remove(best)
        for at in left:
            shared = 2 * (bits[best] & bits[at]).bit_count()
            near = shared / max(1, sizes[best] + sizes[at])
            worth[at] *= 1 - variety * near**SHARPNESS
    return sorted(chosen, key=lambda at: (-scores[at], at))
