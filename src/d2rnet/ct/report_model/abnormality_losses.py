"""What makes the report model read: labels taught to the encoder, and sentences with abnormalities that weigh more. Ours.

A report has a hundred tokens, and most of what they cost is wording. What the volume decides are a few of them, so the decoder
learns to write long before it learns to look (docs/explanation/ct-method.md has what each part gives).

Shapes: N entries, B of a batch, L visual tokens, D width of the decoder, S structures, C labels, T token ids.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.report_model.dataset import CtBatch
from d2rnet.ct.report_model.selection import OBSERVATION
from d2rnet.ct.report_model.settings import TrainCtReportModelSettings
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.report.training_task import EncodedLoss, TokenWeights
from d2rnet.training.batches import Ragged

SENTENCE_END = "."


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

    def forward(self, encoded: Tensor, batch: CtBatch) -> Tensor:
        """Return the weighted sum over entries and labels, in nats.

        Args:
            encoded: (B, L, D).
            batch: the entries.
        """
        is_observation = (batch.kinds == OBSERVATION) & batch.mask  # (B, L)
        owners = F.one_hot(batch.structures.clamp(min=0), self.num_structures) * is_observation[..., None]  # (B, L, S)
        shares = owners / owners.sum(dim=1, keepdim=True).clamp(min=1)  # of a structure's observations, however often seen
        seen = shares.to(encoded.dtype).transpose(1, 2) @ encoded  # (B, S, D)
        logits = self.classify(seen.flatten(1)).float()  # (B, C)
        labels = self.labels[batch.entry_numbers].float()
        known = self.known[batch.entry_numbers].float()
        return self.weight * F.binary_cross_entropy_with_logits(logits, labels, weight=known, reduction="sum")


class AbnormalityWeights(TokenWeights):
    """Tokens of sentences that name an abnormality count for more than the others."""

    named: Tensor
    starts: Tensor

    def __init__(
        self, token_ids: Ragged, vocabulary: Vocabulary, *, names: Callable[[str], Sequence[str]], weight: float
    ) -> None:
        """Read the sentences of all entries, each different one once.

        Args:
            token_ids: of N reports, from ``<bos>`` on.
            vocabulary: of the ids.
            names: the abnormalities that a sentence says are there.
            weight: of the tokens of a sentence that names any; 1 of others.
        """
        super().__init__()
        self.weight = weight
        self.register_buffer("named", torch.from_numpy(named_tokens(token_ids, vocabulary, names)), persistent=False)
        starts = torch.from_numpy(np.cumsum(token_ids.lengths) - token_ids.lengths)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, batch: CtBatch) -> Tensor:
        """Return (B, T - 1) float32 weights of tokens 1..; of padding, that of some token."""
        steps = torch.arange(1, batch.token_ids.shape[1], device=self.starts.device)
        places = self.starts[batch.entry_numbers][:, None] + steps  # (B, T - 1), of all reports end to end
        is_named = self.named[places.clamp(max=len(self.named) - 1)]
        return 1 + (self.weight - 1) * is_named.float()


def named_tokens(token_ids: Ragged, vocabulary: Vocabulary, names: Callable[[str], Sequence[str]]) -> NDArray[np.bool_]:
    """Say which tokens stand in a sentence that names an abnormality.

    Args:
        token_ids: of N reports, from ``<bos>`` on.
        vocabulary: of the ids.
        names: the abnormalities that a sentence says are there.

    Returns:
        (all tokens,) bool, the reports end to end; a sentence ends with its full stop, the last one with the report.
    """
    known: dict[tuple[int, ...], bool] = {}
    end = vocabulary.ids.get(SENTENCE_END)
    parts: list[NDArray[np.bool_]] = []
    for row in range(len(token_ids.lengths)):
        ids = token_ids[row]
        ends = np.flatnonzero(ids == end) + 1
        for sentence in np.split(ids, ends):
            key = tuple(sentence.tolist())
            if key not in known:
                known[key] = bool(names(" ".join(vocabulary.decode(key))))
            parts.append(np.full(len(key), known[key]))
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def further_losses(
    settings: TrainCtReportModelSettings,
    labels: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    token_ids: Ragged,
    vocabulary: Vocabulary,
    *,
    names: Callable[[str], Sequence[str]],
    num_structures: int,
    d_model: int,
) -> dict[str, Any]:
    """Return what the settings ask for, by its name in :func:`d2rnet.report.training_task.report_task`.

    Args:
        settings: model and training.
        labels: (N, C) of the training split, and which of them are known.
        token_ids: of its reports.
        vocabulary: of the ids, unless they are those of a language model.
        names: the abnormalities that a sentence says are there.
        num_structures: S.
        d_model: D.
    """
    found: dict[str, Any] = {}
    weight = settings.training.abnormality_loss
    if weight and settings.model.observations:
        found["encoded_loss"] = AbnormalityLoss(*labels, num_structures=num_structures, d_model=d_model, weight=weight)
    weight = settings.training.abnormality_weight
    if weight != 1 and settings.model.llm.weights is None:
        found["token_weights"] = AbnormalityWeights(token_ids, vocabulary, names=names, weight=weight)
    return found
