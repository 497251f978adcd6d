"""Scores of images with reports by negative-aware attention, and the boundary that they need.

Source: the negative-aware attention framework (NAAF; Zhang et al., CVPR 2022). Differs: the boundary between matched and
mismatched words outlives a batch (moving average, over all processes).

Shapes: I images and B reports, R regions, U words, E width of the shared space.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.training.collectives import sum_over_processes
from d2rnet.training.contrastive import NOWHERE

LEAKY_SLOPE = 0.1
EPS = 1e-8
LEAST_STD = 1e-3


def word_scores(
    regions: Tensor, region_mask: Tensor, words: Tensor, word_mask: Tensor, *, boundary: Tensor, sharpness: float
) -> Tensor:
    """Score each image with each report (NAAF, sec. 3.2 and 3.3).

    Args:
        regions: (I, R, E) of length 1.
        region_mask: (I, R) bool, True where there is a region.
        words: (B, U, E) of length 1.
        word_mask: (B, U) bool.
        boundary: t, similarity above which a word counts as shown by a region.
        sharpness: lambda of the softmax over regions.

    Returns:
        (I, B) mean over words of: how far the best region stays below t (at most 0), cosine of the word and the regions
        above t that it attends to (0 if there is none), and similarity to all regions by relevance.
    """
    hidden = ~region_mask[:, None, None]  # (I, 1, 1, R)
    similarity = torch.einsum("ire,bue->ibur", regions, words)
    best = similarity.masked_fill(hidden, -1.0).amax(dim=-1)  # (I, B, U)
    mismatch = (best - boundary).clamp(max=0)

    shown = (similarity > boundary) & ~hidden
    weights = (sharpness * (similarity - boundary)).masked_fill(~shown, NOWHERE).softmax(dim=-1) * shown
    # |context|^2 through the products of regions: the context itself would be (I, B, U, E).
    products = regions @ regions.transpose(1, 2)  # (I, R, R)
    length = (torch.einsum("ibur,irs->ibus", weights, products) * weights).sum(dim=-1)
    shared = (weights * similarity).sum(dim=-1) / length.clamp(min=EPS).sqrt()

    lifted = F.leaky_relu(similarity, LEAKY_SLOPE) * word_mask[None, :, :, None]
    lifted = lifted / lifted.norm(dim=2, keepdim=True).clamp(min=EPS)
    relevance = (sharpness * lifted).masked_fill(hidden, NOWHERE).softmax(dim=-1)
    related = (relevance * similarity).sum(dim=-1)

    per_word = (mismatch + shared + related) * word_mask
    return per_word.sum(dim=-1) / word_mask.sum(dim=-1).clamp(min=1)


def best_similarities(regions: Tensor, region_mask: Tensor, words: Tensor) -> Tensor:
    """Return (I, B, U): the similarity of each word to its best region of each image."""
    similarity = torch.einsum("ire,bue->ibur", regions, words)
    return similarity.masked_fill(~region_mask[:, None, None], -1.0).amax(dim=-1)


def optimal_boundary(matched: tuple[Tensor, Tensor], mismatched: tuple[Tensor, Tensor], alpha: float) -> tuple[Tensor, Tensor]:
    """Find the boundary between two Gaussians of best similarities.

    It minimises ``E(t) = alpha P(mismatched > t) + P(matched < t)``; where its derivative vanishes is a root of
    ``A t^2 + B t + C``.

    Args:
        matched: mean and standard deviation of words of the image's own report, float64.
        mismatched: the same of words of other reports.
        alpha: what a mismatched word above t costs against a matched one below.

    Returns:
        t, and whether it is a boundary: a real root in [-1, 1] where E is below its value at both ends.
    """
    (mean_in, std_in), (mean_out, std_out) = matched, mismatched
    a = std_in**2 - std_out**2
    b = 2 * (mean_in * std_out**2 - mean_out * std_in**2)
    c = (mean_out * std_in) ** 2 - (mean_in * std_out) ** 2
    c = c + 2 * (std_in * std_out) ** 2 * torch.log(std_out / (alpha * std_in))
    discriminant = b**2 - 4 * a * c
    root = discriminant.clamp(min=0).sqrt()
    # The same root twice; the second form has no difference of near numbers, nor a division by a small A.
    t = torch.where(b > 0, -2 * c / (b + root), (root - b) / (2 * a))

    def cost(at: Tensor) -> Tensor:
        above = 0.5 * torch.erfc((at - mean_out) / (std_out * math.sqrt(2)))
        below = 0.5 * torch.erfc((mean_in - at) / (std_in * math.sqrt(2)))
        return alpha * above + below

    holds = (discriminant > 0) & (t.abs() <= 1) & (cost(t) < cost(-torch.ones_like(t))) & (cost(t) < cost(torch.ones_like(t)))
    return t, holds


class Boundary(nn.Module):
    """Moving boundary between similarities of matched and mismatched words."""

    value: Tensor

    def __init__(self, *, start: float, momentum: float, alpha: float) -> None:
        """Begin at ``start``; each step keeps the share ``momentum`` of the value before it."""
        super().__init__()
        self.momentum = momentum
        self.alpha = alpha
        self.register_buffer("value", torch.tensor(start, dtype=torch.float32))
        self._step: tuple[Tensor, Tensor] | None = None  # value before it, sums of its micro-batches so far

    @torch.no_grad()
    def update(self, best: Tensor, matched: Tensor, mismatched: Tensor) -> None:
        """Move towards the optimum of this batch, over all processes; stay where there is none.

        Micro-batches of one step count together: the value is that before the step, moved once by all so far.

        Args:
            best: (I, B, U) as of :func:`best_similarities`, images of this process.
            matched: bool, broadcastable to best: words of the image's own report.
            mismatched: likewise, words of other reports.
        """
        values = best.double()
        moments = torch.stack([values.new_ones(()).expand_as(values), values, values.square()])
        sums = [(moments * chosen).flatten(1).sum(dim=1) for chosen in (matched, mismatched)]
        total = sum_over_processes(torch.stack(sums))  # (2, 3): count, sum, sum of squares
        before = self.value.clone()
        if self._step is not None:
            before, earlier = self._step
            total = total + earlier
        self._step = (before, total)
        count = total[:, 0]
        mean = total[:, 1] / count.clamp(min=1)
        std = (total[:, 2] / count.clamp(min=1) - mean.square()).clamp(min=LEAST_STD**2).sqrt()
        t, holds = optimal_boundary((mean[0], std[0]), (mean[1], std[1]), self.alpha)
        moved = torch.lerp(t, before.double(), self.momentum).to(self.value.dtype)
        self.value.copy_(torch.where(holds & (count > 1).all(), moved, before))

    def after_step(self) -> None:
        """Let the next batch be another step."""
        self._step = None
