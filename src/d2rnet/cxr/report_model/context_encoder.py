"""What an entry tells beside its images and boxes, for the encoder: view embeddings, and tokens of texts and earlier lesions.

Source: ideas of MLRG (Liu et al., CVPR 2025: view embeddings, tokens for an absent indication or report before) and of PriorRG
(Liu et al., 2025). Differs: their networks are others; earlier lesions as tokens (docs/explanation/report-model.md).

Each text has one token more than it has words, which is always there and says whether there is a text: "no study before" is
itself a fact (nothing can be "unchanged"), and attention that looks for it needs a place to go. Absent words and lesions are
masked, so that nothing is learnt from padding.

Shapes: B entries, V images per entry, T words of a text, Q earlier lesions (all padded), D model width.
"""

import torch
from torch import Tensor, nn

from d2rnet.cxr.report_model.context import MOST_OF_ONE_VIEW, NUM_VIEWS, ContextBatch
from d2rnet.cxr.report_model.lesion_encoder import POSITION_FREQUENCIES, position_features
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.report.decoder.attention import sinusoidal_positions


def small_embedding(rows: int, d_model: int, *, zero_row: int | None = None) -> nn.Embedding:
    """Make an embedding of standard deviation ``d_model ** -0.5``; ``zero_row`` is zero and stays so."""
    embedding = nn.Embedding(rows, d_model, padding_idx=zero_row)
    nn.init.normal_(embedding.weight, std=d_model**-0.5)
    if zero_row is not None:
        nn.init.zeros_(embedding.weight[zero_row])
    return embedding


class ViewEmbedding(nn.Module):
    """Says of each image which view it is, and tells images of one view apart."""

    def __init__(self, d_model: int) -> None:
        """Make embeddings of width ``d_model``; the first image of a view has its view's alone."""
        super().__init__()
        self.view = small_embedding(NUM_VIEWS, d_model)
        self.number = small_embedding(MOST_OF_ONE_VIEW, d_model, zero_row=0)

    def forward(self, context: ContextBatch) -> Tensor:
        """Return (B, V, D), to be added to all tokens of an image; meaningless for absent images."""
        return self.view(context.views) + self.number(context.view_numbers)


class TextTokens(nn.Module):
    """Words of one text as tokens, behind one that says whether there is a text."""

    def __init__(self, d_model: int, *, buckets: int, dropout: float) -> None:
        """Make the tokens of one kind of text; words are numbered from 1 to ``buckets``."""
        super().__init__()
        self.d_model = d_model
        self.words = small_embedding(buckets + 1, d_model, zero_row=0)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.kind = nn.Parameter(torch.zeros(d_model))
        self.is_there = small_embedding(2, d_model)

    def forward(self, word_ids: Tensor, is_there: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, 1 + T, D) tokens and their mask.

        Args:
            word_ids: (B, T), 0 behind a text.
            is_there: (B,) bool.
        """
        words = self.words(word_ids) * self.d_model**0.5
        words = words + sinusoidal_positions(0, word_ids.shape[1], self.d_model, like=words)
        words = self.dropout(self.norm(words)) + self.kind  # (B, T, D)
        first = self.is_there(is_there.long()).unsqueeze(1)  # (B, 1, D)
        mask = torch.cat([torch.ones_like(is_there).unsqueeze(1), word_ids != 0], dim=1)
        return torch.cat([first, words], dim=1) * mask.unsqueeze(-1), mask


class PriorLesions(nn.Module):
    """Lesions of the study before as tokens: class, score and place; its radiograph is not looked at."""

    def __init__(self, d_model: int, *, num_categories: int) -> None:
        """Make the tokens; class ids run from 1."""
        super().__init__()
        self.category = small_embedding(num_categories + 1, d_model, zero_row=0)
        self.score = nn.Linear(1, d_model, bias=False)
        self.position = nn.Linear(4 * (1 + 2 * POSITION_FREQUENCIES), d_model)
        self.norm = nn.LayerNorm(d_model)
        self.kind = small_embedding(1, d_model)  # says that a lesion is an earlier one

    def forward(self, context: ContextBatch) -> tuple[Tensor, Tensor]:
        """Return (B, Q, D) tokens and their mask."""
        mask = context.prior_category_ids != 0
        positions = context.prior_positions.reshape(-1, 4)
        of_place = self.position(position_features(positions).to(self.score.weight.dtype))
        of_place = of_place.view(*mask.shape, of_place.shape[1])  # (B, Q, D)
        of_score = self.score(context.prior_scores.unsqueeze(-1).to(self.score.weight.dtype))
        tokens = self.norm(self.category(context.prior_category_ids) + of_score + of_place) + self.kind.weight
        return tokens * mask.unsqueeze(-1), mask


class ContextEncoder(nn.Module):
    """Indication and the study before as tokens of the encoder, between patches and lesions."""

    def __init__(self, settings: D2RNetModelSettings, *, num_categories: int) -> None:
        """Make the parts that ``settings`` ask for; one at least."""
        super().__init__()
        width = settings.d_model
        buckets, dropout = settings.context_buckets, settings.dropout
        self.indication = TextTokens(width, buckets=buckets, dropout=dropout) if settings.indication else None
        self.report = TextTokens(width, buckets=buckets, dropout=dropout) if settings.prior else None
        self.lesions = PriorLesions(width, num_categories=num_categories) if settings.prior else None

    def forward(self, context: ContextBatch) -> tuple[Tensor, Tensor]:
        """Return (B, C, D) tokens and their mask: [indication ; report before ; lesions before]."""
        parts = []
        if self.indication is not None:
            parts.append(self.indication(context.indication_ids, (context.indication_ids != 0).any(dim=1)))
        if self.report is not None and self.lesions is not None:
            parts.append(self.report(context.prior_ids, context.has_prior))
            parts.append(self.lesions(context))
        return torch.cat([tokens for tokens, _ in parts], dim=1), torch.cat([mask for _, mask in parts], dim=1)


def make_context_encoder(settings: D2RNetModelSettings, *, num_categories: int) -> ContextEncoder | None:
    """Make the tokens that section ``cxr.report.model`` asks for; None where it asks for none."""
    return ContextEncoder(settings, num_categories=num_categories) if settings.indication or settings.prior else None
