"""How good a checkpoint is on a dataset, in one call; and what is read for it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from onebar.evaluation.metrics import Interval, summary
from onebar.evaluation.offpolicy import examination
from onebar.evaluation.outcomes import measure
from onebar.evaluation.predict import EnginePredictor, Predictor
from onebar.triggers import EmptyDatasetError, Split, Trigger, TriggerDataset, open_dataset

SEED = 11
MOST_BARS = 200_000
"""Impressions that propensities are estimated from."""


def evaluation_triggers(
    dataset: TriggerDataset, split: Split = "test", limit: int | None = None
) -> list[Trigger]:
    """The clicks and rejects of a split by time; with a limit, as many of them by chance, the
    same ones every time.

    Raises `EmptyDatasetError` where there are none, or no click is among them.
    """
    found = list(dataset.read(split, ("click", "reject")))
    if not found:
        raise EmptyDatasetError(
            f"the {split} split of {dataset.path} has neither clicks nor rejects: evaluate on "
            "another split, or make the dataset with a larger share for this one"
        )
    if not any(trigger.kind == "click" for trigger in found):
        raise EmptyDatasetError(
            f"the {split} split of {dataset.path} has no clicks, only {len(found)} rejects: what "
            "is hit can't be told without them; make the dataset from a longer log"
        )
    if limit is not None and limit < len(found):
        picked = np.random.default_rng(SEED).choice(len(found), limit, replace=False)
        found = [found[at] for at in sorted(picked)]
    return found


def propensities(dataset: TriggerDataset, split: Split = "test") -> tuple[float, ...]:
    """How likely each place of the split's bars is looked at, the first place's 1; empty where the
    split keeps no impression without a tap, for then it can't be told."""
    found = list(islice(dataset.bars(split), MOST_BARS))
    if all(any(item.clicked for item in trigger.shown) for trigger in found):
        return ()
    return tuple(float(e) for e in examination(found))


def evaluate(
    of: Path | str | Predictor,
    dataset: TriggerDataset | Path | str,
    *,
    split: Split = "test",
    k: int = 8,
    limit: int | None = None,
    threads: int = 1,
) -> dict[str, Interval]:
    """Every metric that can be told by its name (`hr@1`, `mrr@8`, …; docs/evaluation.md), with
    intervals of 95 % by user.

    `of` is a checkpoint's directory, or whatever answers triggers. `limit` picks so many triggers,
    the same ones every time. Raises `CheckpointError`, `DatasetError`.
    """
    opened = dataset if isinstance(dataset, TriggerDataset) else open_dataset(dataset)
    triggers = evaluation_triggers(opened, split, limit)
    looked = propensities(opened, split)
    if not isinstance(of, Path | str):
        return summary(measure(of, triggers, k, propensity=looked))
    predictor = EnginePredictor(Path(of), threads=threads, beam_size=max(8, k))
    try:
        return summary(measure(predictor, triggers, k, propensity=looked))
    finally:
        predictor.close()
