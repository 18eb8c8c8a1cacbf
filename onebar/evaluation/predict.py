"""Predictors: whatever answers triggers with ordered queries, or rejects them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from onebar.triggers import Trigger

BATCH = 64
"""Prompts an engine is given at a time."""


class Prediction(Struct, frozen=True):
    """What would stand in the bar: queries best first, normalised, each once. None of them where
    `rejected`; a predictor that can't reject may still have none."""

    queries: tuple[str, ...] = ()
    rejected: bool = False


class Predictor(Protocol):
    """A recommender under evaluation. It may read a trigger's evidence, never its outcome
    (`kind`, `target`, `preferences`, `shown`)."""

    @property
    def name(self) -> str:
        """How its row is called."""
        ...

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        """One prediction a trigger, in their order, each of at most `k` (>= 1) queries."""
        ...


class EnginePredictor:
    """A checkpoint, as serving runs it: its own prompt, its engine, the post-checks."""

    def __init__(
        self, checkpoint: Path, *, threads: int = 1, beam_size: int = 8, name: str | None = None
    ) -> None:
        """`threads` prompts are decoded side by side, each on one thread: threads that share one
        prompt wait for each other. Raises `CheckpointError` where there is no sound checkpoint.
        """
        from onebar.generator.checkpoint import open_checkpoint
        from onebar.generator.load import load_engine

        opened = open_checkpoint(checkpoint)
        self.name = name or opened.name
        self._prompt = opened.card.prompt
        self._engine = load_engine(opened, beam_size=beam_size, workers=threads)

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        from onebar.evidence.prompt import build_prompt
        from onebar.recommending.candidates import decide

        found: list[Prediction] = []
        for at in range(0, len(triggers), BATCH):
            prompts = [build_prompt(t.evidence, self._prompt) for t in triggers[at : at + BATCH]]
            for candidates in self._engine.generate(prompts, k):
                queries, rejected = decide(candidates, k)
                found.append(Prediction(tuple(c.text for c in queries), rejected))
        return found

    def close(self) -> None:
        """Free the model."""
        self._engine.close()
