"""The click ranker: trees over what is known at the moment (`onebar.recommending.features`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onebar.ranking.book import Book
from onebar.ranking.trees import Trees
from onebar.recommending.features import FEATURES, describe
from onebar.recommending.material import Material
from onebar.recommending.ranker import Proposal, Ranker


class ClickRanker:
    """A `Scorer` learned from what was shown and tapped, or not (`onebar train clicks`)."""

    def __init__(self, trees: Trees, ranker: Ranker, book: Book | None = None) -> None:
        """`ranker` and `book` are those of the checkpoint, part of what the features are made
        from. Raises `TreesError` where the trees were grown on other features."""
        trees.check(FEATURES)
        self._book = book
        self.trees = trees
        self._ranker = ranker
        self.digest = trees.digest
        self.beam = int(trees.settings.get("beam", 0))
        self.variety = float(trees.settings.get("variety", 0.0))

    @classmethod
    def load(cls, path: Path, ranker: Ranker, book: Book | None = None) -> ClickRanker:
        """Raises `TreesError`."""
        return cls(Trees.load(path), ranker, book)

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        """The log of how likely each is tapped where it is looked at, but for a constant."""
        if not proposals:
            return []
        found = self.trees(describe(proposals, material, self._ranker, self._book))
        scores: list[float] = found.tolist()
        return scores
