"""What teaches the report model of radiographs to read its lesion tokens: the classes that a report names. Ours.

Shapes: B entries, C lesion classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.finding_tokens import FindingTokens
from d2rnet.cxr.report_model.report_findings import report_classes
from d2rnet.report.interface import Encoded
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_task import EncodedLoss


class LesionLoss(EncodedLoss):
    """Cross entropy of the classes that a report names, doubtful ones included, as the metric of lesions counts them."""

    name = "lesion"

    def __init__(self, found: FindingTokens, vocabulary: Vocabulary, *, weight: float, dropout: float) -> None:
        """Take what is taught.

        Args:
            found: of the model.
            vocabulary: of the reports.
            weight: of the loss; with 1 a class counts as a token does.
            dropout: share of the named classes that the decoder is not told in training.
        """
        super().__init__()
        self.dropout = dropout
        self.vocabulary = vocabulary
        self.weight = weight
        self._tell = found.tell  # the model has the module

    def tell(self, encoded: Encoded, batch: ChestBatch) -> Encoded:
        """Tell the decoder the classes that the report names, in place of what was found; in training not all of them."""
        named = report_classes(batch.token_ids, self.vocabulary)
        if self.training and self.dropout:
            named &= torch.rand(named.shape, device=named.device) >= self.dropout
        return self._tell(encoded, named)

    def forward(self, encoded: Encoded, batch: ChestBatch) -> Tensor:
        """Return the weighted sum over entries and classes, in nats.

        Args:
            encoded: with ``findings``, unless B is 0.
            batch: the entries.
        """
        if encoded.findings is None:
            return encoded.tokens.sum()  # of none
        named = report_classes(batch.token_ids, self.vocabulary).float()  # (B, C)
        return self.weight * F.binary_cross_entropy_with_logits(encoded.findings.float(), named, reduction="sum")
