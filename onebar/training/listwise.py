"""Stage 2, list-wise softmax DPO over the behaviour levels (Eq. 6–10).

Each preferred query against all weaker ones of its list, with the SFT loss beside it. The
reference is the stage-1 model, frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebar.training.batches import ListBatch, Lists, picked, preference_examples
from onebar.training.loop import Backward, Metrics
from onebar.training.losses import (
    ANCHOR_LEVEL,
    OWN_LEVEL,
    close_pair_weights,
    cross_entropy,
    listwise_dpo,
    own_clicks,
    sequence_log_probs,
)
from onebar.training.models.architecture import (
    decode,
    encode,
    frozen_copy,
    set_dropout,
    tensors,
    without_dropout,
)
from onebar.training.run import RunConfig, Start, train
from onebar.triggers import EmptyDatasetError

PRIOR_CLICKS, PRIOR_EXPOSURES = 0.5, 10.0
"""A click rate is smoothed as if a query had been seen so often, and clicked at 5 %."""


class ListwiseConfig(RunConfig, frozen=True, kw_only=True):
    """Stage 2. The paper: β = 0.1, T = 1, λ_sft = 1, learning rate 5e-5. What the method's own
    later code added (OneSearch-V2) is off unless asked for."""

    steps: int = 500
    batch_size: int = 32
    """Lists of one step."""
    learning_rate: float | None = 5e-5
    beta: float = 0.1
    temperature: float = 1.0
    sft_weight: float = 1.0
    """λ_sft: weight of −log π of the user's own clicks (levels 1 and 2), a mean over their
    tokens."""
    dropout: float = 0.0
    """In the SFT term alone: log-ratios are of the model itself, so that r = 0 where it begins."""
    contradictions: bool = False
    """Keep the pairs that the counts contradict: somebody else's click (level 3 or 4) above what
    was exposed and not clicked (level 5), where its click rate is not surely the higher one."""
    close_pairs: float = 0.0
    """α of the weight (max(1, reward_j) − reward_i)^−α + 1 of a pair: 1.5 in the later code, 0
    weighs all the same."""
    guard: float = 0.0
    """Weight of max(0, log π_ref − log π) of the winner inside the exponent; 1 in the later
    code."""
    focus: float = 0.0
    """γ of a focal SFT term; 0 is plain cross-entropy."""


class Listwise:
    """The stage, for `onebar.training.loop.Loop`."""

    name = "listwise"

    def __init__(self, config: ListwiseConfig, start: Start) -> None:
        self._config = config
        self._reference = frozen_copy(start.model)
        set_dropout(start.model, config.dropout)
        examples = preference_examples(start.dataset, "train", start.prompt)
        self.examples = Lists(examples, start.tokenizer)
        if len(self.examples) == 0:
            raise EmptyDatasetError(
                f"{config.dataset} has no preference list of two queries or more: its log has no "
                "exposures beside the clicks"
            )
        held = preference_examples(start.dataset, "valid", start.prompt)
        self.held_out = Lists(picked(held, config.held_out_size), start.tokenizer)

    def step(self, model: Any, batch: ListBatch, backward: Backward) -> Metrics:
        config = self._config
        source, mask, labels, levels, counts = tensors(
            model, batch.source, batch.mask, batch.labels, batch.levels, batch.counts
        )
        with without_dropout(model):
            policy, logits = list_log_probs(model, source, mask, labels)
        with torch.no_grad():
            self._reference.to(model.device)
            reference, _ = list_log_probs(self._reference, source, mask, labels)
        ranking = listwise_dpo(
            policy,
            reference,
            levels,
            beta=config.beta,
            temperature=config.temperature,
            pairs=None if config.contradictions else ~contradicted(levels, counts),
            weights=close_pair_weights(levels, config.close_pairs) if config.close_pairs else None,
            guard=config.guard,
        )
        if config.dropout:
            _, logits = list_log_probs(model, source, mask, labels)
        own = own_clicks(levels).flatten()  # of the others no logit is looked at
        likelihood = cross_entropy(logits[own], labels.flatten(0, 1)[own], focus=config.focus)
        loss = ranking + config.sft_weight * likelihood
        backward(loss)
        rewards = (policy - reference).detach()
        return {
            "loss": loss.detach(),
            "ranking": ranking.detach(),
            "sft": likelihood.detach(),
            "accuracy": _first_wins(rewards, levels),
        }


def list_log_probs(
    model: Any, source: Tensor, mask: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """log π (B, n) of the queries `labels` (B, n, L), and the logits (B n, L, V) that it is made
    of: each source is encoded once."""
    lists, queries, _ = labels.shape
    states = encode(model, source, mask).repeat_interleave(queries, 0)
    flat = labels.flatten(0, 1)
    logits = decode(model, states, mask.repeat_interleave(queries, 0), flat)
    return sequence_log_probs(logits, flat).view(lists, queries), logits


def contradicted(levels: Tensor, counts: Tensor) -> Tensor:
    """The pairs (B, n, n) whose order the counts do not bear out: at [j, i] another person's
    click j (level 3 or 4) and a query i that was exposed to this user and not clicked (level 5).

    That somebody clicked j once says little: this user passed i over, but many clicked i as well.
    The pair stays where the click rate of j is above that of i by more than chance: its Wilson
    lower bound (z = 1.64) above the other's smoothed rate. `counts` (B, n, 2) are exposures and
    clicks under the video before the impression.
    """
    exposures, clicks = counts[..., 0].float(), counts[..., 1].float()
    seen = torch.maximum(exposures, clicks)
    rate = clicks / seen.clamp(min=1)
    z = 1.64
    middle = rate + z * z / (2 * seen.clamp(min=1))
    spread = z * torch.sqrt(
        rate * (1 - rate) / seen.clamp(min=1) + (z / (2 * seen.clamp(min=1))) ** 2
    )
    least = (middle - spread) / (1 + z * z / seen.clamp(min=1))
    least = torch.where(seen > 0, least, torch.zeros_like(least))
    usual = (clicks + PRIOR_CLICKS) / (seen + PRIOR_EXPOSURES)
    others = (levels > OWN_LEVEL) & (levels <= ANCHOR_LEVEL)
    passed_over = levels == ANCHOR_LEVEL + 1
    doubtful = least[:, :, None] <= usual[:, None, :]
    return others[:, :, None] & passed_over[:, None, :] & doubtful


def _first_wins(rewards: Tensor, levels: Tensor) -> Tensor:
    """Share of lists whose best query has gained most over the reference."""
    present = levels > 0
    best = rewards.masked_fill(~present, -torch.inf).argmax(1)
    return (best == 0).float().mean()


def train_listwise(config: ListwiseConfig) -> Path:
    """Train and write a checkpoint; its path. Errors are those of `onebar.training.run.train`."""
    return train(config, lambda start: Listwise(config, start))
