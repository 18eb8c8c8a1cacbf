"""The triggers an evaluation is about."""

from __future__ import annotations

import numpy as np

from onebar.triggers import EmptyDatasetError, Split, Trigger, TriggerDataset

SEED = 11


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
