"""What the encoder finds, said to the decoder: a layer learns which classes a report names, and each that it finds is a token.

A report has a hundred tokens, and most of what they cost is wording, so the decoder learns to write long before it learns to
read its lesion tokens. Here a linear layer on the encoded tokens is taught the classes that reports name. With ``told`` the
decoder sees its answer, a token for each class that it finds, or one that says "nothing"; in training those that the report
names. PromptMRG (Jin et al., AAAI 2024) prompts a decoder with what a classifier finds in the same spirit; the form is ours.
With ``scores`` the layer starts from what the detector says: the log-odds of a class's surest box, times a learnt weight of
the class. With ``sides`` the token of a class says on which sides its boxes lie: a decoder that is told the classes reads less
of the lesion tokens, and then guesses sides.

Shapes: B entries, L visual tokens, D width, C lesion classes.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from d2rnet.cxr.report_model.settings import FOUND_AT
from d2rnet.report.interface import Encoded

LEAST_SCORE = 0.02  # of a class without a box, and as far from 1: log-odds of 3.9


class FindingTokens(nn.Module):
    """Finds classes in encoded tokens, and puts a token of each in front of them.

    Attributes:
        threshold: a class is found at this probability and more.
    """

    def __init__(self, *, num_classes: int, d_model: int, told: bool, sides: bool, scores: bool) -> None:
        """Make the layer and the tokens.

        Args:
            num_classes: C.
            d_model: D.
            told: whether the decoder sees what is found,
            sides: and on which sides it has boxes.
            scores: whether the layer sees the scores of boxes.
        """
        super().__init__()
        self.classify = nn.Linear(2 * d_model, num_classes)
        self.tokens = nn.Embedding(num_classes + 1, d_model) if told else None  # the last says "nothing"
        self.sides = nn.Linear(2, d_model, bias=False) if told and sides else None
        self.score_weight = nn.Parameter(torch.ones(num_classes)) if scores else None
        self.threshold = FOUND_AT

    def forward(self, encoded: Encoded, best: Tensor, sides: Tensor) -> Encoded:
        """Return the tokens with ``findings``; in front of them, where the decoder is told, the C + 1 tokens of findings.

        Args:
            encoded: L tokens, the last of them of lesions.
            best: (B, C) greatest score of a class's boxes, 0 without one; with 1, as a person's have, it is found whatever the
                layer says.
            sides: (B, C, 2) bool, classes with a box on the patient's left, and right.
        """
        first = encoded.tokens.shape[1] - encoded.num_regions
        parts = (slice(first, None), slice(first))  # lesions, everything else
        seen = [_mean(encoded.tokens[:, part], encoded.mask[:, part]) for part in parts]
        findings = self.classify(torch.cat(seen, dim=1))  # (B, C)
        if self.score_weight is not None:
            findings = findings + self.score_weight * torch.logit(best.float(), eps=LEAST_SCORE)
        if self.tokens is None:
            return replace(encoded, findings=findings)
        told = self.tokens.weight.to(encoded.tokens.dtype).expand(len(encoded.tokens), -1, -1)  # (B, C + 1, D)
        if self.sides is not None:
            placed = self.sides(sides.to(self.sides.weight.dtype)).to(told.dtype)  # (B, C, D)
            told = torch.cat([told[:, :-1] + placed, told[:, -1:]], dim=1)  # nothing is on no side
        absent = encoded.mask.new_zeros(told.shape[:2])
        longer = replace(
            encoded,
            tokens=torch.cat([told, encoded.tokens], dim=1),
            mask=torch.cat([absent, encoded.mask], dim=1),
            findings=findings,
        )
        return self.tell(longer, (findings.sigmoid() >= self.threshold) | (best == 1))

    def told(self, encoded: Encoded) -> Tensor | None:
        """Return (B, C) bool: the classes that :meth:`forward` or :meth:`tell` told the decoder; None if none ever is."""
        return None if self.tokens is None else encoded.mask[:, : self.tokens.num_embeddings - 1]

    def tell(self, encoded: Encoded, named: Tensor) -> Encoded:
        """Show the tokens of some classes and no others.

        Args:
            encoded: of :meth:`forward`.
            named: (B, C) bool.
        """
        if self.tokens is None:
            return encoded
        shown = torch.cat([named, ~named.any(dim=1, keepdim=True)], dim=1)  # (B, C + 1)
        return replace(encoded, mask=torch.cat([shown, encoded.mask[:, shown.shape[1] :]], dim=1))


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean, float32, of the tokens (B, n, D) that are there (B, n); zero where there is none."""
    total = (tokens.float() * mask.unsqueeze(-1)).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)
