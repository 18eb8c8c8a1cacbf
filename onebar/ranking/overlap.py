"""How near two queries are: by the pairs of neighbouring characters that they share."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

Pairs = frozenset[str]


def pairs(text: str) -> Pairs:
    """The pairs of neighbouring characters of a text, whatever its case; white space is left
    out."""
    text = "".join(text.split()).lower()
    return frozenset(map(add, text, text[1:]))


def overlap(one: Pairs, other: Pairs) -> float:
    """F1 of two sets of pairs (Dice's coefficient), 0 to 1."""
    return 2 * len(one & other) / max(1, len(one) + len(other))


def likeness(one: str, other: str) -> float:
    """`overlap` of two texts."""
    return overlap(pairs(one), pairs(other))


def masks(texts: Sequence[str]) -> list[int]:
    """The pairs of each text as bits of a number: for comparing all of a list with each other."""
    bits: dict[str, int] = {}
    found = []
    for text in texts:
        mask = 0
        for pair in pairs(text):
            mask |= 1 << bits.setdefault(pair, len(bits))
        found.append(mask)
    return found
