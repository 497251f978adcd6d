"""Losses against hand-computed numbers."""

import math

import pytest
import torch

from d2rnet.cxr.detector.losses import (
    focal_loss,
    l1_loss,
    listen2student_l1,
    listen_mask,
    uncertainty_nll,
    weighted_objectness,
)

LN2 = math.log(2)


@pytest.mark.parametrize(("gamma", "expected"), [(0.0, 2 * LN2), (1.5, 2 * 0.5**1.5 * LN2), (2.0, 2 * 0.25 * LN2)])
def test_focal_loss_of_even_odds(gamma: float, expected: float) -> None:
    logits = torch.zeros(2, 2)
    assert focal_loss(logits, torch.tensor([0, 1]), gamma).item() == pytest.approx(expected)


def test_focal_loss_of_a_sure_proposal() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])  # p = 3/4 and 1/4
    expected = 0.25**1.5 * -math.log(0.75)
    assert focal_loss(logits, torch.tensor([0]), 1.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_focal_gradient_of_an_entirely_sure_proposal_is_zero(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0]), gamma).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0]]


def test_nll_by_hand() -> None:
    deltas = torch.tensor([[1.0, 0.0, 0.0, 2.0]])
    iou = torch.tensor([0.8])
    # sigma = 1/2: (1 + 4) / (2 / 4) = 10, four times log(1/4) / 2, and 2 log(2 pi)
    expected = 0.8 * (10 + 4 * 0.5 * math.log(0.25) + 2 * math.log(2 * math.pi))
    assert uncertainty_nll(deltas, torch.zeros(1, 4), torch.zeros(1, 4), iou).item() == pytest.approx(expected)


def test_nll_does_not_push_the_iou() -> None:
    iou = torch.tensor([0.8], requires_grad=True)
    deltas = torch.ones(1, 4, requires_grad=True)
    uncertainty_nll(deltas, torch.zeros(1, 4), torch.zeros(1, 4), iou).backward()
    assert iou.grad is None
    assert deltas.grad is not None
    assert deltas.grad.tolist() == [[pytest.approx(0.8 / 0.25)] * 4]


def test_nll_stays_finite_for_extreme_uncertainty() -> None:
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], requires_grad=True)
    loss = uncertainty_nll(torch.ones(1, 4), torch.zeros(1, 4), logits, torch.ones(1))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_l1_by_hand() -> None:
    assert l1_loss(torch.tensor([[1.0, -2.0, 0.5, 0.0]]), torch.zeros(1, 4)).item() == 3.5


@pytest.mark.parametrize(
    ("teacher_sigma", "student_sigma", "chosen"),
    [
        (0.2, 0.5, True),  # 0.8 against 0.5
        (0.2, 0.29, False),  # 0.8 against 0.71: not 0.1 better
        (0.55, 0.9, False),  # 0.45: not above the floor
        (0.45, 0.9, True),
        (0.5, 0.9, False),  # exactly the floor
    ],
)
def test_listen_mask(teacher_sigma: float, student_sigma: float, chosen: bool) -> None:
    mask = listen_mask(torch.tensor([[teacher_sigma]]), torch.tensor([[student_sigma]]), 0.1, 0.5)
    assert mask.tolist() == [[chosen]]


def test_only_chosen_boundaries_are_learned() -> None:
    deltas = torch.tensor([[1.0, 2.0, 4.0, 8.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True, False]])
    loss = listen2student_l1(deltas, torch.zeros(1, 4), mask)
    loss.backward()
    assert loss.item() == 5.0
    assert deltas.grad is not None
    assert deltas.grad.tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_objectness_is_weighted_and_ignores() -> None:
    logits, labels = torch.zeros(4), torch.tensor([1, 0, -1, 0])
    weights = torch.tensor([0.9, 0.5, 7.0, 0.0])
    assert weighted_objectness(logits, labels, weights).item() == pytest.approx(1.4 * LN2)


def test_objectness_is_the_formula() -> None:
    """0.9 * 0.126928 + 0.75 * 0.313262 + 0.9 * 0.974077 + 0.75 * 0.201413, worked out in plain arithmetic."""
    logits, labels = torch.tensor([2.0, -1.0, 0.5, -3.0, 1.5]), torch.tensor([1, 0, 0, -1, 1])
    weights = torch.tensor([0.9, 0.75, 0.9, 0.8, 0.75])
    assert weighted_objectness(logits, labels, weights).item() == pytest.approx(1.3769107, rel=1e-6)


def test_nothing_costs_nothing() -> None:
    none, no_weights = torch.zeros(0, 4), torch.zeros(0)
    assert focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 1.5).item() == 0
    assert uncertainty_nll(none, none, none, no_weights).item() == 0
    assert listen2student_l1(none, none, none.bool()).item() == 0
    assert weighted_objectness(no_weights, no_weights, no_weights).item() == 0
