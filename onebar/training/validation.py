"""How well a model does on examples that it does not learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from onebar.training.batches import BatchT, Examples, share

Step = Callable[[Any, BatchT, Callable[[Any], None]], dict[str, Any]]
"""`onebar.training.loop.Stage.step`."""


def validate(
    step: Step[BatchT],
    model: Any,
    held_out: Examples[BatchT],
    *,
    size: int,
    seed: int,
    accelerator: Any,
) -> dict[str, float]:
    """The scalars of `step` over all examples, as means weighted by what each batch is a mean of.

    Every time the same batches and the same draws, without dropout; several processes share the
    work and all get the same answer. The model stays in the mode it was in. Torch's generator is
    left where the draws ended: whoever draws next seeds it.
    """
    import numpy as np
    import torch

    rank, processes = accelerator.process_index, accelerator.num_processes
    sums: dict[str, Any] = {}
    total = torch.zeros((), device=accelerator.device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), accelerator.autocast():
        for at in range(0, len(held_out), size * processes):
            torch.manual_seed(draw_seed(seed, at, rank))
            rows = np.arange(at, min(at + size * processes, len(held_out)))
            batch = held_out.batch(share(rows, rank, processes), seed=seed, epoch=0)
            total += batch.weight
            for name, value in step(model, batch, _nothing).items():
                sums[name] = sums.get(name, 0.0) + value.float() * batch.weight
    model.train(was_training)
    if processes > 1:
        total = accelerator.reduce(total, "sum")
        sums = {name: accelerator.reduce(value, "sum") for name, value in sums.items()}
    return {name: float(value / total) for name, value in sums.items()}


def draw_seed(seed: int, first: int, rank: int) -> int:
    """What torch's generator starts a batch of a validation with, by the place of its first
    example."""
    digest = hashlib.blake2b(f"valid:{seed}:{first}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _nothing(_: Any) -> None:
    """Where gradients would go."""
