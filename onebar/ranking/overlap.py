"""How near two queries are: by the pairs of neighbouring characters that they share."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


def pair_matrix(texts: Sequence[str]) -> NDArray[np.float32]:
    """Which pairs each text has, 0 or 1, (texts, pairs): the product with its own transpose says
    how many two of them share."""
    import numpy as np

    columns: dict[str, int] = {}
    of_text = [[columns.setdefault(pair, len(columns)) for pair in pairs(text)] for text in texts]
    found = np.zeros((len(texts), max(1, len(columns))), dtype=np.float32)
    for row, places in zip(found, of_text, strict=True):
        row[places] = 1.0
    return found
