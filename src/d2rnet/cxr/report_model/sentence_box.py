"""Sentences against boxes: one that names a class is nearer to its entry's boxes of that class than to boxes of other classes.

Ours: boxes have classes, and sentences name them, so positives need not be guessed from which image a report is of. Negatives
are the boxes of the whole batch whose class the sentence does not name; each class counts alike, however many boxes it has.

Shapes: M sentences of this process, n entries of it, B of all, K boxes of an entry (padded), L = B K, C classes, E width,
N pairs of a sentence of this process and a class that it names and its entry has a box of.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.training.collectives import first_row, gather_rows, num_processes, pad_over_processes, sum_over_processes
from d2rnet.training.contrastive import NOWHERE, class_balanced_loss


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of sentence and class, against the boxes of all processes.

    Attributes:
        scores: (N, L) cosines over the temperature.
        positives: (N, L) bool, boxes of the sentence's entry and the pair's class.
        negative_classes: (N, C) bool, classes that the sentence does not name.
        key_classes: (L, C) bool, class of each box; none where there is no box.
    """

    scores: Tensor
    positives: Tensor
    negative_classes: Tensor
    key_classes: Tensor


def sentence_pairs(
    sentences: Tensor,
    owners: Tensor,
    classes: Tensor,
    boxes: Tensor,
    box_mask: Tensor,
    category_ids: Tensor,
    *,
    temperature: float,
) -> SentencePairs:
    """Compare the sentences of this process with the boxes of all.

    Args:
        sentences: (M, E) of length 1.
        owners: (M,) int64, entry of this process that a sentence is of.
        classes: (M, C) bool, what it names.
        boxes: (n, K, E) of length 1.
        box_mask: (n, K) bool.
        category_ids: (n, K) int64, 1 to C.
        temperature: of the cosines.
    """
    count = len(boxes)
    keys = gather_rows(pad_over_processes(boxes, 1)).flatten(0, 1)  # (L, E)
    there = gather_rows(pad_over_processes(box_mask.byte(), 1)).bool()  # (B, K)
    ids = gather_rows(pad_over_processes(category_ids, 1)).flatten() - 1  # (L,)
    entries = torch.arange(len(there), device=ids.device).repeat_interleave(there.shape[1])  # (L,)
    key_classes = (ids[:, None] == torch.arange(classes.shape[1], device=ids.device)) & there.flatten()[:, None]  # (L, C)

    own = entries == (owners + first_row(count, ids.device))[:, None]  # (M, L)
    positives = own.unsqueeze(1) & classes.unsqueeze(2) & key_classes.T  # (M, C, L)
    used = positives.any(dim=2)  # (M, C)
    scores = sentences @ keys.T / temperature  # (M, L)
    rows = used.nonzero()[:, 0]  # sentence of each pair of sentence and class
    return SentencePairs(scores[rows], positives[used], ~classes[rows], key_classes)


def sentence_box_loss(pairs: SentencePairs) -> Tensor:
    """Return this process's part of the mean over pairs; the mean of it over processes is the loss of their whole batch."""
    per_pair = class_balanced_loss(pairs.scores, pairs.positives, pairs.negative_classes, pairs.key_classes)
    count = torch.tensor(len(per_pair), device=per_pair.device)
    return per_pair.sum() * num_processes() / sum_over_processes(count).clamp(min=1)


@torch.no_grad()
def box_retrieval(pairs: SentencePairs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the share of pairs whose nearest box is a positive, what chance gives, and how many pairs there are.

    Over the pairs of all processes that have a negative. Of k boxes that are equally near each counts 1 / k.
    """
    negatives = (pairs.negative_classes.float() @ pairs.key_classes.float().T) > 0  # (N, L)
    told = negatives.any(dim=1)
    positives = pairs.positives[told]
    boxes = positives | negatives[told]
    scores = pairs.scores[told].masked_fill(~boxes, NOWHERE)
    nearest = boxes & (scores == scores.amax(dim=1, keepdim=True)) if len(scores) else boxes
    found = (nearest & positives).sum(dim=1) / nearest.sum(dim=1)
    by_chance = positives.sum(dim=1) / boxes.sum(dim=1)
    totals = sum_over_processes(torch.stack([found.sum(), by_chance.sum(), told.sum()]))
    return totals[0] / totals[2].clamp(min=1), totals[1] / totals[2].clamp(min=1), totals[2]
