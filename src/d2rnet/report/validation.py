"""Scores on the validation split while training: loss and BLEU-4 of greedy reports."""

from collections.abc import Iterable

import torch
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from torch import Tensor
from torch.nn import functional as F

from d2rnet.report.dataset import Batch
from d2rnet.report.decoding import SearchOptions
from d2rnet.report.model import ReportModel
from d2rnet.report.vocabulary import PAD_ID, Vocabulary


def token_loss(logits: Tensor, token_ids: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of tokens 1.. in nats, padding left out.

    Args:
        logits: (B, T - 1, W) of the model.
        token_ids: (B, T) from ``<bos>`` on.
        label_smoothing: share of probability spread over the vocabulary.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(), token_ids[:, 1:].flatten(), ignore_index=PAD_ID, label_smoothing=label_smoothing
    )


@torch.no_grad()
def validate_model(
    model: ReportModel, batches: Iterable[Batch], *, vocabulary: Vocabulary, max_tokens: int, write_reports: bool
) -> dict[str, float]:
    """Score a model; its mode (training or evaluation) is left as it was.

    Args:
        model: on the device of the batches.
        batches: the validation split.
        vocabulary: token <-> id.
        max_tokens: length limit of greedy reports.
        write_reports: whether to write reports and score BLEU-4, which costs most of the time.

    Returns:
        ``val_loss`` (nats a token) and, if reports are written, ``val_bleu_4`` in [0, 1] against references as encoded.
    """
    was_training = model.training
    model.eval()
    loss_sum, tokens = 0.0, 0
    scorer = BleuScorer(n=4)
    for batch in batches:
        encoded = model.encode(batch)
        logits = model.transformer(encoded.tokens, encoded.mask, batch.token_ids[:, :-1])
        count = int((batch.token_ids[:, 1:] != PAD_ID).sum())
        loss_sum, tokens = loss_sum + float(token_loss(logits, batch.token_ids)) * count, tokens + count
        if write_reports:
            decoded = model.generate(encoded, SearchOptions(beam_size=1, max_tokens=max_tokens))
            for written, reference in zip(decoded.token_ids.tolist(), batch.token_ids.tolist(), strict=True):
                scorer += (" ".join(vocabulary.decode(written)), [" ".join(vocabulary.decode(reference))])
    model.train(was_training)
    scores = {"val_loss": loss_sum / tokens}
    if write_reports:
        scores["val_bleu_4"] = scorer.compute_score(option="closest")[0][3]
    return scores
