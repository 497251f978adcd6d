"""Scores on the validation split while training: loss, BLEU-4 and reward of greedy reports, over all processes."""

from collections.abc import Iterable

import torch
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from torch import Tensor
from torch.nn import functional as F

from d2rnet.report.decoder.beam_search import SearchOptions
from d2rnet.report.interface import Batch, ReportModel
from d2rnet.report.rewards import Reward
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.scored_references import r2gen_cut
from d2rnet.report.text.vocabulary import PAD_ID
from d2rnet.training.collectives import gather_objects


def token_loss(logits: Tensor, token_ids: Tensor, *, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross entropy of tokens 1.., padding left out.

    Args:
        logits: (B, T - 1, W) of the model.
        token_ids: (B, T) from ``<bos>`` on.
        label_smoothing: share of probability spread over the vocabulary.

    Returns:
        Sum in nats, and number of tokens.
    """
    targets = token_ids[:, 1:].flatten()
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), targets, ignore_index=PAD_ID, label_smoothing=label_smoothing, reduction="sum"
    )
    return total, (targets != PAD_ID).sum()


@torch.no_grad()
def validate_model(
    model: ReportModel,
    batches: Iterable[Batch],
    *,
    vocabulary: ReportTokens,
    max_tokens: int,
    write_reports: bool,
    reward: Reward | None = None,
) -> dict[str, float]:
    """Score a model; its mode (training or evaluation) is left as it was.

    Args:
        model: on the device of the batches.
        batches: this process's part of the validation split; the scores are over all parts.
        vocabulary: token <-> id.
        max_tokens: length limit of greedy reports.
        write_reports: whether to write reports and score BLEU-4; writing costs most of the time.
        reward: what greedy reports earn, which are then written, too; None: nothing is earned.

    Returns:
        ``val_loss`` (nats per token); with ``write_reports`` ``val_bleu_4`` in [0, 1] against references as R2Gen scores
        them, the test's ``r2gen_exact`` (text/scored_references.py); with a reward ``val_reward``, its mean.
    """
    was_training = model.training
    model.eval()
    loss_sum = 0.0
    tokens = 0
    texts: list[tuple[str, str]] = []  # written, reference
    earned: list[float] = []
    for batch in batches:
        encoded = model.encode(batch)
        logits = model.logits(encoded, batch.token_ids)
        loss, count = token_loss(logits, batch.token_ids)
        loss_sum += float(loss)
        tokens += int(count)
        if write_reports or reward is not None:
            decoded = model.generate(encoded, SearchOptions(beam_size=1, max_tokens=max_tokens))
            earned += reward(batch.token_ids, decoded.token_ids).tolist() if reward is not None else []
            for written, reference in zip(decoded.token_ids.tolist(), batch.token_ids.tolist(), strict=True):
                kept = r2gen_cut(vocabulary.decode(reference), max_tokens=max_tokens)
                texts.append((" ".join(vocabulary.decode(written)), " ".join(kept)))
    model.train(was_training)
    parts = gather_objects((loss_sum, tokens, texts, earned))
    scores = {"val_loss": sum(part[0] for part in parts) / sum(part[1] for part in parts)}
    if write_reports:
        scorer = BleuScorer(n=4)
        for written, reference in (pair for part in parts for pair in part[2]):
            scorer += (written, [reference])
        scores["val_bleu_4"] = scorer.compute_score(option="closest")[0][3]
    if reward is not None:
        of_all = [value for part in parts for value in part[3]]
        scores["val_reward"] = sum(of_all) / len(of_all)
    return scores


def is_better(row: dict[str, float], best: dict[str, float], *, selection: str) -> bool:
    """Compare validation scores: lower loss, or higher BLEU-4 or reward; the loss decides between equal ones of these."""
    if not best:
        return True
    key = f"val_{selection}"
    if selection == "loss" or row[key] == best[key]:
        return row["val_loss"] < best["val_loss"]
    return row[key] > best[key]
