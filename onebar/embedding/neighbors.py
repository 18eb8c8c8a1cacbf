"""Neighbour anchors: what was asked after videos that are near this one. Pure.

A video nobody has reacted to yet has no anchors of its own; those of its nearest triggers stand in
(paper, section on collaborative anchors; kept from a similarity of 0.88 on).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from feature_store.records import Anchor
from onebar.embedding.encoder import THRESHOLD


class NeighborConfig(Struct, frozen=True, kw_only=True):
    """How neighbours become anchors."""

    nearest: int = 16
    """Neighbours that are asked."""
    threshold: float = THRESHOLD
    """The least similarity of a neighbour, -1 to 1. `onebar embed calibrate` shows what another
    one would do."""
    each: int = 8
    """Strongest anchors taken of each neighbour."""
    limit: int = 16
    """Neighbour anchors a video gets at most."""


def neighbor_anchors(
    neighbors: Iterable[tuple[float, Sequence[Anchor]]], config: NeighborConfig
) -> tuple[Anchor, ...]:
    """The anchors of neighbours, given as (similarity, own anchors strongest first).

    A neighbour has one voice, divided among its anchors by their weight and as loud as it is near:
    weight = sum over neighbours of similarity * weight / (sum of its weights). So a popular
    neighbour does not drown the nearer ones. Strongest first, equal ones by query.
    """
    voices: dict[str, float] = {}
    for similarity, anchors in neighbors:
        asked = anchors[: config.each]
        total = sum(anchor.weight for anchor in asked)
        if similarity <= 0 or total <= 0:
            continue
        for anchor in asked:
            share = similarity * anchor.weight / total
            voices[anchor.query] = voices.get(anchor.query, 0.0) + share
    ranked = sorted(voices.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Anchor(query, weight, "neighbor") for query, weight in ranked[: config.limit] if weight > 0
    )
