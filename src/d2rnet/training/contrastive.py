"""Contrastive losses between two sets of vectors."""

import torch
from torch import Tensor

NOWHERE = torch.finfo(torch.float32).min


def hardest_negative_loss(scores: Tensor, valid: Tensor, margin: float) -> Tensor:
    """Hinge with the hardest negative of the batch, image to report and report to image, mean over entries.

    Args:
        scores: (B, B), images by reports; the diagonal are the pairs.
        valid: (B,) bool, entries that take part.
        margin: by which a pair has to beat every other.
    """
    pairs = scores.diagonal()
    negative = valid[:, None] & valid & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    of_images = (margin + scores - pairs[:, None]).clamp(min=0) * negative
    of_reports = (margin + scores - pairs).clamp(min=0) * negative
    return (of_images.amax(dim=1) + of_reports.amax(dim=0)).sum() / valid.sum().clamp(min=1)


def soft_target_loss(scores: Tensor, valid: Tensor, likeness: Tensor, temperature: float) -> Tensor:
    """Cross entropy between shares by score and shares by likeness of reports, mean of both ways and over entries.

    Args:
        scores: (B, B), images by reports.
        valid: (B,) bool, entries that take part.
        likeness: (B, B) of reports, 1 for equal ones; symmetric.
        temperature: of both softmaxes.
    """
    outside = ~(valid[:, None] & valid)
    targets = (likeness / temperature).masked_fill(outside, NOWHERE).softmax(dim=1)
    logits = (scores / temperature).masked_fill(outside, NOWHERE)
    log_shares = (logits.log_softmax(dim=1) / 2 + logits.T.log_softmax(dim=1) / 2).masked_fill(outside, 0.0)
    per_entry = -(targets * log_shares).sum(dim=1)
    return (per_entry * valid).sum() / valid.sum().clamp(min=1)
