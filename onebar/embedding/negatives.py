"""Hard negatives: what a half-trained encoder takes for a partner and no log has shown as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from onebar.embedding.encoder import Encoder
from onebar.embedding.index import VectorIndex
from onebar.embedding.relations import Relation

ROWS = 1024
MARGIN = 0.95
"""Of the nearest partner's similarity: what comes nearer than that may well be a partner too."""
PARTNERS = 64
"""Known partners among the nearest that are looked past."""


def hard_negatives(
    relations: Sequence[Relation], encoder: Encoder, most: int
) -> dict[str, list[str]]:
    """For each left text of these relations (all of one kind), at most `most` right texts that the
    encoder puts nearest, none of them a known partner; nearest first."""
    partners: defaultdict[str, set[str]] = defaultdict(set)
    for relation in relations:
        partners[relation.left].add(relation.right)
    rights = sorted({relation.right for relation in relations})
    index = VectorIndex(encoder.name, encoder.dim)
    for start in range(0, len(rights), ROWS):
        chunk = rights[start : start + ROWS]
        index.put(chunk, encoder.encode(chunk))
    lefts = list(partners)
    found: dict[str, list[str]] = {}
    for start in range(0, len(lefts), ROWS):
        chunk = lefts[start : start + ROWS]
        for left, row in zip(
            chunk, index.nearest(encoder.encode(chunk), most + PARTNERS), strict=True
        ):
            own = partners[left]
            # A partner that is not among the nearest is no nearer than the last of them.
            known = [near.similarity for near in row if near.name in own]
            limit = MARGIN * max(known, default=row[-1].similarity if row else 0.0)
            found[left] = [
                near.name for near in row if near.name not in own and near.similarity < limit
            ][:most]
    return found
