"""Local branch: each box becomes a lesion token that says what it looks like, what it is and where it is.

Source: D2R-Net (Tang et al. 2025): full-resolution crops through LERA and five convolutions, one vector per box, absent boxes
masked. Differs: all boxes of a batch go through the network at once; the token also carries class, score and position, which
the released model drops (each can be switched off); and features can be pooled from the backbone's map instead (RoIAlign).

Shapes: B entries, V images per entry, K lesions per entry (padded), L lesions of the batch, C map channels, D model width.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.lera import LesionEnhancement
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.training.chunks import run_in_chunks
from d2rnet.training.collectives import GlobalBatchNorm, most_over_processes, sum_over_processes

POSITION_FREQUENCIES = 4
CROP_CHANNELS = 3
CROP_STRIDES = (1, 2, 2, 2, 2)
LEAST_STD = 0.01


class RoiFeatures(nn.Module):
    """Appearance of lesions, pooled from the backbone's map."""

    def __init__(self, *, channels: int, stride: int, roi_size: int) -> None:
        """Take channels and stride (input pixels per cell) of the map and RoIAlign's cells per side."""
        super().__init__()
        self.roi_size = roi_size
        self.stride = stride
        self.width = channels * roi_size**2

    def forward(self, feature_map: Tensor, batch: ChestBatch) -> Tensor:
        """Pool the map (N, C, h, w) inside each lesion's box: (L, C * roi_size ** 2)."""
        image_index = (batch.view_mask.flatten().cumsum(0) - 1).view_as(batch.view_mask)  # (B, V): row in feature_map
        of_lesion = image_index.gather(1, batch.lesion_view)[batch.lesion_mask]  # (L,)
        boxes = batch.boxes_xyxy[batch.lesion_mask]
        rois = torch.cat([of_lesion.unsqueeze(1).to(boxes.dtype), boxes], dim=1)
        # torchvision's RoIAlign knows no bfloat16.
        pooled = roi_align(
            feature_map.float(), rois, self.roi_size, spatial_scale=1 / self.stride, sampling_ratio=2, aligned=True
        )
        return pooled.to(feature_map.dtype).flatten(1)


class CropFeatures(nn.Module):
    """Appearance of lesions, from their full-resolution crops."""

    def __init__(self, settings: D2RNetModelSettings) -> None:
        """Make the network from the settings of crops; LERA goes before it where it is the enhancement."""
        super().__init__()
        enhance = settings.lesion_enhancement == "lera"
        self.enhancement = LesionEnhancement(CROP_CHANNELS, settings.dropout, gate=settings.lera_gate) if enhance else None
        self.chunk = settings.crop_chunk
        self.inside_only = settings.crop_statistics == "box"
        first_width = settings.crop_width
        self.convolutions = nn.Sequential()
        incoming = CROP_CHANNELS
        for number, stride in enumerate(CROP_STRIDES):
            width = first_width * 2**number
            layers = (nn.Conv2d(incoming, width, 3, stride, padding=1, bias=False), GlobalBatchNorm(width), nn.ReLU())
            self.convolutions.append(nn.Sequential(*layers))
            incoming = width
        self.width = incoming

    def forward(self, feature_map: Tensor, batch: ChestBatch) -> Tensor:
        """Look at the crops of the lesions that are there: (L, width); the map lends its type only."""
        mask = batch.lesion_mask
        insides = batch.crop_insides[mask] if self.inside_only else None
        return self.of_crops(batch.crops[mask], insides, feature_map.dtype)

    def of_crops(self, crops: Tensor, insides: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Look at crops (L, S, S) uint8, in chunks where they are many: (L, width); ``insides`` as of normalise_crops."""
        if not self._are_too_many(crops):
            return self._look(crops, insides, None, dtype)
        factors = self.enhancement.draw_channels(len(crops), crops) if self.enhancement is not None else None

        def look(rows: slice) -> Tensor:
            inside = None if insides is None else insides[rows]
            kept = None if factors is None else factors[rows]
            return self._look(crops[rows], inside, kept, dtype)

        return run_in_chunks(self, look, count=len(crops), chunk=self.chunk)

    def _are_too_many(self, crops: Tensor) -> bool:
        """Whether crops go through in chunks; in training all processes say the same."""
        if not self.chunk:
            return False
        return (most_over_processes(len(crops), crops.device) if self.training else len(crops)) > self.chunk

    def _look(self, crops: Tensor, insides: Tensor | None, channel_factors: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Take crops (n, S, S) uint8 through the network: (n, width)."""
        seen = normalise_crops(crops, insides).to(dtype).expand(-1, CROP_CHANNELS, -1, -1)  # (n, C, S, S)
        # Channels side by side in memory: convolutions of few channels are several times faster so on a CPU.
        seen = seen.contiguous(memory_format=torch.channels_last)
        if self.enhancement is not None:
            seen = self.enhancement(seen, channel_factors)
        found: Tensor = self.convolutions(seen).mean(dim=(2, 3))
        return found


def normalise_crops(crops: Tensor, insides: Tensor | None = None) -> Tensor:
    """Give each crop mean 0 and standard deviation 1: (L, S, S) uint8 -> (L, 1, S, S) float32.

    The standard deviation counts as 0.01 of the grey range at least, so that an even crop stays even.

    Args:
        crops: padded squares.
        insides: (L, 4), see ``Sample.crop_insides``: both are of these pixels, and padding becomes 0. None: of the whole
            square, two thirds of which are black in a box of 3 to 1.
    """
    values = crops.unsqueeze(1).float() / 255
    if insides is None:
        centred = values - values.mean(dim=(2, 3), keepdim=True)
        variance = centred.square().mean(dim=(2, 3), keepdim=True)
    else:
        inside = _inside_mask(insides, values.shape[-1])
        count = inside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        centred = (values - (values * inside).sum(dim=(2, 3), keepdim=True) / count) * inside
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    return centred / variance.sqrt().clamp(min=LEAST_STD)


def _inside_mask(insides: Tensor, side: int) -> Tensor:
    """(L, 4) -> (L, 1, S, S), 1 inside and 0 on the padding."""
    places = torch.arange(side, device=insides.device)
    left, top, right, bottom = insides.unsqueeze(-1).unbind(dim=1)  # (L, 1) each
    columns = (places >= left) & (places < right)  # (L, S)
    rows = (places >= top) & (places < bottom)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1).float()


