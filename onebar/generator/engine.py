"""What every engine offers, and what the two have in common: pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from onebar.errors import OneBarError
from onebar.generator.within import Within
from onebar.records import Candidate

PATIENCE = 1.5
"""A search goes on until this many times as many hypotheses have ended as the beam is wide. On the
`demo` preset 1.5 instead of 1 takes an eighth longer and has HR@8 at 0.347 instead of 0.331; 2 adds
nothing to speak of."""


class EngineError(OneBarError, RuntimeError):
    """An engine failed while generating. The cause is chained."""


class Engine(Protocol):
    """Turns prompts into ordered candidates. Safe to call from several threads.

    Derive from it: an engine that gains from any prompts in one call leaves `batch_limit` and
    `company` as they are.
    """

    @property
    def model(self) -> str:
        """The checkpoint's name: part of every evidence digest."""
        ...

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        """Up to `k` (1 <= k <= beam size) candidates for each prompt, best first.

        A rejecting output appears as `Candidate("[REJECT]", score)`. What a prompt gets depends
        on nothing but the prompt, what it is held `within` (one for each prompt, or none at all)
        and the checkpoint, not on the batch it ran in. Held within, `k` is for what is inside.
        """
        ...

    @property
    def batch_limit(self) -> int | None:
        """How many prompts of one `company` it gains from; None: from any, however many."""
        return None

    def company(self, prompt: str) -> Hashable:
        """What prompts that gain from one another in one call have in common."""
        return None

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
