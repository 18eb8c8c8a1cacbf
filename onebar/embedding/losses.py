"""The loss of the embedding: a pure function of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(
    left: Tensor,
    right: Tensor,
    together: Tensor,
    hard: Tensor | None = None,
    *,
    temperature: float = 0.05,
) -> Tensor:
    """InfoNCE in both directions (van den Oord et al. 2018): each left text is to find its right
    one among those of the batch and the hard negatives, and each right text its left one.

    `left`, `right` (n, d) and `hard` (m, d) have rows of unit length. `together` (n, n), boolean,
    is true where a left and a right text of the batch are known to belong together: off the
    diagonal they are no negatives and are left out. Returns a scalar >= 0.
    """
    import torch
    from torch.nn.functional import cross_entropy

    own = torch.arange(len(left), device=left.device)
    other = together.clone()
    other.fill_diagonal_(False)
    scores = (left @ right.T / temperature).masked_fill(other, -torch.inf)
    backward = cross_entropy(scores.T, own)
    if hard is not None and len(hard):
        scores = torch.cat([scores, left @ hard.T / temperature], dim=1)
    return (cross_entropy(scores, own) + backward) / 2
