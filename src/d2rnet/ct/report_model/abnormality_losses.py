"""What makes the report model read: labels taught to the encoder, and sentences with abnormalities that weigh more. Ours.

A report has a hundred tokens, and most of what they cost is wording. What the volume decides are a few of them, so the decoder
learns to write long before it learns to look (docs/explanation/ct-method.md has what each part gives).

Shapes: N entries, B of a batch, L visual tokens, D width of the decoder, S structures, C labels, T token ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.evaluation.abnormalities import named_abnormalities
from d2rnet.ct.evaluation.baselines import known_labels
from d2rnet.ct.report_model.dataset import CtBatch
from d2rnet.ct.report_model.selection import OBSERVATION
from d2rnet.ct.report_model.settings import TrainCtReportModelSettings
from d2rnet.report.annotation_file import Entry
from d2rnet.report.interface import Encoded
from d2rnet.report.text.protocols import split_sentences
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_task import EncodedLoss, TokenLoss
from d2rnet.training.batches import Ragged


class AbnormalityLoss(EncodedLoss):
    """Cross entropy of the labels, by a linear layer on the encoded observation tokens of all structures."""

    name = "abnormality"
    labels: Tensor
    known: Tensor

    def __init__(
        self, labels: NDArray[np.bool_], known: NDArray[np.bool_], *, num_structures: int, d_model: int, weight: float
    ) -> None:
        """Take what is true of the entries.

        Args:
            labels: (N, C).
            known: (N, C), False where a label is not known; it then counts nowhere.
            num_structures: S.
            d_model: D.
            weight: of the loss; with 1 a label counts as a token does.
        """
        super().__init__()
        self.num_structures = num_structures
        self.weight = weight
        self.classify = nn.Linear(num_structures * d_model, labels.shape[1])
        self.register_buffer("labels", torch.from_numpy(labels), persistent=False)
        self.register_buffer("known", torch.from_numpy(known), persistent=False)

    def forward(self, encoded: Encoded, batch: CtBatch) -> Tensor:
        """Return the weighted sum over entries and labels, in nats.

        Args:
            encoded: of the entries.
            batch: the entries.
        """
        is_observation = (batch.kinds == OBSERVATION) & batch.mask  # (B, L)
        owners = F.one_hot(batch.structures.clamp(min=0), self.num_structures) * is_observation[..., None]  # (B, L, S)
        shares = owners / owners.sum(dim=1, keepdim=True).clamp(min=1)  # of a structure's observations, however often seen
        seen = shares.float().transpose(1, 2) @ encoded.tokens.float()  # (B, S, D); a language model's are bfloat16
        logits = self.classify(seen.flatten(1)).float()  # (B, C)
        labels = self.labels[batch.entry_numbers].float()
        known = self.known[batch.entry_numbers].float()
        return self.weight * F.binary_cross_entropy_with_logits(logits, labels, weight=known, reduction="sum")


class AbnormalityWords(TokenLoss):
    """Cross entropy of the tokens of sentences that name an abnormality, once more."""

    name = "abnormality_words"
    named: Tensor
    starts: Tensor

    def __init__(self, named: NDArray[np.bool_], lengths: NDArray[np.int64], *, weight: float) -> None:
        """Take the tokens of all entries.

        Args:
            named: (all tokens,) of :func:`named_tokens`.
            lengths: (N,) tokens of each report.
            weight: of the loss; with 1 these tokens count for twice what others do.
        """
        super().__init__(weight=weight)
        self.register_buffer("named", torch.from_numpy(named), persistent=False)
        self.register_buffer("starts", torch.from_numpy(np.cumsum(lengths) - lengths), persistent=False)

    def chosen(self, batch: CtBatch) -> Tensor:
        """Return (B, T - 1) bool: the tokens of sentences that name an abnormality; of padding, what the next report has."""
        steps = torch.arange(1, batch.token_ids.shape[1], device=batch.token_ids.device)
        places = self.starts[batch.entry_numbers][:, None] + steps  # (B, T - 1), of all reports end to end
        return self.named[places.clamp(max=len(self.named) - 1)]


def named_tokens(token_ids: Ragged, vocabulary: Vocabulary, names: Callable[[str], Sequence[str]]) -> NDArray[np.bool_]:
    """Say which tokens stand in a sentence that names an abnormality.

    Each different sentence is read once, by itself: what "it" stands for in the second of two is not known.

    Args:
        token_ids: of N reports, from ``<bos>`` on.
        vocabulary: of the ids.
        names: the abnormalities that a sentence says are there.

    Returns:
        (all tokens,) bool, the reports end to end; a sentence ends with its full stop, the last one with the report.
    """
    known: dict[str, bool] = {}
    named = np.zeros(token_ids.lengths.sum(), dtype=bool)
    for row, first in enumerate((np.cumsum(token_ids.lengths) - token_ids.lengths).tolist()):
        place = first + 1  # behind <bos>
        for sentence in split_sentences(vocabulary.decode(token_ids[row].tolist())):
            text = " ".join(sentence)
            if text not in known:
                known[text] = bool(names(text))
            named[place : place + len(sentence)] = known[text]
            place += len(sentence)
    return named


@dataclass(frozen=True)
class Abnormalities:
    """What the training split says, read once and handed to every training process.

    Attributes:
        labels: (N, C) bool.
        known: (N, C) bool, False where a label is not known.
        named: (all tokens,) of :func:`named_tokens`; None where all count alike.
        lengths: (N,) tokens of each report.
    """

    labels: NDArray[np.bool_]
    known: NDArray[np.bool_]
    named: NDArray[np.bool_] | None
    lengths: NDArray[np.int64]

    def losses(
        self, settings: TrainCtReportModelSettings, *, num_structures: int, d_model: int
    ) -> tuple[AbnormalityLoss | None, AbnormalityWords | None]:
        """Make the losses that the settings ask for.

        Args:
            settings: model and training.
            num_structures: S.
            d_model: D.
        """
        of_labels = of_words = None
        weight = settings.training.abnormality_loss
        if weight and settings.model.observations:
            sizes = {"num_structures": num_structures, "d_model": d_model}
            of_labels = AbnormalityLoss(self.labels, self.known, weight=weight, **sizes)
        if self.named is not None:
            of_words = AbnormalityWords(self.named, self.lengths, weight=settings.training.abnormality_weight - 1)
        return of_labels, of_words


def read_abnormalities(
    entries: Sequence[Entry], token_ids: Ragged, vocabulary: Vocabulary, settings: TrainCtReportModelSettings
) -> Abnormalities:
    """Read labels and sentences of the training split.

    Args:
        entries: N entries of ct_annotation.json.
        token_ids: of their reports.
        vocabulary: of the ids, unless they are those of a language model, whose tokens all count for 1.
        settings: model and training.
    """
    is_weighted = settings.training.abnormality_weight != 1 and settings.model.llm.weights is None
    named = named_tokens(token_ids, vocabulary, named_abnormalities) if is_weighted else None
    return Abnormalities(*known_labels(entries), named, token_ids.lengths)