class LesionEncoder(nn.Module):
    """Boxes to lesion tokens."""

    def __init__(
        self,
        features: RoiFeatures | CropFeatures,
        *,
        d_model: int,
        num_categories: int,
        dropout: float,
        with_class: bool,
        class_dropout: float,
        with_score: bool,
        with_position: bool,
    ) -> None:
        """Make the branch.

        Args:
            features: where the appearance of a lesion comes from.
            d_model: width of a token.
            num_categories: number of lesion classes; class ids run from 1.
            dropout: dropout of the appearance.
            with_class: whether a token carries the class of its box,
            class_dropout: and which share of them does not in training,
            with_score: its score,
            with_position: its position and size in the image.
        """
        super().__init__()
        self.features = features
        self.appearance = nn.Sequential(
            nn.Linear(features.width, d_model), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_model, d_model)
        )
        self.category = nn.Embedding(num_categories + 1, d_model, padding_idx=0) if with_class else None
        self.class_dropout = class_dropout
        self.score = nn.Linear(1, d_model, bias=False) if with_score else None
        self.position = (
            nn.Sequential(nn.Linear(4 * (1 + 2 * POSITION_FREQUENCIES), d_model), nn.ReLU(), nn.Linear(d_model, d_model))
            if with_position
            else None
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, feature_map: Tensor, batch: ChestBatch) -> Tensor:
        """Encode the lesions of a batch.

        Args:
            feature_map: (N, C, h, w) of the N images that ``batch.view_mask`` marks, in that order.
            batch: boxes, crops, classes, scores and positions.

        Returns:
            (B, K, D) lesion tokens; rows that ``batch.lesion_mask`` leaves out are zero.
        """
        mask = batch.lesion_mask
        tokens = feature_map.new_zeros(*mask.shape, self.norm.normalized_shape[0])
        # In training, batch norm adds up over processes: one without a lesion has to take part where another has one.
        count = mask.sum()
        if not (sum_over_processes(count) if self.training else count):
            return tokens
        found = self.appearance(self.features(feature_map, batch))  # (L, D)
        if self.category is not None:
            found = found + self.category(self._shown_classes(batch.category_ids[mask]))
        if self.score is not None:
            found = found + self.score(batch.scores[mask].unsqueeze(1).to(found.dtype))
        if self.position is not None:
            found = found + self.position(position_features(batch.positions[mask]).to(found.dtype))
        found = self.norm(found)
        return tokens.to(found.dtype).masked_scatter(mask.unsqueeze(-1), found)

    def _shown_classes(self, category_ids: Tensor) -> Tensor:
        """Hide some classes (L,) in training: id 0 adds nothing to a token."""
        if not (self.training and self.class_dropout):
            return category_ids
        hidden = torch.rand(category_ids.shape, device=category_ids.device) < self.class_dropout
        return category_ids.masked_fill(hidden, 0)


def position_features(positions: Tensor) -> Tensor:
    """Expand positions in [0, 1] by sines and cosines of 1, 2, 4 and 8 half turns: (L, 4) -> (L, 36).

    Side, zone and size in words are steps of the position; a smooth map of four raw numbers learns them slowly.
    """
    turns = math.pi * 2.0 ** torch.arange(POSITION_FREQUENCIES, device=positions.device, dtype=positions.dtype)
    angles = (positions.unsqueeze(-1) * turns).flatten(1)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=1)


def make_lesion_encoder(
    settings: D2RNetModelSettings, *, channels: int, stride: int, num_categories: int
) -> LesionEncoder | None:
    """Make the branch that section ``cxr.report.model`` asks for.

    Args:
        settings: section ``cxr.report.model``.
        channels: channels of the backbone's map.
        stride: input pixels per cell of the map.
        num_categories: number of lesion classes.

    Returns:
        None for the branch ``none``.
    """
    if settings.lesion_branch == "none":
        return None
    appearance: RoiFeatures | CropFeatures
    if settings.lesion_branch == "roi_align":
        appearance = RoiFeatures(channels=channels, stride=stride, roi_size=settings.lesion_roi_size)
    else:
        appearance = CropFeatures(settings)
    return LesionEncoder(
        appearance,
        d_model=settings.d_model,
        num_categories=num_categories,
        dropout=settings.dropout,
        with_class=settings.lesion_class,
        class_dropout=settings.lesion_class_dropout,
        with_score=settings.lesion_score,
        with_position=settings.lesion_position,
    )
