"""Sentences and the regions that the model looked at while it wrote them, such as lesion boxes.

A sentence has ``boxes``, places among the entry's regions, most attended first, and ``attended``, the one that stands out
most, listed or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d2rnet.report.generation import Written
from d2rnet.report.interface import Encoded
from d2rnet.report.model_files import LoadedModel
from d2rnet.report.text.protocols import SENTENCE_END, split_sentences


@dataclass(frozen=True)
class RegionGrounding:
    """Grounds sentences in an entry's boxes (see :class:`d2rnet.report.generation.Grounding`).

    Attributes:
        least_share: see :func:`ground_sentences`.
        least_contrast: likewise.
    """

    least_share: float
    least_contrast: float

    def __call__(
        self, loaded: LoadedModel, batch: Any, encoded: Encoded, token_ids: Tensor, written: Sequence[Written]
    ) -> list[list[dict[str, Any]]]:
        """Return ``text``, ``boxes`` and ``attended`` of each sentence of each report."""
        attention = loaded.model.region_attention(encoded, token_ids).cpu()  # (B, T, R)
        return [
            ground_sentences(
                report.tokens,
                shares[:, : len(report.entry.get("boxes", ()))],
                least_share=self.least_share,
                least_contrast=self.least_contrast,
                cut=report.cut,
            )
            for report, shares in zip(written, attention, strict=True)
        ]


def ground_sentences(
    tokens: list[str], attention: Tensor, *, least_share: float, least_contrast: float, cut: bool = False
) -> list[dict[str, Any]]:
    """Say which boxes each sentence looks at.

    Most of a box's share is the same for all sentences, whatever they say; what tells one from another is the contrast to
    the report's mean (docs/explanation/report-model.md has numbers). A report of one sentence has no contrast.

    Args:
        tokens: T tokens of a report.
        attention: (at least T, K) share of cross-attention that each of K lesions gets while a token is written.
        least_share: a box is listed if its mean share over the sentence's tokens is at least this ...
        least_contrast: ... and at least so many times its mean share over the report's tokens.
        cut: the report stopped at the length limit; a last sentence without its end gets no box, for it says nothing yet.

    Returns:
        ``text``, ``boxes`` (by falling share) and ``attended`` (the box whose share grows most over its mean of the report,
        listed or not; None where there is no box) of each sentence. The texts joined by spaces are the report.
    """
    sentences = split_sentences(tokens)
    has_contrast = len(sentences) > 1
    usual = attention[: len(tokens)].mean(dim=0).clamp(min=torch.finfo(attention.dtype).tiny)  # (K,)
    needed = (usual * least_contrast * has_contrast).clamp(min=least_share)
    grounded = []
    start = 0
    for sentence in sentences:
        shares = attention[start : start + len(sentence)].mean(dim=0)  # (K,)
        order = torch.argsort(shares, descending=True, stable=True).tolist()
        unfinished = cut and start + len(sentence) == len(tokens) and sentence[-1] != SENTENCE_END
        boxes = [] if unfinished else [box for box in order if shares[box] >= needed[box]]
        standing_out = shares / usual if has_contrast else shares
        attended = int(standing_out.argmax()) if order and not unfinished else None
        grounded.append({"text": " ".join(sentence), "boxes": boxes, "attended": attended})
        start += len(sentence)
    return grounded
