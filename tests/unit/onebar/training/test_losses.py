"""The losses against values worked out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onebar.training.losses import (
    IGNORED,
    close_pair_weights,
    comparable,
    cross_entropy,
    distillation,
    divergence,
    fgm_perturbation,
    listwise_dpo,
    negative_entropy,
    own_clicks,
    r_drop,
    sequence_log_probs,
)

LOG2 = math.log(2.0)


def logits_of(*probabilities: list[float]) -> Tensor:
    """Logits (1, L, V) whose softmax are these."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_cross_entropy_is_the_mean_over_tokens_and_leaves_padding_out() -> None:
    logits = logits_of([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8])
    labels = torch.tensor([[0, 1, IGNORED]])
    # −(log 1/2 + log 1/4) / 2 = 1.5 log 2
    assert float(cross_entropy(logits, labels)) == pytest.approx(1.5 * LOG2)


def test_log_probability_of_a_sequence_is_the_sum() -> None:
    logits = logits_of([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8])
    labels = torch.tensor([[0, 2, IGNORED]])
    assert sequence_log_probs(logits, labels).tolist() == pytest.approx([-2 * LOG2])


def test_two_queries_make_the_loss_of_dpo() -> None:
    policy = torch.tensor([[-1.0, -3.0]])
    reference = torch.tensor([[-2.0, -2.0]])
    levels = torch.tensor([[1, 5]])
    # r = (1, −1): log(1 + exp(0.1 · (−1 − 1))) = −log σ(0.2), the pairwise DPO loss.
    expected = math.log(1 + math.exp(-0.2))
    assert float(listwise_dpo(policy, reference, levels, beta=0.1)) == pytest.approx(expected)


def test_a_list_compares_each_preferred_query_with_all_after_it() -> None:
    policy = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    reference = torch.zeros(1, 4)
    levels = torch.tensor([[2, 4, 5, 6]])
    e = math.exp
    # j = 0: the others are ahead by 1, 2, 3; j = 1: by 1, 2; levels 5 and 6 are never preferred.
    expected = math.log(1 + e(1) + e(2) + e(3)) + math.log(1 + e(1) + e(2))
    found = listwise_dpo(policy, reference, levels, beta=1.0)
    assert float(found) == pytest.approx(expected)
    halved = listwise_dpo(policy, reference, levels, beta=1.0, temperature=2.0)
    expected = math.log(1 + e(0.5) + e(1) + e(1.5)) + math.log(1 + e(0.5) + e(1))
    assert float(halved) == pytest.approx(expected)


def test_lists_of_different_lengths_share_a_batch() -> None:
    policy = torch.tensor([[0.0, 1.0, 9.0], [0.0, 1.0, 2.0], [5.0, 9.0, 9.0]])
    levels = torch.tensor([[1, 5, 0], [1, 2, 6], [1, 0, 0]])
    e = math.exp
    first = math.log(1 + e(1))
    second = math.log(1 + e(1) + e(2)) + math.log(1 + e(1))
    found = listwise_dpo(policy, torch.zeros(3, 3), levels, beta=1.0)
    assert float(found) == pytest.approx((first + second) / 2)  # the third has nothing to compare
    assert comparable(levels).any(2).tolist() == [
        [True, False, False],
        [True, True, False],
        [False, False, False],
    ]
    assert own_clicks(levels).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, False, False],
    ]


def test_pairs_weights_and_the_guard_as_worked_out_by_hand() -> None:
    policy, reference = torch.tensor([[-3.0, -2.0, -1.0]]), torch.tensor([[-2.0, -2.0, -2.0]])
    levels = torch.tensor([[2, 3, 5]])  # r = (−1, 0, 1)
    e = math.exp
    allowed = torch.ones(1, 3, 3, dtype=torch.bool)
    allowed[0, 1, 2] = False  # the second is not preferred to the third
    found = listwise_dpo(policy, reference, levels, beta=1.0, pairs=allowed)
    assert float(found) == pytest.approx(math.log(1 + e(1) + e(2)))
    # The winner of the first row has fallen by 1: each of its terms is e times as large.
    found = listwise_dpo(policy, reference, levels, beta=1.0, pairs=allowed, guard=1.0)
    assert float(found) == pytest.approx(math.log(1 + e(2) + e(3)))
    # Rewards by level: 1.5, 1.0, 0.2; (max(1, 1.5) − 1)^−1 + 1 = 3, (1.5 − 0.2)^−1 + 1 = 23/13.
    weights = close_pair_weights(levels, alpha=1.0)
    assert weights[0, 0, 1:].tolist() == pytest.approx([3.0, 23 / 13])
    found = listwise_dpo(policy, reference, levels, beta=1.0, pairs=allowed, weights=weights)
    assert float(found) == pytest.approx(math.log(1 + 3 * e(1) + 23 / 13 * e(2)))


