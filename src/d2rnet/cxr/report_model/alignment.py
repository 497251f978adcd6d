"""Alignment losses: regions of the image against words of the report (LAB and GAB). Training only.

Source: D2R-Net (Tang et al. 2025) names the Local and Global Alignment Block and shows no equation. Reconstructed from the
negative-aware attention framework (NAAF; Zhang et al., CVPR 2022), whose hyper-parameters the released argument list carries.
LAB: lesion tokens against the words of single sentences. GAB: patch features against the words of the whole report. Differs:
the boundary between matched and mismatched words outlives a batch (moving average, over all processes); with soft targets,
reports that say the same are no negatives of each other, which the many normal reports of a cohort otherwise are.

The grid of all images with all reports is computed at once: about 10 tensors of I x B x U x R float32 live at a time. At the
published sizes (32 images, 32 reports, 100 words, 144 patches) that is 0.6 GB each; larger grids are cut along the images and
computed again in the backward pass, so that no part has more than ``GRID_ELEMENTS`` numbers.

Shapes: I images and B reports (one each per entry), R regions, U words, E width of the shared space.
"""

import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from d2rnet.cxr.report_model.model import ChestTokens
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings
from d2rnet.errors import ConfigError
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.report.text_encoder import PretrainedTextEncoder, SmallTextEncoder, Words, encoder_files
from d2rnet.report.training_task import FurtherLosses
from d2rnet.training.collectives import first_row, gather_rows, pad_over_processes, sum_over_processes
from d2rnet.training.contrastive import NOWHERE, hardest_negative_loss, soft_target_loss

GRID_ELEMENTS = 2**26
LEAKY_SLOPE = 0.1
EPS = 1e-8
LEAST_STD = 1e-3
SAME_SPREAD = 1e-6


def word_scores(
    regions: Tensor, region_mask: Tensor, words: Tensor, word_mask: Tensor, *, boundary: Tensor, sharpness: float
) -> Tensor:
    """Score each image with each report (NAAF, sec. 3.2 and 3.3).

    Args:
        regions: (I, R, E) of length 1.
        region_mask: (I, R) bool, True where there is a region.
        words: (B, U, E) of length 1.
        word_mask: (B, U) bool.
        boundary: t, similarity above which a word counts as shown by a region.
        sharpness: lambda of the softmax over regions.

    Returns:
        (I, B) mean over words of: how far the best region stays below t (at most 0), cosine of the word and the regions
        above t that it attends to (0 if there is none), and similarity to all regions by relevance.
    """
    hidden = ~region_mask[:, None, None]  # (I, 1, 1, R)
    similarity = torch.einsum("ire,bue->ibur", regions, words)
    best = similarity.masked_fill(hidden, -1.0).amax(dim=-1)  # (I, B, U)
    mismatch = (best - boundary).clamp(max=0)

    shown = (similarity > boundary) & ~hidden
    weights = (sharpness * (similarity - boundary)).masked_fill(~shown, NOWHERE).softmax(dim=-1) * shown
    # |context|^2 through the products of regions: the context itself would be (I, B, U, E).
    products = regions @ regions.transpose(1, 2)  # (I, R, R)
    length = (torch.einsum("ibur,irs->ibus", weights, products) * weights).sum(dim=-1)
    shared = (weights * similarity).sum(dim=-1) / length.clamp(min=EPS).sqrt()

    lifted = F.leaky_relu(similarity, LEAKY_SLOPE) * word_mask[None, :, :, None]
    lifted = lifted / lifted.norm(dim=2, keepdim=True).clamp(min=EPS)
    relevance = (sharpness * lifted).masked_fill(hidden, NOWHERE).softmax(dim=-1)
    related = (relevance * similarity).sum(dim=-1)

    per_word = (mismatch + shared + related) * word_mask
    return per_word.sum(dim=-1) / word_mask.sum(dim=-1).clamp(min=1)


