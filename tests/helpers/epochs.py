"""An epoch's batches in a row, as a single process reads them."""

from __future__ import annotations

from collections.abc import Iterator

from onebar.training.batches import BatchT_co, Examples


def epoch_batches(
    examples: Examples[BatchT_co], size: int, *, seed: int, epoch: int
) -> Iterator[BatchT_co]:
    for rows in examples.order(size, seed=seed, epoch=epoch):
        yield examples.batch(rows, seed=seed, epoch=epoch)