def test_a_focal_loss_leaves_out_what_is_known() -> None:
    logits = logits_of([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    labels = torch.tensor([[0, 2]])
    assert float(cross_entropy(logits, labels, focus=2.0)) == pytest.approx(0.25 * LOG2)
    assert float(cross_entropy(logits, labels, focus=0.0)) == pytest.approx(LOG2)


def test_lists_without_a_pair_give_zero_and_no_gradient() -> None:
    policy = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = listwise_dpo(policy, torch.zeros(1, 2), torch.tensor([[5, 6]]), beta=1.0)
    loss.backward()
    assert loss.item() == 0
    assert policy.grad is not None
    assert policy.grad.tolist() == [[0.0, 0.0]]


def test_divergence_by_hand() -> None:
    p, q = logits_of([0.5, 0.5]), logits_of([0.25, 0.75])
    mask = torch.tensor([[True]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(p, q, mask)) == pytest.approx(expected)


def test_distillation_by_hand() -> None:
    teacher, student = logits_of([0.8, 0.2]), logits_of([0.5, 0.5])
    mask = torch.tensor([[True]])
    # Softened by 2: the teacher's odds of 4 become 2, the student stays even.
    forward = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    reverse = 0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2)
    found = distillation(student, teacher, mask, temperature=2.0, forward=1.0, reverse=0.5)
    assert float(found) == pytest.approx(4 * (forward + 0.5 * reverse), rel=1e-5)


def test_the_end_token_is_distilled_and_what_follows_is_not() -> None:
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, False, False]])
    torch.manual_seed(0)
    student = torch.randn(3, 4, 11)
    teacher = torch.randn(3, 4, 11)

    def loss(s: Tensor) -> float:
        return float(distillation(s, teacher, mask, temperature=2.0, forward=1.0, reverse=1.0))

    whole = loss(student)
    after = student.clone()
    after[0, 2:] += torch.randn(2, 11) * 5
    assert loss(after) == whole
    at_end = student.clone()
    at_end[0, 1] += torch.randn(11)
    assert loss(at_end) != whole


def test_entropy_by_hand() -> None:
    logits = logits_of([0.5, 0.5], [1.0 - 1e-12, 1e-12])
    assert float(negative_entropy(logits, torch.tensor([[True, False]]))) == pytest.approx(-LOG2)


def test_r_drop_is_half_the_sum_of_both_directions() -> None:
    p, q = logits_of([0.5, 0.5]), logits_of([0.25, 0.75])
    mask = torch.tensor([[True]])
    one = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    other = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert float(r_drop(p, q, mask)) == pytest.approx((one + other) / 2, rel=1e-5)
    assert float(r_drop(p, p, mask)) == pytest.approx(0, abs=1e-7)


def test_fgm_moves_each_example_by_the_length_it_is_given() -> None:
    gradient = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.2]]])
    moved = fgm_perturbation(gradient, 0.5)
    expected = torch.tensor([[[0.3, 0.0], [0.0, 0.4]], [[0.0, 0.0], [0.0, 0.5]]])
    torch.testing.assert_close(moved, expected)
    assert fgm_perturbation(torch.zeros(1, 2, 2), 1.0).tolist() == [[[0, 0], [0, 0]]]


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    labels = torch.tensor([[1, 4, IGNORED], [0, IGNORED, IGNORED]])
    teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    other = torch.randn(2, 3, 5, dtype=torch.float64)
    levels = torch.tensor([[1, 3, 5, 6], [2, 5, 0, 0]])
    reference = torch.randn(2, 4, dtype=torch.float64)
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    policy = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    functions = (
        lambda x: cross_entropy(x, labels),
        lambda x: sequence_log_probs(x, labels).sum(),
        lambda x: distillation(x, teacher, mask, temperature=2.0, forward=1.0, reverse=0.7),
        lambda x: negative_entropy(x, mask),
        lambda x: r_drop(x, other, mask),
    )
    for function in functions:
        assert torch.autograd.gradcheck(function, (logits,))
    assert torch.autograd.gradcheck(
        lambda x: listwise_dpo(x, reference, levels, beta=0.5, temperature=2.0), (policy,)
    )


@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=6),
    st.data(),
)
def test_raising_the_best_query_never_raises_the_loss(
    rewards: list[float], data: st.DataObject
) -> None:
    n = len(rewards)
    levels = torch.tensor([sorted(data.draw(st.lists(st.integers(1, 6), min_size=n, max_size=n)))])
    policy = torch.tensor([rewards])
    better = policy.clone()
    better[0, 0] += 1.0
    zero = torch.zeros_like(policy)
    before = float(listwise_dpo(policy, zero, levels, beta=1.0))
    assert float(listwise_dpo(better, zero, levels, beta=1.0)) <= before + 1e-4 * (1 + abs(before))
