"""Losses of Unbiased Teacher v2, as plain functions of tensors; every one is checked against hand-computed numbers.

Source: Unbiased Teacher v2, sec. 3.2-3.3 and the authors' configuration (gamma 1.5, NLL weight 0.05, margin 0.1, floor 0.5).
Shapes: R sampled proposals, F of them foreground, C classes, A anchors of a batch. All sums; the callers divide.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# sigma = sigmoid(-9) = 1.2e-4 of a tenth of the extent: far below what a pixel can resolve. Keeps 1 / sigma^2 finite.
SMALLEST_UNCERTAINTY_LOGIT = -9.0


def focal_loss(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Sum of focal losses on softmax cross entropy: ``(1 - p_target) ** gamma * -log p_target``.

    Args:
        logits: (R, C + 1), the last column is background.
        targets: (R,) int64 in [0, C].
        gamma: focusing exponent; 0 gives cross entropy.

    Returns:
        Scalar; 0 without proposals.
    """
    cross_entropy = F.cross_entropy(logits.float(), targets, reduction="none")
    # The least float keeps the gradient of a gamma below 1 finite where a proposal is entirely sure.
    doubt = (1.0 - torch.exp(-cross_entropy)).clamp(min=torch.finfo(torch.float32).tiny)
    return (doubt**gamma * cross_entropy).sum()


def uncertainty_nll(deltas: Tensor, targets: Tensor, uncertainty_logits: Tensor, iou: Tensor) -> Tensor:
    """Sum of Gaussian negative log likelihoods of the boundaries, each proposal weighted by its IoU with its target.

    ``IoU * (sum over boundaries of (d* - d)^2 / (2 sigma^2) + log(sigma^2) / 2, + 2 log(2 pi))``, sigma = sigmoid(logit).
    The IoU is detached: the authors let gradients flow through it, which rewards a lower IoU.

    Args:
        deltas: (F, 4) predicted deltas.
        targets: (F, 4) true deltas.
        uncertainty_logits: (F, 4).
        iou: (F,) IoU of the decoded box and its target.

    Returns:
        Scalar; 0 without foreground.
    """
    log_sigma = F.logsigmoid(uncertainty_logits.float().clamp(min=SMALLEST_UNCERTAINTY_LOGIT))
    squared = (targets.float() - deltas.float()) ** 2
    per_boundary = squared * torch.exp(-2.0 * log_sigma) / 2.0 + log_sigma
    return (iou.detach() * (per_boundary.sum(dim=1) + 2.0 * math.log(2.0 * math.pi))).sum()


def l1_loss(deltas: Tensor, targets: Tensor) -> Tensor:
    """Sum of absolute differences over (F, 4) deltas."""
    return (deltas.float() - targets.float()).abs().sum()


def listen_mask(teacher_sigma: Tensor, student_sigma: Tensor, margin: float, floor: float) -> Tensor:
    """Choose the boundaries on which the student listens to the teacher (Listen2Student).

    Args:
        teacher_sigma: (F, 4) uncertainty of the matched pseudo box's boundaries, in (0, 1).
        student_sigma: (F, 4) the student's own, in (0, 1).
        margin: how much more confident the teacher must be; confidence is 1 - sigma.
        floor: confidence that the teacher must exceed in any case.

    Returns:
        (F, 4) bool.
    """
    teacher = 1.0 - teacher_sigma
    student = 1.0 - student_sigma
    return (teacher > student + margin) & (teacher > floor)


def listen2student_l1(deltas: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Sum of absolute differences over the chosen boundaries only.

    Args:
        deltas: (F, 4) predicted deltas.
        targets: (F, 4) deltas towards the pseudo boxes.
        mask: (F, 4) bool of :func:`listen_mask`.
    """
    return ((deltas.float() - targets.float()).abs() * mask).sum()


def weighted_objectness(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Sum of binary cross entropies of anchors, each times its weight; ignored anchors (label -1) count nothing.

    Args:
        logits: (A,) objectness.
        labels: (A,) int: 1 lesion, 0 background, -1 ignored.
        weights: (A,) float, 1 for labelled images, the matched pseudo box's score for pseudo-labelled ones.
    """
    used = (labels >= 0).nonzero()[:, 0]  # a GPU is waited for once, not at each of the three selections
    losses = F.binary_cross_entropy_with_logits(logits[used].float(), labels[used].float(), reduction="none")
    return (losses * weights[used]).sum()
