"""Local branch: each box becomes a lesion token that says what it is, where it is and what it looks like.

Source: D2R-Net (Tang et al. 2025) gives one vector a box to the decoder beside the patches, with absent boxes masked. Differs:
features are pooled from the backbone's map (RoIAlign) instead of a second network on full-resolution crops, and the token
also carries class, score and position, which the released model drops.

Shapes: B entries, V images an entry, K lesions an entry (padded), C map channels, D model width.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from d2rnet.report.dataset import Batch

POSITION_FREQUENCIES = 4


class LesionEncoder(nn.Module):
    """Boxes to lesion tokens."""

    def __init__(
        self, *, channels: int, stride: int, roi_size: int, d_model: int, num_categories: int, dropout: float
    ) -> None:
        """Make the branch.

        Args:
            channels: channels of the feature map.
            stride: input pixels a cell of the map.
            roi_size: RoIAlign cells a side.
            d_model: width of a token.
            num_categories: number of lesion classes; class ids run from 1.
            dropout: dropout of the pooled features.
        """
        super().__init__()
        self.roi_size, self.stride = roi_size, stride
        self.appearance = nn.Sequential(
            nn.Linear(channels * roi_size**2, d_model), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_model, d_model)
        )
        self.category = nn.Embedding(num_categories + 1, d_model, padding_idx=0)
        self.score = nn.Linear(1, d_model, bias=False)
        self.position = nn.Sequential(
            nn.Linear(4 * (1 + 2 * POSITION_FREQUENCIES), d_model), nn.ReLU(), nn.Linear(d_model, d_model)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, feature_map: Tensor, batch: Batch) -> Tensor:
        """Encode the lesions of a batch.

        Args:
            feature_map: (N, C, h, w) of the N images that ``batch.view_mask`` marks, in that order.
            batch: boxes, classes, scores and positions.

        Returns:
            (B, K, D) lesion tokens; rows that ``batch.lesion_mask`` leaves out are zero.
        """
        mask = batch.lesion_mask
        tokens = feature_map.new_zeros(*mask.shape, self.norm.normalized_shape[0])
        if not mask.any():
            return tokens
        pooled = self._pool(feature_map, batch).flatten(1)  # (L, C * roi_size ** 2), L lesions of the batch
        positions = position_features(batch.positions[mask])
        found = self.norm(
            self.appearance(pooled)
            + self.category(batch.category_ids[mask])
            + self.score(batch.scores[mask].unsqueeze(1).to(pooled.dtype))
            + self.position(positions.to(pooled.dtype))
        )
        return tokens.to(found.dtype).masked_scatter(mask.unsqueeze(-1), found)

    def _pool(self, feature_map: Tensor, batch: Batch) -> Tensor:
        """Pool the map inside each lesion's box: (L, C, roi_size, roi_size)."""
        image_index = (batch.view_mask.flatten().cumsum(0) - 1).view_as(batch.view_mask)  # (B, V): row in feature_map
        of_lesion = image_index.gather(1, batch.lesion_view)[batch.lesion_mask]  # (L,)
        boxes = batch.boxes_xyxy[batch.lesion_mask]
        rois = torch.cat([of_lesion.unsqueeze(1).to(boxes.dtype), boxes], dim=1)
        # torchvision's RoIAlign knows no bfloat16.
        pooled = roi_align(
            feature_map.float(), rois, self.roi_size, spatial_scale=1 / self.stride, sampling_ratio=2, aligned=True
        )
        return pooled.to(feature_map.dtype)


def position_features(positions: Tensor) -> Tensor:
    """Expand positions in [0, 1] by sines and cosines of 1, 2, 4 and 8 half turns: (L, 4) -> (L, 36).

    Side, zone and size in words are steps of the position; a smooth map of four raw numbers learns them slowly.
    """
    turns = math.pi * 2.0 ** torch.arange(POSITION_FREQUENCIES, device=positions.device, dtype=positions.dtype)
    angles = (positions.unsqueeze(-1) * turns).flatten(1)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=1)
