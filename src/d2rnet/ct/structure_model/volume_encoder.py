"""What a volume encoder is, and the small one, ours.

Shapes: B volumes of Z x Y x X voxels, P = gz * gy * gx patches in raster order (x fastest), W width of an embedding.
"""

import torch
from torch import Tensor, nn

from d2rnet.ct.structure_model.positions import patch_positions
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.errors import ConfigError
from d2rnet.report.decoder.memory_transformer import EncoderLayer

Shape = tuple[int, int, int]
AIR = -1.0  # the lowest value of the window, of which padding is made
_LARGEST_STRIDE = 2


class VolumeEncoder(nn.Module):
    """From (B, 1, Z, Y, X) volumes in [-1, 1] to (B, P, W) patch embeddings.

    Attributes:
        grid_zyx: patches along each axis.
        width: W.
    """

    grid_zyx: Shape
    width: int

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        raise NotImplementedError


class _Neighbours(nn.Module):
    """A convolution of kernel 3 in a residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1), nn.GroupNorm(1, channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class SmallEncoder(VolumeEncoder):
    """3D convolutions of stride 2 down to one place per patch, then, if wanted, Transformer layers over the patches."""

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder with random weights.

        Raises:
            ConfigError: a patch side is no power of two, or heads do not divide the width.
        """
        super().__init__()
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        self.width = settings.width
        left = list(settings.patch_zyx)
        if any(side & (side - 1) for side in left):
            raise ConfigError(f"{settings.place}.patch_zyx: got {list(left)}; kind small expects powers of two.")
        if settings.layers and (settings.width % settings.num_heads or settings.width % 2):
            got = f"{settings.width} with num_heads {settings.num_heads}"
            raise ConfigError(f"{settings.place}.width: got {got}; expected an even multiple of it.")
        blocks: list[nn.Module] = []
        entering = 1
        leaving = settings.channels
        while max(left) > 1:
            z, y, x = (min(side, _LARGEST_STRIDE) for side in left)
            stride = (z, y, x)
            # Kernel and stride alike: what a place sees is centred on its patch. Kernel 3 with stride 2 would look aside.
            blocks += [nn.Conv3d(entering, leaving, stride, stride), nn.GroupNorm(1, leaving), nn.GELU()]
            if entering > 1:
                blocks.append(_Neighbours(leaving))
            left = [side // step for side, step in zip(left, stride, strict=True)]
            entering = leaving
            leaving *= 2
        self.blocks = nn.Sequential(*blocks)
        self.project = nn.Linear(entering, settings.width)
        self.norm = nn.LayerNorm(settings.width)  # else patches drown in their positions, which are several times as long
        self.layers = nn.ModuleList(
            EncoderLayer(settings.width, 2 * settings.width, settings.num_heads, dropout=0.0) for _ in range(settings.layers)
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        maps = self.blocks(volumes)  # (B, C, gz, gy, gx)
        patches: Tensor = self.norm(self.project(maps.flatten(2).transpose(1, 2)))  # (B, P, W)
        if len(self.layers):
            patches = patches + patch_positions(self.grid_zyx, self.width, like=patches)
            everything = torch.ones(1, 1, 1, patches.shape[1], dtype=torch.bool, device=patches.device)
            for layer in self.layers:
                patches = layer(patches, everything)
        return patches


def grid_of(shape_zyx: Shape, patch_zyx: Shape, place: str) -> Shape:
    """Return how many patches lie along each axis.

    Raises:
        ConfigError: patches do not fill the volume.
    """
    if any(side % patch for side, patch in zip(shape_zyx, patch_zyx, strict=True)):
        raise ConfigError(
            f"{place}.patch_zyx: got {list(patch_zyx)}; expected divisors of the volume's {list(shape_zyx)} voxels "
            "(ct.data.conversion.shape_zyx)."
        )
    gz, gy, gx = (side // patch for side, patch in zip(shape_zyx, patch_zyx, strict=True))
    return gz, gy, gx


def patch_mask(volumes: Tensor, grid_zyx: Shape) -> Tensor:
    """Return (B, P) bool: True where a patch of (B, 1, Z, Y, X) volumes holds anything but padded air.

    A volume of nothing else keeps all of its patches, for something must be looked at.
    """
    batch, _, *shape = volumes.shape
    sides = [side // count for side, count in zip(shape, grid_zyx, strict=True)]
    (gz, gy, gx), (pz, py, px) = grid_zyx, sides
    blocks = (volumes > AIR).view(batch, gz, pz, gy, py, gx, px)
    found = blocks.any(dim=6).any(dim=4).any(dim=2).flatten(1)  # (B, gz, gy, gx) -> (B, P)
    return found | ~found.any(dim=1, keepdim=True)


def in_order(sizes_zyx: Shape, axes: str) -> Shape:
    """Return sizes along z, y, x in another order of the axes, such as "zxy"."""
    first, second, third = (sizes_zyx["zyx".index(axis)] for axis in axes)
    return first, second, third


def turn(volumes: Tensor, axes: str) -> Tensor:
    """Return (B, 1, Z, Y, X) volumes with their axes in another order; a view."""
    return volumes.permute(0, 1, *(2 + "zyx".index(axis) for axis in axes))


def turn_back(tokens: Tensor, axes: str) -> Tensor:
    """(B, a, b, c, W) tokens, whose grid has this order of axes -> (B, P, W) in raster order z, y, x."""
    return tokens.permute(0, *(1 + axes.index(axis) for axis in "zyx"), 4).flatten(1, 3)
