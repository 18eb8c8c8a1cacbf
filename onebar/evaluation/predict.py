"""Predictors: whatever answers triggers with ordered queries, or rejects them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.recommending.material import Material, seen, told
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


def material_of(trigger: Trigger) -> Material:
    """What candidates for a logged impression would have been made from, and ordered by."""
    made = told(trigger.evidence, trigger.anchor_weights)
    counts = ((c.query, c.exposures, c.clicks, c.engagements) for c in trigger.counts)
    return seen(made, trigger.recent, counts)


def prompt_of(trigger: Trigger, config: PromptConfig) -> str:
    """The prompt as serving would have written it: anchors of near videos stand in A only where
    the model has learned to read them."""
    return build_prompt(trigger.evidence if config.neighbors else trigger.own_evidence, config)


class EnginePredictor:
    """A checkpoint, as serving runs it: its own prompt and engine, candidates from all the
    evidence, and what orders them."""

    def __init__(
        self, checkpoint: Path, *, threads: int = 1, beam_size: int = 8, name: str | None = None
    ) -> None:
        """`threads` prompts are decoded side by side, each on one thread: threads that share one
        prompt wait for each other. Raises `CheckpointError` where there is no sound checkpoint.
        """
        from onebar.generator.checkpoint import open_checkpoint
        from onebar.generator.load import load_engine
        from onebar.recommending.loading import open_taste

        opened = open_checkpoint(checkpoint)
        self.name = name or opened.name
        self._prompt = opened.card.prompt
        self._taste = open_taste(opened)
        self._beam_size = max(beam_size, self._taste.beam)
        self._engine = load_engine(opened, beam_size=self._beam_size, workers=threads)

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        from onebar.recommending.candidates import choose

        found: list[Prediction] = []
        for at in range(0, len(triggers), BATCH):
            chunk = triggers[at : at + BATCH]
            prompts = [prompt_of(one, self._prompt) for one in chunk]
            beams = self._engine.generate(prompts, self._beam_size)
            for one, beam in zip(chunk, beams, strict=True):
                chosen = choose(self._material(one), beam, k, self._taste)
                queries = tuple(candidate.text for candidate in chosen.queries)
                found.append(Prediction(queries, chosen.rejected))
        return found

    def _material(self, trigger: Trigger) -> Material:
        if self._taste.scorer is None:
            return told(trigger.evidence)
        return material_of(trigger)

    def close(self) -> None:
        """Free the model."""
        self._engine.close()
