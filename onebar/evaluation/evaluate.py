"""How good a checkpoint is on a dataset, in one call."""

from __future__ import annotations

from pathlib import Path

from onebar.evaluation.metrics import Interval, summary
from onebar.evaluation.outcomes import measure
from onebar.evaluation.predict import EnginePredictor, Predictor
from onebar.evaluation.read import evaluation_triggers
from onebar.triggers import Split, TriggerDataset, open_dataset


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
    if not isinstance(of, Path | str):
        return summary(measure(of, triggers, k))
    predictor = EnginePredictor(Path(of), threads=threads, beam_size=max(8, k))
    try:
        return summary(measure(predictor, triggers, k))
    finally:
        predictor.close()
