"""Baselines without a model: what a checkpoint must at least be better than."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from onebar.evaluation.predict import Prediction
from onebar.evidence.prompt import PART
from onebar.recommending.grounding import presentable
from onebar.triggers import Trigger

MOST = 64
"""Popular queries kept of each category."""


def _first(queries: Iterable[str], k: int) -> Prediction:
    """The first k that may be shown, each once."""
    shown = (presentable(query) for query in queries)
    return Prediction(tuple(dict.fromkeys(query for query in shown if query))[:k])


class TitleCopy:
    """The parts of the video's own text, in their order."""

    name = "title copy"

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        return [_first(trigger.text.split(PART), k) for trigger in triggers]


class AnchorsAlone:
    """What others searched or tapped under this video, strongest first."""

    name = "anchors"

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        return [_first(trigger.anchors, k) for trigger in triggers]


class Popularity:
    """The most clicked queries of the video's category, of all videos where it has none."""

    name = "popularity"

    def __init__(self, train: Iterable[Trigger]) -> None:
        clicks: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for trigger in train:
            if trigger.kind == "click":
                for category in {trigger.category, ""}:
                    clicks[category][trigger.target] += 1
        self._top = {category: top(counts, MOST) for category, counts in clicks.items()}

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        everywhere = self._top.get("", [])
        return [_first(self._top.get(t.category, everywhere), k) for t in triggers]


def top(counts: Counter[str], most: int) -> list[str]:
    """The most counted, equally counted ones by name."""
    return [query for query, _ in sorted(counts.items(), key=lambda i: (-i[1], i[0]))[:most]]
