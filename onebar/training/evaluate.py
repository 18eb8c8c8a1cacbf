"""How good a checkpoint is on examples it was not trained on: HR@k, MRR@k, rejection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from msgspec import Struct

from onebar.candidates import REJECT, decide
from onebar.engines import Engine
from onebar.prompt import PART
from onebar.text import SEP, normalize_query
from onebar.training.dataset import Example


class Quality(Struct, frozen=True):
    """Shares from 0 to 1 over `clicks` examples with a query and `rejects` with `[REJECT]`.

    A hit is the clicked query itself, after normalisation. `anchors_hr` is what the prompt's own
    anchors would hit, in their order, without any model.
    """

    clicks: int
    rejects: int
    k: int
    hr_1: float
    hr_k: float
    mrr_k: float
    anchors_hr_1: float
    anchors_hr_k: float
    reject_precision: float
    reject_recall: float

    def facts(self) -> dict[str, float | int]:
        """For a checkpoint's card."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in values.items()
        }


def prompt_anchors(prompt: str) -> list[str]:
    """The queries in the A field of a prompt."""
    fields = prompt.split(f" {SEP} ")
    return [query for query in fields[2].split(PART) if query] if len(fields) == 4 else []


def _rank(queries: Sequence[str], target: str) -> int:
    """Place of the target from 1, or 0 where it is not among the queries."""
    return queries.index(target) + 1 if target in queries else 0


def evaluate(engine: Engine, examples: Iterable[Example], *, k: int = 8) -> Quality:
    """Run every example through the engine and the post-checks."""
    ranks: list[int] = []
    anchor_ranks: list[int] = []
    rejected_clicks = rejected_rejects = rejects = 0
    remaining = iter(examples)
    while group := list(islice(remaining, 64)):
        generated = engine.generate([example.prompt for example in group], k)
        for example, candidates in zip(group, generated, strict=True):
            queries, rejected = decide(candidates, k)
            if example.target == REJECT:
                rejects += 1
                rejected_rejects += rejected
                continue
            rejected_clicks += rejected
            target = normalize_query(example.target)
            ranks.append(_rank([query.text for query in queries], target))
            anchor_ranks.append(_rank(prompt_anchors(example.prompt)[:k], target))
    clicks = max(1, len(ranks))
    return Quality(
        clicks=len(ranks),
        rejects=rejects,
        k=k,
        hr_1=sum(rank == 1 for rank in ranks) / clicks,
        hr_k=sum(rank > 0 for rank in ranks) / clicks,
        mrr_k=sum(1 / rank for rank in ranks if rank) / clicks,
        anchors_hr_1=sum(rank == 1 for rank in anchor_ranks) / clicks,
        anchors_hr_k=sum(rank > 0 for rank in anchor_ranks) / clicks,
        reject_precision=rejected_rejects / max(1, rejected_rejects + rejected_clicks),
        reject_recall=rejected_rejects / max(1, rejects),
    )
