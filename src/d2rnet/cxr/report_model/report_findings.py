"""What reports say is there, read off their tokens: the lesion classes of a report, and the sentences that name one.

By the mention extractor (findings/mentions.py), on the CPU; it keeps the results of sentences, which reports repeat. What the
vocabulary lacks is not seen. A class that is only doubted counts as named.

Shapes: B reports, T token ids, M sentences, C lesion classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mentions import named_classes
from d2rnet.report.text.protocols import split_sentences
from d2rnet.report.text.vocabulary import BOS_ID, PAD_ID, UNK_ID, Vocabulary

PLACES = {name: place for place, name in enumerate(CATEGORY_NAMES)}


@dataclass
class NamingSentences:
    """The sentences of some reports that name a class.

    Attributes:
        token_ids: (M, T') each from ``<bos>`` on, ``<pad>`` behind.
        owners: (M,) int64, the report that a sentence is of.
        classes: (M, C) bool.
    """

    token_ids: Tensor
    owners: Tensor
    classes: Tensor


def report_classes(token_ids: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Return (B, C) bool: the classes that each report (B, T) says are there."""
    rows = [_row(named_classes(" ".join(vocabulary.decode(ids)))) for ids in token_ids.tolist()]
    return torch.tensor(rows, dtype=torch.bool, device=token_ids.device).view(-1, len(CATEGORY_NAMES))


def naming_sentences(token_ids: Tensor, vocabulary: Vocabulary) -> NamingSentences:
    """Return the sentences of reports (B, T) that name a class, report by report."""
    rows: list[Tensor] = []
    owners: list[int] = []
    classes: list[list[bool]] = []
    for owner, ids in enumerate(token_ids.tolist()):
        for sentence in split_sentences(vocabulary.decode(ids)):
            if named := named_classes(" ".join(sentence)):
                rows.append(torch.tensor([BOS_ID, *(vocabulary.ids.get(token, UNK_ID) for token in sentence)]))
                owners.append(owner)
                classes.append(_row(named))
    padded = pad_sequence(rows, batch_first=True, padding_value=PAD_ID) if rows else token_ids.new_zeros(0, 2)
    device = token_ids.device
    return NamingSentences(
        token_ids=padded.to(device),
        owners=torch.tensor(owners, dtype=torch.long, device=device),
        classes=torch.tensor(classes, dtype=torch.bool, device=device).view(-1, len(CATEGORY_NAMES)),
    )


def _row(named: frozenset[str]) -> list[bool]:
    row = [False] * len(CATEGORY_NAMES)
    for name in named:
        row[PLACES[name]] = True
    return row


def jaccard(classes: Tensor, others: Tensor) -> Tensor:
    """Return how alike sets of classes (B, C) and others (K, C) are: shared over all, 1 if both are empty; (B, K) float32."""
    sets = classes.float()
    other_sets = others.float()
    shared = sets @ other_sets.T
    either = sets.sum(dim=1)[:, None] + other_sets.sum(dim=1) - shared
    return torch.where(either > 0, shared / either.clamp(min=1), torch.ones_like(shared))