def best_similarities(regions: Tensor, region_mask: Tensor, words: Tensor) -> Tensor:
    """Return (I, B, U): the similarity of each word to its best region of each image."""
    similarity = torch.einsum("ire,bue->ibur", regions, words)
    return similarity.masked_fill(~region_mask[:, None, None], -1.0).amax(dim=-1)


def optimal_boundary(matched: tuple[Tensor, Tensor], mismatched: tuple[Tensor, Tensor], alpha: float) -> tuple[Tensor, Tensor]:
    """Find the boundary between two Gaussians of best similarities.

    It minimises ``E(t) = alpha P(mismatched > t) + P(matched < t)``; where its derivative vanishes is a root of
    ``A t^2 + B t + C``.

    Args:
        matched: mean and standard deviation of words of the image's own report, float64.
        mismatched: the same of words of other reports.
        alpha: what a mismatched word above t costs against a matched one below.

    Returns:
        t, and whether it is a boundary: a real root in [-1, 1] where E is below its value at both ends.
    """
    (mean_in, std_in), (mean_out, std_out) = matched, mismatched
    a = std_in**2 - std_out**2
    b = 2 * (mean_in * std_out**2 - mean_out * std_in**2)
    c = (mean_out * std_in) ** 2 - (mean_in * std_out) ** 2
    c = c + 2 * (std_in * std_out) ** 2 * torch.log(std_out / (alpha * std_in))
    discriminant = b**2 - 4 * a * c
    root = discriminant.clamp(min=0).sqrt()
    # The same root twice; the second form has no difference of near numbers, nor a division by a small A.
    t = torch.where(b > 0, -2 * c / (b + root), (root - b) / (2 * a))

    def cost(at: Tensor) -> Tensor:
        above = 0.5 * torch.erfc((at - mean_out) / (std_out * math.sqrt(2)))
        below = 0.5 * torch.erfc((mean_in - at) / (std_in * math.sqrt(2)))
        return alpha * above + below

    holds = (discriminant > 0) & (t.abs() <= 1) & (cost(t) < cost(-torch.ones_like(t))) & (cost(t) < cost(torch.ones_like(t)))
    return t, holds


class Boundary(nn.Module):
    """Moving boundary between similarities of matched and mismatched words."""

    value: Tensor

    def __init__(self, *, start: float, momentum: float, alpha: float) -> None:
        """Begin at ``start``; each step keeps the share ``momentum`` of the old value."""
        super().__init__()
        self.momentum = momentum
        self.alpha = alpha
        self.register_buffer("value", torch.tensor(start, dtype=torch.float32))

    @torch.no_grad()
    def update(self, best: Tensor, matched: Tensor, mismatched: Tensor) -> None:
        """Move towards the optimum of this batch, over all processes; stay where there is none.

        Args:
            best: (I, B, U) as of :func:`best_similarities`, images of this process.
            matched: bool, broadcastable to best: words of the image's own report.
            mismatched: likewise, words of other reports.
        """
        values = best.double()
        moments = torch.stack([values.new_ones(()).expand_as(values), values, values.square()])
        sums = [(moments * chosen).flatten(1).sum(dim=1) for chosen in (matched, mismatched)]
        total = sum_over_processes(torch.stack(sums))  # (2, 3): count, sum, sum of squares
        count = total[:, 0]
        mean = total[:, 1] / count.clamp(min=1)
        std = (total[:, 2] / count.clamp(min=1) - mean.square()).clamp(min=LEAST_STD**2).sqrt()
        t, holds = optimal_boundary((mean[0], std[0]), (mean[1], std[1]), self.alpha)
        moved = torch.lerp(t, self.value.double(), self.momentum).to(self.value.dtype)
        self.value.copy_(torch.where(holds & (count > 1).all(), moved, self.value))


