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
OWN_LEVEL = 2
"""The weakest level that is this user's own click: levels 3 and 4 are other people's."""
LEVEL_REWARDS = (0.0, 2.0, 1.5, 1.0, 0.5, 0.2, 0.0)
"""By behaviour level 1 to 6, in place 0 nothing (OneSug: order > click > show > not shown)."""


def cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float = 0.0, focus: float = 0.0
) -> Tensor:
    """Eq. 5: mean over all target tokens. logits (B, L, V), labels (B, L).

    `focus` > 0 weighs each token by (1 − p)^focus, p its probability: what is known already counts
    less (focal loss, Lin et al. 2017).
    """
    flat, wanted = _wide(logits.flatten(0, 1)), labels.flatten()
    if not focus:
        return functional.cross_entropy(
            flat, wanted, ignore_index=IGNORED, label_smoothing=smoothing
        )
    each = functional.cross_entropy(
        flat, wanted, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none"
    )
    with torch.no_grad():
        sure = torch.exp(
            -functional.cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="none")
        )
    return masked_mean((1 - sure) ** focus * each, wanted != IGNORED)


def sequence_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log π(y|x), summed over the tokens of each target: (B, L, V), (B, L) → (B,)."""
    known = labels != IGNORED
    taken = functional.cross_entropy(
        _wide(logits.flatten(0, 1)), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -(taken.view_as(labels) * known).sum(1)


def listwise_dpo(
    policy: Tensor,
    reference: Tensor,
    levels: Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
    pairs: Tensor | None = None,
    weights: Tensor | None = None,
    guard: float = 0.0,
) -> Tensor:
    """Eq. 6–10 without the SFT term, mean over the triggers that have something to compare.

    `policy` and `reference` (B, n) are log π of each list's queries, best level first; `levels`
    (B, n) are 1 to 6, 0 where a list has ended. With r = policy − reference, each query j of
    level 4 or better is preferred to all i after it:
    log(1 + Σ_{i>j} exp((β/T)(r_i − r_j))). A list with no such pair counts as 0.

    `pairs` (B, n, n) is true at [j, i] where j may be preferred to i; all, where it is None.
    `weights` (B, n, n), > 0, weigh the pairs' terms of the sum. `guard` times max(0, −r_j) is added
    inside the exponent, so that a winner which has become less likely than it was is pushed up more
    (both: OneSearch-V2).
    """
    scale = beta / temperature
    rewards = (policy - reference) * scale
    allowed = comparable(levels) if pairs is None else comparable(levels) & pairs
    differences = rewards[:, None, :] - rewards[:, :, None]  # [b, j, i] = r_i − r_j
    if guard:
        differences = differences + guard * (-rewards).clamp(min=0)[:, :, None]
    if weights is not None:
        differences = differences + weights.log()
    masked = differences.masked_fill(~allowed, -torch.inf)
    # log(1 + Σ exp(x)) is a log-sum-exp with a zero beside.
    terms = torch.logsumexp(torch.cat([masked, torch.zeros_like(masked[..., :1])], 2), dim=2)
    chosen = allowed.any(2)
    lists = chosen.any(1).sum().clamp(min=1)
    return (terms * chosen).sum() / lists


def comparable(levels: Tensor) -> Tensor:
    """The pairs of Eq. 6–10 as a mask (B, n, n): true at [j, i] where i stands after j and j has
    level 4 or better."""
    present = levels > 0
    n = levels.shape[1]
    after = torch.ones(n, n, dtype=torch.bool, device=levels.device).triu(1)  # [j, i]: i > j
    winners = present & (levels <= ANCHOR_LEVEL)
    return after & present[:, None, :] & winners[:, :, None]


def close_pair_weights(levels: Tensor, alpha: float = 1.5) -> Tensor:
    """(B, n, n): (max(1, reward_j) − reward_i)^−α + 1 at [j, i], so that levels close to each other
    weigh more (OneSearch-V2; rewards by level as `LEVEL_REWARDS`)."""
    rewards = torch.tensor(LEVEL_REWARDS, device=levels.device)[levels]
    gap = rewards.clamp(min=1)[:, :, None] - rewards[:, None, :]
    return gap.clamp(min=1e-3) ** -alpha + 1


def own_clicks(levels: Tensor) -> Tensor:
    """The queries of each list that this user clicked, as a mask (B, n): levels 1 and 2."""
    return (levels > 0) & (levels <= OWN_LEVEL)


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


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it is nowhere."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: half precision is too narrow for sums over a vocabulary."""
    return logits if logits.dtype == torch.float64 else logits.float()
