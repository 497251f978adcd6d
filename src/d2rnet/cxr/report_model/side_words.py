"""What teaches the report model of radiographs to tell left from right: words that name a side count for more. Ours.

A side is one word of twenty, so that a report with all sides guessed costs hardly more than one with all sides right.

Shapes: B entries, T token ids.
"""

import torch
from torch import Tensor

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.findings.mentions import names_side
from d2rnet.report.text.vocabulary import Vocabulary
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
        super().__init__(weight=weight)
        self.register_buffer("is_side", torch.tensor([names_side(token) for token in vocabulary.tokens]), persistent=False)

    def chosen(self, batch: ChestBatch) -> Tensor:
        """Return (B, T - 1) bool: the words that name a side; in a mirrored entry they are mirrored, too."""
        return self.is_side[batch.token_ids[:, 1:]]
