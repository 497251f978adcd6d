"""What teaches the report model of radiographs to tell left from right: words that name a side count for more. Ours.

A side is one word of twenty, so that a report with all sides guessed costs hardly more than one with all sides right.

Shapes: B entries, T token ids, W words of the vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.findings.mentions import names_side
from d2rnet.report.text.vocabulary import PAD_ID, Vocabulary
from d2rnet.report.training_task import TokenLoss


class SideWords(TokenLoss):
    """Cross entropy of the words that name a side, once more."""

    name = "side_words"
    is_side: Tensor

    def __init__(self, vocabulary: Vocabulary, *, weight: float) -> None:
        """Take the words.

        Args:
            vocabulary: of the model.
            weight: of the loss; with 1 these words count for twice what others do.
        """
        super().__init__()
        self.weight = weight
        self.register_buffer("is_side", torch.tensor([names_side(token) for token in vocabulary.tokens]), persistent=False)

    def forward(self, logits: Tensor, batch: ChestBatch) -> Tensor:
        """Return the weighted sum over these words, in nats.

        Args:
            logits: (B, T - 1, W) of tokens 1..; B may be 0.
            batch: the entries; in a mirrored one the words are, too.
        """
        targets = batch.token_ids[:, 1:]
        targets = targets.masked_fill(~self.is_side[targets], PAD_ID).flatten()
        return self.weight * F.cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=PAD_ID, reduction="sum")
