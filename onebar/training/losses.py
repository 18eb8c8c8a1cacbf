"""The losses of the three stages: pure functions of tensors.

Shapes: B triggers, n queries of a preference list, L positions of a target, V vocabulary entries.
Labels are ids, -100 where there is none (padding, after the end token): such positions count
nowhere. The end token itself counts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
ANCHOR_LEVEL = 4
"""The weakest behaviour level that may be preferred to others (paper: C = {j : level <= 4})."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Eq. 5: mean over all target tokens. logits (B, L, V), labels (B, L)."""
    return functional.cross_entropy(
        _wide(logits.flatten(0, 1)),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )


def sequence_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log π(y|x), summed over the tokens of each target: (B, L, V), (B, L) → (B,)."""
    known = labels != IGNORED
    taken = functional.cross_entropy(
        _wide(logits.flatten(0, 1)), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -(taken.view_as(labels) * known).sum(1)


def listwise_dpo(
    policy: Tensor, reference: Tensor, levels: Tensor, *, beta: float, temperature: float = 1.0
) -> Tensor:
    """Eq. 6–10 without the SFT term, mean over the triggers that have something to compare.

    `policy` and `reference` (B, n) are log π of each list's queries, best level first; `levels`
    (B, n) are 1 to 6, 0 where a list has ended. With r = policy − reference, each query j of
    level 4 or better is preferred to all i after it:
    log(1 + Σ_{i>j} exp((β/T)(r_i − r_j))). A list with no such pair counts as 0.
    """
    rewards = (policy - reference) * (beta / temperature)
    present = levels > 0
    n = levels.shape[1]
    after = torch.ones(n, n, dtype=torch.bool, device=levels.device).triu(1)  # [j, i]: i > j
    pairs = after & present[:, None, :] & present[:, :, None]
    differences = rewards[:, None, :] - rewards[:, :, None]  # [b, j, i] = r_i − r_j
    masked = differences.masked_fill(~pairs, -torch.inf)
    # log(1 + Σ exp(x)) is a log-sum-exp with a zero beside.
    terms = torch.logsumexp(torch.cat([masked, torch.zeros_like(masked[..., :1])], 2), dim=2)
    chosen = (levels <= ANCHOR_LEVEL) & pairs.any(2)
    lists = chosen.any(1).sum().clamp(min=1)
    return (terms * chosen).sum() / lists


def preferred(levels: Tensor) -> Tensor:
    """C of Eq. 6–10 as a mask (B, n): level 4 or better, with a query after it."""
    present = levels > 0
    last = present.sum(1, keepdim=True) - 1
    place = torch.arange(levels.shape[1], device=levels.device)[None, :]
    return present & (levels <= ANCHOR_LEVEL) & (place < last)


def divergence(p: Tensor, q: Tensor, mask: Tensor) -> Tensor:
    """KL(p ‖ q) in nats from log-probabilities (B, L, V), mean over `mask` (B, L)."""
    return masked_mean((p.exp() * (p - q)).sum(-1), mask)


def distillation(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    forward: float,
    reverse: float,
) -> Tensor:
    """L_distill of PIOPD (Eq. 11–16): τ² [λ_F KL(p_T ‖ p_S) + λ_R KL(p_S ‖ p_T)].

    Logits (B, L, V), both softened by τ; `mask` (B, L) is true on rollout tokens up to and
    including the end token. No gradient goes to the teacher.
    """
    p = functional.log_softmax(_wide(teacher.detach()) / temperature, dim=-1)
    q = functional.log_softmax(_wide(student) / temperature, dim=-1)
    total = p.new_zeros(())
    if forward:
        total = total + forward * divergence(p, q, mask)
    if reverse:
        total = total + reverse * divergence(q, p, mask)
    return temperature**2 * total


def negative_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """L_ent: −H(p_S) in nats, mean over `mask`. Minimised, it keeps the first choice from taking
    everything."""
    log_probs = functional.log_softmax(_wide(logits), dim=-1)
    return masked_mean((log_probs.exp() * log_probs).sum(-1), mask)


def r_drop(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Half the symmetric KL of two dropout passes' logits (B, L, V)."""
    p = functional.log_softmax(_wide(first), dim=-1)
    q = functional.log_softmax(_wide(second), dim=-1)
    return 0.5 * (divergence(p, q, mask) + divergence(q, p, mask))


def fgm_perturbation(gradient: Tensor, epsilon: float) -> Tensor:
    """FGM: ε g / ‖g‖ for each example: (B, S, d) → (B, S, d); zero where the gradient is."""
    norm = gradient.flatten(1).norm(dim=1).view(-1, 1, 1)
    return torch.where(norm > 0, epsilon * gradient / norm.clamp(min=1e-30), 0.0 * gradient)


def rollout_mask(ids: Tensor, end: int) -> Tensor:
    """True up to and including the first end token: ids (B, L) → (B, L)."""
    ended = (ids == end).int().cumsum(1)
    return (ended == 0) | ((ids == end) & (ended == 1))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it is nowhere."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: half precision is too narrow for sums over a vocabulary."""
    return logits if logits.dtype == torch.float64 else logits.float()