class Alignment(FurtherLosses):
    """LAB and GAB with their text encoder, projections and boundaries."""

    rarity: Tensor

    def __init__(self, settings: AlignmentSettings, model: D2RNetModelSettings, vocabulary: Vocabulary) -> None:
        """Make what the losses need.

        Args:
            settings: which losses, and their numbers.
            model: of the model that is trained with them.
            vocabulary: of the model.

        Raises:
            ConfigError: LAB without lesion tokens, or a text encoder that cannot be made.
        """
        super().__init__()
        self.settings = settings
        self._kinds = {"local": settings.lab, "global": settings.gab}
        self._weights = {"local": settings.lab_weight, "global": settings.gab_weight}
        if settings.lab != "none" and model.lesion_branch == "none":
            raise ConfigError(
                f"cxr.report.training.alignment.lab: got '{settings.lab}', but cxr.report.model.lesion_branch is 'none' and "
                "leaves no lesion token to align. Set it to none, or the branch to roi_align or crop."
            )
        width = settings.embed_dim
        self.text_encoder = make_text_encoder(settings, vocabulary, dropout=model.dropout)
        self.words = nn.Linear(self.text_encoder.width, width)
        self.regions = nn.ModuleDict()
        self.boundaries = nn.ModuleDict()
        if settings.lab != "none":
            self.regions["local"] = nn.Linear(model.d_model, width)
        if settings.gab != "none":
            self.regions["global"] = nn.Linear(model.patch_channels, width)
        for block in self.regions:
            if self._kinds[block] != "mean":
                self.boundaries[block] = Boundary(
                    start=settings.boundary_start, momentum=settings.boundary_momentum, alpha=settings.alpha
                )
        counts = torch.tensor(vocabulary.counts, dtype=torch.float32)
        rarity = torch.log(counts.sum().clamp(min=1) / counts.clamp(min=1))
        rarity[: len(SPECIAL_TOKENS)] = 0
        self.register_buffer("rarity", rarity, persistent=False)

    def forward(self, visual: ChestTokens, token_ids: Tensor) -> dict[str, Tensor]:
        """Return the losses that are on, ``local_alignment`` and ``global_alignment``, each times its weight.

        Args:
            visual: of D2RNet.look, images of this process.
            token_ids: (n, T) of their reports.
        """
        losses = {}
        likeness = self._likeness(token_ids) if self.settings.targets == "soft" else None
        for block in self.regions:
            regions, region_mask = self._regions_of(block, visual)
            words = self.text_encoder(token_ids, by_sentence=block == "local")
            with torch.autocast(token_ids.device.type, enabled=False):
                regions = self._project(self.regions[block], regions)
                words = Words(self._project(self.words, words.features), words.mask)
                scores, valid = self._grid(block, regions, region_mask, words)
                if likeness is None:
                    loss = hardest_negative_loss(scores, valid, self.settings.margin)
                else:
                    loss = soft_target_loss(scores, valid, likeness, self.settings.soft_temperature)
            losses[f"{block}_alignment"] = self._weights[block] * loss
        return losses

    def values(self) -> dict[str, float]:
        """Return where the boundaries are: ``local_boundary`` and ``global_boundary``, where there are such."""
        return {f"{block}_boundary": float(cast(Boundary, kept).value) for block, kept in self.boundaries.items()}

    def _project(self, layer: nn.Module, features: Tensor) -> Tensor:
        return F.normalize(layer(features.float()), dim=-1)

    def _regions_of(self, block: str, visual: ChestTokens) -> tuple[Tensor, Tensor]:
        """Return regions before projection (n, R, C) and their mask; R is at least 1."""
        if block == "global":
            return visual.patches, visual.patch_mask
        num_patches = visual.patch_mask.shape[1]
        share = visual.patch_mask / visual.patch_mask.sum(dim=1, keepdim=True).clamp(min=1)
        whole = torch.einsum("bp,bpd->bd", share.to(visual.tokens.dtype), visual.tokens[:, :num_patches]).unsqueeze(1)
        boxless = ~visual.lesion_mask.any(dim=1, keepdim=True)
        whole_mask = boxless if self.settings.lab == "lesions_or_image" else torch.zeros_like(boxless)
        return torch.cat([whole.to(visual.lesions.dtype), visual.lesions], 1), torch.cat([whole_mask, visual.lesion_mask], 1)

    def _grid(self, block: str, regions: Tensor, region_mask: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Score all images with all reports of all processes: (B, B), and which entries take part: (B,)."""
        valid = gather_rows((region_mask.any(dim=1) & words.mask.any(dim=1)).byte()).bool()
        if self._kinds[block] == "mean":
            images = F.normalize(_masked_mean(regions, region_mask), dim=-1)
            reports = F.normalize(_masked_mean(words.features, words.mask), dim=-1)
            return gather_rows(images @ gather_rows(reports).T), valid
        word_mask = gather_rows(pad_over_processes(words.mask.byte(), 1)).bool()
        features = gather_rows(pad_over_processes(words.features, 1))
        boundary = cast(Boundary, self.boundaries[block])
        parts = max(1, math.ceil(regions.shape[0] * regions.shape[1] * word_mask.numel() / GRID_ELEMENTS))
        cut = max(1, math.ceil(len(regions) / parts))
        if self.training:
            with torch.no_grad():
                best = [
                    best_similarities(*part, features) for part in zip(regions.split(cut), region_mask.split(cut), strict=True)
                ]
            rows = torch.arange(len(regions), device=regions.device) + first_row(len(regions), regions.device)
            own = rows[:, None] == torch.arange(len(valid), device=regions.device)  # (n, B)
            in_words = (valid[rows][:, None] & valid)[:, :, None] & word_mask  # (n, B, U)
            boundary.update(torch.cat(best), in_words & own[:, :, None], in_words & ~own[:, :, None])
        t = boundary.value.clone()
        sharpness = self.settings.lambda_softmax

        def score(some: Tensor, some_mask: Tensor) -> Tensor:
            return word_scores(some, some_mask, features, word_mask, boundary=t, sharpness=sharpness)

        scores = [
            checkpoint(score, *part, use_reentrant=False) if parts > 1 else score(*part)
            for part in zip(regions.split(cut), region_mask.split(cut), strict=True)
        ]
        return gather_rows(torch.cat(scores)), valid

    @torch.no_grad()
    def _likeness(self, token_ids: Tensor) -> Tensor:
        """Cosine of the reports' word counts, rare words counting more: (B, B) float32, whatever autocast is on."""
        bags = self.rarity.new_zeros(len(token_ids), len(self.rarity))
        bags.scatter_add_(1, token_ids, torch.ones_like(token_ids, dtype=bags.dtype))
        bags = gather_rows(F.normalize(bags * self.rarity, dim=1))
        with torch.autocast(token_ids.device.type, enabled=False):
            return bags @ bags.T


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over dimension 1 of (B, N, E) where ``mask`` (B, N) is True; zero where it never is."""
    return (values * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def make_text_encoder(
    settings: AlignmentSettings, vocabulary: Vocabulary, *, dropout: float
) -> SmallTextEncoder | PretrainedTextEncoder:
    """Make the encoder that the settings ask for; ``dropout`` is the small one's."""
    if settings.text_encoder_weights is not None:
        return PretrainedTextEncoder(settings.text_encoder_weights, vocabulary, place=_text_weights(settings))
    encoder = SmallTextEncoder(
        vocabulary,
        width=settings.embed_dim,
        num_layers=settings.text_layers,
        num_heads=settings.text_heads,
        dropout=dropout,
        place=f"{settings.place}.embed_dim",
    )
    return encoder.let_context_count()


def _text_weights(settings: AlignmentSettings) -> str:
    return f"{settings.place}.text_encoder_weights"


def pretrained_files(settings: AlignmentSettings) -> dict[str, Path]:
    """Return the files of the pretrained text encoder, name -> path; none where none is used.

    Raises:
        FileNotFoundError: its folder is missing.
    """
    if settings.text_encoder_weights is None or settings.lab == settings.gab == "none":
        return {}
    return encoder_files(Path(settings.text_encoder_weights), place=_text_weights(settings))
