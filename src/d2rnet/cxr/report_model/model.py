"""D2R-Net: radiographs and boxes in, report logits out.

The decoder's memory is [patch features of all images ; lesion tokens], with a mask, as in D2R-Net (Tang et al. 2025); between
them stand tokens of what the entry tells beside images and boxes, where the settings ask for it.

Shapes: B entries, V images per entry, P patches per image, C tokens of the context, K lesions per entry, L = V P + C + K
visual tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.cxr.boxes.evidence import SIDES
from d2rnet.cxr.report_model.backbones import make_backbone
from d2rnet.cxr.report_model.context_encoder import ViewEmbedding, make_context_encoder
from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.finding_tokens import FindingTokens
from d2rnet.cxr.report_model.lesion_encoder import make_lesion_encoder
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.cxr.report_model.visual_extractor import VisualExtractor
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.interface import Encoded, ReportModel, VisualTokens, make_transformer


@dataclass
class ChestTokens(VisualTokens):
    """What both branches see: ``tokens`` is [embedded patches ; context ; lesion tokens], with the views of their images.

    Attributes:
        patches: (B, V P, C) patch features of all images of an entry.
        patch_mask: (B, V P) bool.
        lesions: (B, K, D) lesion tokens; K = 0 without a lesion branch.
        lesion_mask: (B, K) bool.
        best: (B, C) the greatest score of a class's lesions, 0 without one; 1 of those that a person drew without a score.
        sides: (B, C, 2) bool, classes with a lesion on the patient's left, and right.
    """

    patches: Tensor
    patch_mask: Tensor
    lesions: Tensor
    lesion_mask: Tensor
    best: Tensor
    sides: Tensor


class D2RNet(ReportModel):
    """Global branch, lesion branch and memory-driven Transformer."""

    transformer: MemoryTransformer

    def __init__(
        self,
        settings: D2RNetModelSettings,
        *,
        num_tokens: int,
        num_categories: int,
        backbone_config: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the model with random weights.

        Args:
            settings: sizes and branches.
            num_tokens: size of the vocabulary.
            num_categories: number of lesion classes.
            backbone_config: of :func:`backbone_facts`: what makes the image network beside the settings.

        Raises:
            ConfigError: d_model is odd or not a multiple of the numbers of heads.
        """
        super().__init__()
        self.extractor = VisualExtractor(
            make_backbone(settings, backbone_config),
            patch_channels=settings.patch_channels,
            attention=settings.channel_prior_attention,
        )
        self.patch_embedding = nn.Sequential(
            nn.Linear(settings.patch_channels, settings.d_model), nn.ReLU(), nn.Dropout(settings.patch_dropout)
        )
        self.lesion_encoder = make_lesion_encoder(
            settings, channels=self.extractor.channels, stride=self.extractor.stride, num_categories=num_categories
        )
        self.transformer = make_transformer(settings, num_tokens)
        # Last, so that the weights above are those of a seed with and without them.
        self.views = ViewEmbedding(settings.d_model) if settings.view_embedding else None
        self.context = make_context_encoder(settings, num_categories=num_categories)
        self.num_categories = num_categories
        self.findings: FindingTokens | None = None
        if settings.findings != "none":
            self.findings = FindingTokens(
                num_classes=num_categories,
                d_model=settings.d_model,
                told=settings.findings == "told",
                sides=settings.finding_sides and settings.lesion_branch != "none",
                scores=settings.finding_scores and settings.lesion_branch != "none",
            )

    def look(self, batch: ChestBatch) -> ChestTokens:
        """Run both visual branches."""
        feature_map, found = self.extractor(batch.pixels[batch.view_mask])  # N images that are there
        embedded = self.patch_embedding(found)  # (N, P, D)
        patches = _of_entries(found, batch.view_mask)  # (B, V P, C)
        tokens = _of_entries(embedded, batch.view_mask)  # (B, V P, D)
        patch_mask = batch.view_mask.repeat_interleave(found.shape[1], dim=1)  # (B, V P)
        lesions = tokens[:, :0]
        lesion_mask = patch_mask[:, :0]
        if self.lesion_encoder is not None:
            lesions = self.lesion_encoder(feature_map, batch)  # (B, K, D)
            lesion_mask = batch.lesion_mask
        shown = lesions.to(tokens.dtype)
        if self.views is not None:
            of_images = self.views(batch.context)  # (B, V, D)
            tokens = tokens + of_images.repeat_interleave(found.shape[1], dim=1) * patch_mask.unsqueeze(-1)
            shown = shown + _of_lesions(of_images, batch.lesion_view[:, : shown.shape[1]]) * lesion_mask.unsqueeze(-1)
        seen = [tokens, shown]
        masks = [patch_mask, lesion_mask]
        if self.context is not None:
            told, told_mask = self.context(batch.context)  # (B, C, D)
            seen.insert(1, told.to(tokens.dtype))
            masks.insert(1, told_mask)
        best, sides = self._of_classes(batch, lesion_mask)
        return ChestTokens(
            patches=patches,
            patch_mask=patch_mask,
            lesions=lesions,
            lesion_mask=lesion_mask,
            best=best,
            sides=sides,
            tokens=torch.cat(seen, dim=1),
            mask=torch.cat(masks, dim=1),
        )

    def _of_classes(self, batch: ChestBatch, lesion_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``best`` and ``sides`` of :class:`ChestTokens`, of the lesions (B, K) that are seen."""
        count = lesion_mask.shape[1]
        of_classes = nn.functional.one_hot(batch.category_ids[:, :count], self.num_categories + 1)[..., 1:]  # (B, K, C)
        seen = of_classes.bool() & lesion_mask.unsqueeze(-1)
        of_sides = nn.functional.one_hot(batch.lesion_sides[:, :count], len(SIDES))[..., 1:].bool()  # (B, K, 2)
        scores = seen * batch.scores[:, :count].unsqueeze(-1)  # (B, K, C)
        scores = torch.cat([scores, scores.new_zeros(len(scores), 1, self.num_categories)], dim=1)  # K may be 0
        sides = seen.unsqueeze(-1) & of_sides.unsqueeze(2)  # (B, K, C, 2)
        return scores.amax(dim=1), sides.any(dim=1)

    def encode_tokens(self, visual: Any) -> Encoded:
        """Run the encoder, and say to the decoder what it finds."""
        encoded = super().encode_tokens(visual)
        return encoded if self.findings is None else self.findings(encoded, visual.best, visual.sides)

    def num_regions(self, visual: ChestTokens) -> int:
        """Return K: the lesion tokens come last."""
        return visual.lesions.shape[1]


def _of_lesions(of_images: Tensor, lesion_view: Tensor) -> Tensor:
    """Give each lesion what its image has: (B, V, D) and image indices (B, K) -> (B, K, D)."""
    return of_images.gather(1, lesion_view.unsqueeze(-1).expand(-1, -1, of_images.shape[-1]))


def _of_entries(features: Tensor, view_mask: Tensor) -> Tensor:
    """Sort features of images into entries: (N, P, C) and mask (B, V) -> (B, V P, C), zero for absent images."""
    sorted_features = features.new_zeros(*view_mask.shape, *features.shape[1:])
    sorted_features[view_mask] = features
    return sorted_features.flatten(1, 2)
