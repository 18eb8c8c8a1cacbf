"""Neighbour anchors: what was asked after videos near this one, or is near it itself. Pure.

A video nobody has reacted to yet has no anchors of its own. The queries of its nearest triggers
stand in, and those of the whole log that are nearest to it: proposed by neighbours and by the log,
ordered and filtered by their own similarity to the video (paper, section on collaborative anchors:
those of a trigger similarity above 0.88 are kept).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import exp

from msgspec import Struct

from onebar.embedding.encoder import THRESHOLD
from onebar.records import Anchor

Likeness = Callable[[Sequence[str]], Sequence[float]]
"""How near each of some queries is to the video: cosines, -1 to 1."""


class NeighborConfig(Struct, frozen=True, kw_only=True):
    """How neighbours become anchors."""

    nearest: int = 32
    """Neighbours that are asked; 0 asks none."""
    queries: int = 32
    """Queries of the log that are asked for; 0 for none."""
    loudness: float = 16.0
    """The log speaks as loud as this many neighbours. On a simulated feed less was worse: a quarter
    of it cost up to a tenth of the hits."""
    threshold: float = THRESHOLD
    """The least similarity of an anchor to the video, -1 to 1. `onebar embed calibrate` shows what
    another one would do."""
    temperature: float = 0.1
    """An anchor that is nearer to the video by this much weighs e times as much; infinite, only
    the neighbours' voices count. On simulated feeds half and twice as much made little
    difference."""
    each: int = 8
    """Strongest anchors taken of each neighbour."""
    limit: int = 16
    """Neighbour anchors a video gets at most."""


def neighbor_anchors(
    neighbors: Iterable[tuple[float, Sequence[Anchor]]],
    retrieved: Collection[str],
    likeness: Likeness,
    config: NeighborConfig,
) -> tuple[Anchor, ...]:
    """The anchors that neighbours, given as (similarity, own anchors strongest first), and the log,
    given as the queries retrieved from it, have for a video.

    A neighbour has one voice, divided among its anchors by their weight and as loud as it is near,
    so a popular neighbour does not drown the nearer ones. The log is one more, with `loudness` for
    its voice and all of its queries alike. A query's weight is the sum of the voices for it times
    exp((likeness - 1) / temperature): neighbours watch other products too, and this tells their
    queries from those that fit. Strongest first, equal ones by query; what both propose has the
    neighbours for its source.
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
    heard = frozenset(voices)
    for query in retrieved:
        voices[query] = voices.get(query, 0.0) + config.loudness / len(retrieved)
    queries = list(voices)
    weights = {
        query: voices[query] * exp((near - 1) / config.temperature)
        for query, near in zip(queries, likeness(queries) if queries else (), strict=True)
        if near >= config.threshold
    }
    ranked = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Anchor(query, weight, "neighbor" if query in heard else "retrieved")
        for query, weight in ranked[: config.limit]
        if weight > 0
    )
