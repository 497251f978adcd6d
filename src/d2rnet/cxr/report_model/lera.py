"""Lesion Region Enhancement Module (LERA): sharpens a lesion crop before its network, three channels in, three out.

Source: D2R-Net (Tang et al. 2025) names the module and keeps its code back. Reconstructed: its call is that of the
parallelized patch-aware attention block of HCF-Net (Xu et al., ICME 2024), written here from that paper's description.
Parallel branches (1x1 skip; patch-aware attention with patches of 2 and 4 pixels; three chained 3x3 convolutions) are summed,
then channel attention (ECA), spatial attention, dropout, batch norm, ReLU.

Shapes: N crops, C channels, (h, w) pixels, multiples of 4; p patch side.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.training.collectives import GlobalBatchNorm

PATCH_SIDES = (2, 4)
CHAIN_LENGTH = 3
CHANNEL_KERNEL = 3
SPATIAL_KERNEL = 7


class PatchAttention(nn.Module):
    """Patch-aware attention: each patch is weighed by its own pixels (local) and by a learnt pattern (global)."""

    def __init__(self, channels: int, patch: int, *, gate: str = "clamped") -> None:
        """Make the branch for patches of ``patch`` x ``patch`` pixels; ``gate`` is ``clamped`` or ``shifted``."""
        super().__init__()
        self.patch = patch
        self.gate = gate
        self.widen = nn.Linear(patch * patch, max(4, channels // 2))
        self.norm = nn.LayerNorm(self.widen.out_features)
        self.narrow = nn.Linear(self.widen.out_features, channels)
        self.pattern = nn.Parameter(torch.randn(channels))
        self.mix = nn.Linear(channels, channels, bias=False)
        self.exit = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (N, C, h, w) -> (N, C, h, w)."""
        side, (count, _, height, width) = self.patch, x.shape
        # Written out because pixel_unshuffle loses the shape of no crops at all.
        cells = x.mean(dim=1).view(count, height // side, side, width // side, side).transpose(2, 3)
        pixels = cells.reshape(count, height // side, width // side, side * side)
        features = self.narrow(self.norm(self.widen(pixels)).relu())  # (N, h / p, w / p, C)
        features = features * features.softmax(dim=-1)
        cosine = F.cosine_similarity(features, self.pattern, dim=-1).unsqueeze(-1)
        # With three channels, one branch in six begins with no patch above 0: silent, and never taught to speak.
        likeness = cosine.clamp(0, 1) if self.gate == "clamped" else (1 + cosine) / 2
        features = self.mix(features * likeness).permute(0, 3, 1, 2)
        return self.exit(F.interpolate(features, scale_factor=side, mode="bilinear", align_corners=False))


class LesionEnhancement(nn.Module):
    """LERA."""

    def __init__(self, channels: int, dropout: float, *, gate: str = "clamped") -> None:
        """Make the block for ``channels`` channels in and out; ``dropout`` leaves out whole channels; ``gate`` of patches."""
        super().__init__()
        self.skip = nn.Conv2d(channels, channels, 1)
        self.patches = nn.ModuleList(PatchAttention(channels, side, gate=gate) for side in PATCH_SIDES)
        self.chain = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), GlobalBatchNorm(channels), nn.ReLU())
            for _ in range(CHAIN_LENGTH)
        )
        self.channel_attention = nn.Conv1d(1, 1, CHANNEL_KERNEL, padding=CHANNEL_KERNEL // 2, bias=False)
        self.spatial_attention = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False)
        self.dropout = nn.Dropout2d(dropout)
        self.norm = GlobalBatchNorm(channels)

    def draw_channels(self, count: int, like: Tensor) -> Tensor:
        """Draw what dropout multiplies the channels of ``count`` crops with: (count, C, 1, 1), on the device of ``like``."""
        factors: Tensor = self.dropout(torch.ones(count, self.skip.out_channels, 1, 1, device=like.device))
        return factors

    def forward(self, x: Tensor, channel_factors: Tensor | None = None) -> Tensor:
        """Enhance crops: (N, C, h, w) -> (N, C, h, w), not negative; dropout as drawn before, or drawn here."""
        total = self.skip(x)
        for branch in self.patches:
            total = total + branch(x)
        link = x
        for convolution in self.chain:
            link = convolution(link)
            total = total + link
        means = total.mean(dim=(2, 3)).unsqueeze(1)  # (N, 1, C)
        total = total * self.channel_attention(means).sigmoid().transpose(1, 2).unsqueeze(-1)
        summary = torch.cat([total.mean(dim=1, keepdim=True), total.amax(dim=1, keepdim=True)], dim=1)
        summary = summary.contiguous(memory_format=torch.channels_last)
        total = total * self.spatial_attention(summary).sigmoid()
        total = self.dropout(total) if channel_factors is None else total * channel_factors
        return self.norm(total).relu()
