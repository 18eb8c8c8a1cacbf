"""Generation engines: one small interface, two ways to run the same checkpoint.

Importing this package or `onebar.generator.ct2` loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from onebar.errors import OneBarError
from onebar.records import Candidate

if TYPE_CHECKING:
    from onebar.generator.checkpoint import Checkpoint

EngineName = Literal["auto", "ctranslate2", "torch"]

PATIENCE = 1.5
"""A search goes on until this many times as many hypotheses have ended as the beam is wide. On the
`demo` preset 1.5 instead of 1 takes an eighth longer and has HR@8 at 0.347 instead of 0.331; 2 adds
nothing to speak of."""


class EngineError(OneBarError, RuntimeError):
    """An engine failed while generating. The cause is chained."""


class Engine(Protocol):
    """Turns prompts into ordered candidates. Safe to call from several threads.

    One that gains only from some prompts in one call says which, for `onebar.generator.batching`:
    `company(prompt)` is equal for those, and `batch_limit` is how many of them it gains from.
    """

    @property
    def model(self) -> str:
        """The checkpoint's name: part of every evidence digest."""
        ...

    def generate(self, prompts: Sequence[str], k: int) -> list[list[Candidate]]:
        """Up to `k` (1 <= k <= beam size) candidates for each prompt, best first.

        A rejecting output appears as `Candidate("[REJECT]", score)`. What a prompt gets depends
        on nothing but the prompt and the checkpoint, not on the batch it ran in.
        """
        ...

    def close(self) -> None:
        """Free the model. Further calls to `generate` raise `EngineError`."""
        ...


def ended_hypotheses(beams: int) -> int:
    """How many hypotheses a search with so wide a beam ends with."""
    return round(PATIENCE * beams)


def ordered(candidates: list[Candidate]) -> list[Candidate]:
    """Best first, each text once (other tokens may spell it too); scores are rounded to 1e-5 and
    ties stand in the order of their text."""
    rounded = [Candidate(c.text, round(c.score, 5) + 0.0) for c in candidates]
    best: dict[str, Candidate] = {}
    for candidate in sorted(rounded, key=lambda candidate: (-candidate.score, candidate.text)):
        best.setdefault(candidate.text, candidate)
    return list(best.values())


def load_engine(
    checkpoint: Checkpoint,
    *,
    engine: EngineName = "auto",
    beam_size: int = 8,
    workers: int = 1,
    threads: int = 1,
) -> Engine:
    """The engine for a checkpoint.

    `auto` takes CTranslate2 where the checkpoint has its weights, else torch. `workers` prompts
    batches run side by side, each on `threads` cores. Raises `CheckpointMismatchError` where the
    checkpoint lacks the weights of the engine asked for.
    """
    if engine == "torch" or (engine == "auto" and not checkpoint.has_ctranslate2):
        from onebar.generator.torch_engine import TorchEngine

        return TorchEngine(checkpoint, beam_size=beam_size, threads=workers * threads)
    from onebar.generator.ct2 import CTranslate2Engine

    return CTranslate2Engine(checkpoint, beam_size=beam_size, workers=workers, threads=threads)
