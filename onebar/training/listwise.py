"""Stage 2, list-wise softmax DPO over the behaviour levels (Eq. 6–10).

Each preferred query against all weaker ones of its list, with the SFT loss beside it. The
reference is the stage-1 model, frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebar.training.batches import ListBatch, Lists, preference_examples
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import listwise_dpo, preferred, sequence_log_probs
from onebar.training.models.architecture import decode, encode, frozen_copy, set_dropout, tensors
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError


class ListwiseConfig(RunConfig, frozen=True, kw_only=True):
    """Stage 2. The paper: β = 0.1, T = 1, λ_sft = 1, learning rate 5e-5."""

    steps: int = 500
    batch_size: int = 32
    """Lists of one step."""
    learning_rate: float | None = 5e-5
    beta: float = 0.1
    temperature: float = 1.0
    sft_weight: float = 1.0
    """λ_sft: weight of −log π of the preferred queries, summed over tokens and queries."""
    dropout: float | None = None


class Listwise:
    """The stage, for `onebar.training.loop.Loop`."""

    name = "listwise"

    def __init__(self, config: ListwiseConfig, start: Start) -> None:
        self._config = config
        self._reference = frozen_copy(start.model)
        if config.dropout is not None:
            set_dropout(start.model, config.dropout)
        examples = preference_examples(start.dataset, "train", start.prompt)
        self._lists = Lists(examples, start.tokenizer)
        if len(self._lists) == 0:
            raise EmptyDatasetError(
                f"{config.dataset} has no preference list of two queries or more: its log has no "
                "exposures beside the clicks"
            )

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[ListBatch]:
        return self._lists.batches(size, seed=seed, epoch=epoch)

    def step(self, model: Any, batch: ListBatch, backward: Backward) -> Metrics:
        config = self._config
        source, mask, labels, levels = tensors(
            model, batch.source, batch.mask, batch.labels, batch.levels
        )
        policy = list_log_probs(model, source, mask, labels)
        with torch.no_grad():
            self._reference.to(model.device)
            reference = list_log_probs(self._reference, source, mask, labels)
        ranking = listwise_dpo(
            policy, reference, levels, beta=config.beta, temperature=config.temperature
        )
        chosen = preferred(levels)
        likelihood = -(policy * chosen).sum() / chosen.any(1).sum().clamp(min=1)
        loss = ranking + config.sft_weight * likelihood
        backward(loss)
        rewards = (policy - reference).detach()
        return {
            "loss": loss.detach(),
            "ranking": ranking.detach(),
            "sft": likelihood.detach(),
            "accuracy": _first_wins(rewards, levels),
        }


def list_log_probs(model: Any, source: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """log π (B, n) of the queries `labels` (B, n, L): each source is encoded once."""
    lists, queries, _ = labels.shape
    states = encode(model, source, mask).repeat_interleave(queries, 0)
    flat = labels.flatten(0, 1)
    logits = decode(model, states, mask.repeat_interleave(queries, 0), flat)
    return sequence_log_probs(logits, flat).view(lists, queries)


def _first_wins(rewards: Tensor, levels: Tensor) -> Tensor:
    """Share of lists whose best query has gained most over the reference."""
    present = levels > 0
    best = rewards.masked_fill(~present, -torch.inf).argmax(1)
    return (best == 0).float().mean()


def train_listwise(config: ListwiseConfig) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    return train(config, lambda start: Listwise(config, start))
