"""The losses of list-wise reinforcement: pure functions of tensors.

Shapes: B prompts, n lists of each, k places of a list, N = B · n · k rollouts, L tokens of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onebar.training.losses import masked_mean

LEAST_SPREAD = 1e-4
"""A group whose rewards differ less says nothing: it is noise that would be made large."""


def standardised(rewards: Tensor, dim: int) -> Tensor:
    """Rewards less their mean over `dim`, by their standard deviation; 0 where they are all one."""
    centred = rewards - rewards.mean(dim, keepdim=True)
    spread = rewards.std(dim, correction=0, keepdim=True)
    return torch.where(spread > LEAST_SPREAD, centred / spread.clamp(min=LEAST_SPREAD), 0.0)


def advantages(queries: Tensor, lists: Tensor, list_weight: float) -> Tensor:
    """How much better each query is than it had to be, (B, n, k).

    `queries` (B, n, k) are the rewards of each, `lists` (B, n) those of a list as a whole. Per
    position a query is compared with what stood at the same place of the other lists of its prompt;
    per list, with weight `list_weight`, each shares in how its list compares with the others.
    """
    return standardised(queries, 1) + list_weight * standardised(lists, 1)[:, :, None]


def policy_loss(log_probs: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """−A · log π, mean over all tokens: `log_probs` and `mask` (N, L), `advantage` (N,). Each
    rollout is of the policy as it is and is learnt from once, so there is no ratio to clip; the
    mean is over the tokens of all, so that a long query is no better than a short one."""
    return -masked_mean(advantage[:, None] * log_probs, mask)


def apart(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """How far the policy is from the reference, mean over the rollouts' tokens: exp(r) − r − 1 with
    r = log π_ref − log π of each, which is never below 0 and on average KL(π ‖ π_ref)."""
    ratio = reference.detach() - log_probs
    return masked_mean(ratio.exp() - ratio - 1, mask)
