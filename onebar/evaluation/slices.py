"""Slices: parts of the triggers that a mean over all of them can hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from onebar.triggers import Trigger

HEAD_SHARE = 0.5
"""The head are the most clicked queries that together have this share of the train clicks."""
CATEGORIES = 12
"""The largest categories that have a slice of their own."""


def click_counts(train: Iterable[Trigger]) -> Counter[str]:
    """Clicks of each query in the train part."""
    return Counter(trigger.target for trigger in train if trigger.kind == "click")


def head_queries(clicks: Mapping[str, int], share: float = HEAD_SHARE) -> frozenset[str]:
    """The fewest queries that have `share` of all clicks; equally clicked ones by name."""
    need = share * sum(clicks.values())
    head: set[str] = set()
    got = 0
    for query, count in sorted(clicks.items(), key=lambda item: (-item[1], item[0])):
        if got >= need:
            break
        head.add(query)
        got += count
    return frozenset(head)


def slices(
    triggers: Sequence[Trigger], clicks: Mapping[str, int] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Masks over the triggers by name: what is in the evidence, how well the video is known, the
    category; and, with the train part's `clicks`, how popular the target is. Slices that hold
    nothing are left out. Head, tail and unseen targets are parts of the triggers with a target
    only. Head videos are the better known half of the warm ones, by what had been done after them.
    """
    half = median([t.video_behaviors for t in triggers if t.video_behaviors] or [1])
    found: dict[str, list[bool]] = {
        "cold video": [t.video_behaviors == 0 for t in triggers],
        "warm video": [t.video_behaviors > 0 for t in triggers],
        "head video": [t.video_behaviors >= half for t in triggers],
        "tail video": [0 < t.video_behaviors < half for t in triggers],
        "with history": [bool(t.history) for t in triggers],
        "no history": [not t.history for t in triggers],
        "with summary": [bool(t.summary) for t in triggers],
        "no summary": [not t.summary for t in triggers],
        "with anchors": [bool(t.anchors) for t in triggers],
        "no anchors": [not t.anchors for t in triggers],
    }
    if clicks is not None:
        head = head_queries(clicks)
        wanted = [t.target if t.kind != "reject" else "" for t in triggers]
        found |= {
            "head target": [query in head for query in wanted],
            "tail target": [bool(query) and query not in head for query in wanted],
            "unseen target": [bool(query) and not clicks.get(query) for query in wanted],
        }
    sizes = Counter(t.category for t in triggers if t.category)
    for category, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES]:
        found[f"category: {category}"] = [t.category == category for t in triggers]
    masks = {name: np.array(rows, dtype=np.bool_) for name, rows in found.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}
