"""How good anchors are: whether the query that was then clicked is among them, and at what size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.embedding.enrich import Enriched
from onebar.embedding.neighbors import NeighborConfig
from onebar.evaluation.slices import slices
from onebar.triggers import Trigger

KS = (1, 4, 8, 16)
Source = Callable[[Enriched], Sequence[str]]
"""The anchors of a trigger, strongest first."""


class AnchorQuality(Struct, frozen=True, kw_only=True):
    """Of one source of anchors, over some triggers with a clicked query."""

    triggers: int
    hit_rate: float
    """Share of triggers whose clicked query is among all their anchors (paper: 0.282 to 0.335)."""
    recall: dict[int, float]
    """The same among the first k."""
    size: float
    """Anchors a trigger has, on average."""
    covered: float
    """Share of triggers that have any."""


def own(found: Enriched) -> Sequence[str]:
    """What was asked after this very video: raw co-occurrence."""
    return found.trigger.anchors


def near(config: NeighborConfig) -> Source:
    """What was asked after near videos, and what of the log is near itself."""
    return lambda found: [anchor.query for anchor in found.anchors(config)]


def both(config: NeighborConfig) -> Source:
    """Its own, then those."""

    def source(found: Enriched) -> Sequence[str]:
        queries = [*own(found), *near(config)(found)]
        return list(dict.fromkeys(queries))

    return source


def quality(
    found: Sequence[Enriched], source: Source, mask: NDArray[np.bool_] | None = None
) -> AnchorQuality:
    """The quality of a source over the triggers of the mask, all where None; NaN where none."""
    chosen = [e for at, e in enumerate(found) if mask is None or mask[at]]
    lists = [source(each) for each in chosen]
    places = [
        queries.index(each.trigger.target) if each.trigger.target in queries else -1
        for each, queries in zip(chosen, lists, strict=True)
    ]
    at = np.array(places)
    many = np.array([len(queries) for queries in lists])

    def mean(values: NDArray[np.generic]) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return AnchorQuality(
        triggers=len(chosen),
        hit_rate=mean(at >= 0),
        recall={k: mean((at >= 0) & (at < k)) for k in KS},
        size=mean(many),
        covered=mean(many > 0),
    )


def anchor_slices(
    found: Iterable[Enriched], clicks: Mapping[str, int]
) -> dict[str, NDArray[np.bool_]]:
    """The slices that anchors differ by: how well the video and the target are known."""
    triggers: list[Trigger] = [each.trigger for each in found]
    wanted = (
        "cold video", "tail video", "head video", "head target", "tail target", "unseen target",
    )  # fmt: skip
    known = slices(triggers, clicks)
    return {name: known[name] for name in wanted if name in known}
