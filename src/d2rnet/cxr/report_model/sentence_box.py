"""Sentences against boxes: one that names a class is nearer to its entry's boxes of that class than to boxes of other classes.

Ours: boxes have classes, and sentences name them, so positives need not be guessed from which image a report is of. Negatives
are the boxes of the whole batch whose class the sentence does not name; each class counts alike, however many boxes it has.

Shapes: M sentences of this process, n entries of it, B of all, K boxes of an entry (padded), L = B K, C classes, E width.
"""

import torch
from torch import Tensor

from d2rnet.training.collectives import first_row, gather_rows, num_processes, pad_over_processes, sum_over_processes
from d2rnet.training.contrastive import class_balanced_loss


def sentence_box_loss(
    sentences: Tensor,
    owners: Tensor,
    classes: Tensor,
    boxes: Tensor,
    box_mask: Tensor,
    category_ids: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Return this process's part of the mean over (sentence, class that it names and its entry has a box of).

    The mean of the result over processes is the loss of their whole batch.

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
    per_row = class_balanced_loss(scores[rows], positives[used], ~classes[rows], key_classes)
    return per_row.sum() * num_processes() / sum_over_processes(used.sum()).clamp(min=1)
