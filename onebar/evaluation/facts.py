"""How good a checkpoint is, as facts for its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebar.evaluation.baselines.simple import AnchorsAlone
from onebar.evaluation.metrics import Interval, summary
from onebar.evaluation.outcomes import measure
from onebar.evaluation.predict import EnginePredictor
from onebar.triggers import EmptyDatasetError, TriggerDataset


def facts(checkpoint: Path, dataset: TriggerDataset, *, k: int = 8) -> dict[str, Any]:
    """Metrics of a checkpoint on the clicks and rejects of a dataset's test split, each as value,
    low and high of its 95 % interval; and those of the anchors alone beside them.

    Raises `EmptyDatasetError`, `CheckpointError`.
    """
    triggers = list(dataset.read("test", ("click", "reject")))
    if not any(trigger.kind == "click" for trigger in triggers):
        raise EmptyDatasetError(f"{dataset.path} has no clicks in its test split")
    predictor = EnginePredictor(checkpoint, threads=2)
    try:
        found = summary(measure(predictor, triggers, k))
    finally:
        predictor.close()
    anchors = summary(measure(AnchorsAlone(), triggers, k))
    names = ("hr@1", f"hr@{k}", f"mrr@{k}")
    return {
        "clicks": sum(trigger.kind == "click" for trigger in triggers),
        "rejects": sum(trigger.kind == "reject" for trigger in triggers),
        **{name: _told(found[name]) for name in (*names, "reject_precision", "reject_recall")},
        **{f"anchors_{name}": _told(anchors[name]) for name in names},
    }


def _told(interval: Interval) -> list[float]:
    """Value, low, high."""
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]
