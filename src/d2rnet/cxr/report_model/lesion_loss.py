"""What teaches the report model of radiographs to read its lesion tokens: the classes that a report names. Ours.

Shapes: N training entries, B of a batch, C lesion classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.finding_tokens import FindingTokens
from d2rnet.evaluation.clinical import named_matrix
from d2rnet.evaluation.labeller import Named
from d2rnet.report.interface import Encoded
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_task import EncodedLoss
from d2rnet.training.batches import Ragged


class LesionLoss(EncodedLoss):
    """Cross entropy of the classes that a report names."""

    name = "lesion"
    named: Tensor

    def __init__(self, found: FindingTokens, named: Named, *, weight: float, dropout: float) -> None:
        """Take what is taught.

        Args:
            found: of the model.
            named: (N, C) of :func:`classes_of_reports`.
            weight: of the loss; with 1 a class counts as a token does.
            dropout: share of the named classes that the decoder is not told in training.
        """
        super().__init__()
        self.weight = weight
        self.dropout = dropout
        self._tell = found.tell  # the model has the module
        self.register_buffer("named", torch.from_numpy(named), persistent=False)

    def tell(self, encoded: Encoded, batch: ChestBatch) -> Encoded:
        """Tell the decoder the classes that the report names, in place of what was found; in training not all of them."""
        named = self.named[batch.entry_numbers]  # (B, C)
        if self.training and self.dropout:
            named = named & (torch.rand(named.shape, device=named.device) >= self.dropout)
        return self._tell(encoded, named)

    def forward(self, encoded: Encoded, batch: ChestBatch) -> Tensor:
        """Return the weighted sum over entries and classes, in nats.

        Args:
            encoded: with ``findings``, unless B is 0.
            batch: the entries.
        """
        if encoded.findings is None:
            return encoded.tokens.sum()  # of none
        named = self.named[batch.entry_numbers].float()  # (B, C)
        return self.weight * F.binary_cross_entropy_with_logits(encoded.findings.float(), named, reduction="sum")


def classes_of_reports(token_ids: Ragged, vocabulary: Vocabulary) -> Named:
    """Read which classes reports name, doubtful ones included, as the metric of lesions counts them.

    A mirrored report names the same classes: they have no side.

    Args:
        token_ids: of N reports, cut as they are learnt.
        vocabulary: of the ids.

    Returns:
        (N, C) bool.
    """
    texts = [" ".join(vocabulary.decode(token_ids[row].tolist())) for row in range(len(token_ids.lengths))]
    return named_matrix(texts, uncertain_counts=True)
