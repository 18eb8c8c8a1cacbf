"""What a checkpoint itself finds improbable: a floor for what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.tokens import PromptTokenizer
from onebar.generator.engine import Engine
from onebar.triggers import Trigger

QUANTILE = 0.02
"""Share of right answers that the floor gives up."""
BATCH = 16


def per_token(score: float, query: str, tokenizer: PromptTokenizer) -> float:
    """The log probability of a query, a token: its end token counts."""
    return score / max(1, len(tokenizer.encode_targets([query])[0]))


def right_scores(
    engine: Engine, tokenizer: PromptTokenizer, triggers: Iterable[Trigger], prompt: PromptConfig
) -> list[float]:
    """`per_token` of the queries that were clicked, of the triggers where the engine found them."""
    found: list[float] = []
    clicks = (trigger for trigger in triggers if trigger.kind == "click")
    while batch := list(islice(clicks, BATCH)):
        answers = engine.generate([build_prompt(each.evidence, prompt) for each in batch], 8)
        for trigger, candidates in zip(batch, answers, strict=True):
            found += [
                per_token(candidate.score, trigger.target, tokenizer)
                for candidate in candidates
                if candidate.text == trigger.target
            ]
    return found


def floor(scores: Sequence[float], quantile: float = QUANTILE) -> float | None:
    """The score that all but a share `quantile` reach; None where there are none."""
    ordered = sorted(scores)
    return round(ordered[int(quantile * len(ordered))], 3) if ordered else None
