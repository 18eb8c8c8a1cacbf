"""Hard negatives: what a half-trained encoder takes for a partner and no log has shown as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from onebar.embedding.encoder import Encoder
from onebar.embedding.relations import Relation

ROWS = 1024
MARGIN = 0.95
"""Of the partner's own similarity: what comes nearer than that may well be another partner."""


def hard_negatives(
    relations: Sequence[Relation], encoder: Encoder, most: int
) -> dict[str, list[str]]:
    """For each left text of these relations (all of one kind), at most `most` right texts that the
    encoder puts nearest, none of them a known partner; nearest first.

    Exact: every left text is compared with every right one, `ROWS` at a time.
    """
    partners: defaultdict[str, set[str]] = defaultdict(set)
    for relation in relations:
        partners[relation.left].add(relation.right)
    lefts = list(partners)
    rights = sorted({relation.right for relation in relations})
    place = {text: at for at, text in enumerate(rights)}
    table = encoder.encode(rights)
    found: dict[str, list[str]] = {}
    for start in range(0, len(lefts), ROWS):
        chunk = lefts[start : start + ROWS]
        scores = encoder.encode(chunk) @ table.T
        for text, row in zip(chunk, scores, strict=True):
            own = [place[partner] for partner in partners[text]]
            limit = MARGIN * float(row[own].max())
            row[own] = -np.inf
            row[row >= limit] = -np.inf
            count = min(most, len(row))
            nearest = np.argpartition(-row, count - 1)[:count]
            nearest = nearest[np.argsort(-row[nearest], kind="stable")]
            found[text] = [rights[at] for at in nearest if row[at] > -np.inf]
    return found
