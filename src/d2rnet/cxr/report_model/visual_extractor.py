"""Global branch: a radiograph to a map of features and to patch features for the encoder.

Source: D2R-Net (Tang et al., J Imaging Inform Med 2025): ResNet -> CPCA attention -> 1x1 convolution. CPCA: channel prior
convolutional attention (Huang et al., 2024). Differs: one channel; other networks than a ResNet (backbones.py).

Shapes: N images, S input side, C backbone channels, (h, w) map, P patch channels.
"""

from torch import Tensor, nn

from d2rnet.cxr.report_model.backbones import PIXEL_MEAN, PIXEL_STD, Convolutional, VisionTransformer

CHANNEL_REDUCTION = 4
STRIP_LENGTHS = (7, 11, 21)


class ChannelPriorAttention(nn.Module):
    """CPCA: channel attention, then a spatial map from depthwise strips of several lengths."""

    def __init__(self, channels: int) -> None:
        """Make the block for maps of ``channels`` channels; the output has as many."""
        super().__init__()
        hidden = max(1, channels // CHANNEL_REDUCTION)
        self.entry = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.channel_mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, (1, length), padding=(0, length // 2), groups=channels),
                nn.Conv2d(channels, channels, (length, 1), padding=(length // 2, 0), groups=channels),
            )
            for length in STRIP_LENGTHS
        )
        self.spatial = nn.Conv2d(channels, channels, 1)
        self.exit = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (N, C, h, w) -> (N, C, h, w)."""
        x = self.entry(x)
        mean = x.mean(dim=(2, 3), keepdim=True)
        peak = x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel_mlp(mean).sigmoid() + self.channel_mlp(peak).sigmoid())
        local = self.local(x)
        spatial = self.spatial(local + sum(strip(local) for strip in self.strips))
        return self.exit(spatial * x)


class VisualExtractor(nn.Module):
    """Image network, CPCA and projection."""

    def __init__(self, backbone: Convolutional | VisionTransformer, *, patch_channels: int, attention: bool) -> None:
        """Make the branch with random weights.

        Args:
            backbone: of backbones.py.
            patch_channels: channels of the patch features.
            attention: whether CPCA follows the backbone.
        """
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.stride = backbone.stride
        self.attention = ChannelPriorAttention(self.channels) if attention else nn.Identity()
        self.projection = nn.Conv2d(self.channels, patch_channels, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            pixels: (N, S, S) uint8.

        Returns:
            (N, C, h, w) map after CPCA, for pooling lesions, and (N, h * w, P) patch features, row by row.
        """
        x = (pixels.unsqueeze(1).to(self.projection.weight.dtype) / 255 - PIXEL_MEAN) / PIXEL_STD
        feature_map = self.attention(self.backbone(x))
        return feature_map, self.projection(feature_map).flatten(2).transpose(1, 2)
