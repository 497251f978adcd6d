"""What a volume encoder is, and the small one, ours.

Shapes: B volumes of Z x Y x X voxels, P = gz * gy * gx patches in raster order (x fastest), W width of an embedding.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.ct.structure_model.positions import patch_positions
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.errors import ConfigError
from d2rnet.report.decoder.memory_transformer import EncoderLayer

Shape = tuple[int, int, int]
AIR = -1.0  # the lowest value of the window, of which padding is made
_PARTS = 2  # of a patch along each axis
_STATISTICS = 3  # of these parts
_ROUNDING = 1e-3  # of a level: what floats may lack
_LEVELS = 2000  # grey levels of [-1, 1] that ranges are told apart by: of 1 HU in a window of [-1000, 1000]


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


class SmallEncoder(VolumeEncoder):
    """Shares of grey ranges within a patch, two thin layers over patches and neighbours, then, if wanted, Transformer layers.

    A patch is described by how much of it lies in each range (air, emphysema, lung, fat, water, blood, bone ...): the mean
    over its eight parts, the most and the least of them, as square roots (Arandjelovic and Zisserman, CVPR 2012), so that a
    few voxels of bone count. Nothing is learnt below that, so that some hundred volumes and a laptop suffice. Ours.
    """

    range_of_level: Tensor

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder with random weights.

        Raises:
            ConfigError: an odd patch side, edges out of order, or heads do not divide the width.
        """
        super().__init__()
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        self.width = settings.width
        if any(side % _PARTS for side in settings.patch_zyx):
            raise ConfigError(f"{settings.place}.patch_zyx: got {list(settings.patch_zyx)}; kind small expects even sides.")
        if list(settings.edges) != sorted(set(settings.edges)):
            raise ConfigError(
                f"{settings.place}.edges: got {list(settings.edges)}; expected each greater than the one before."
            )
        if settings.layers and (settings.width % settings.num_heads or settings.width % 2):
            got = f"{settings.width} with num_heads {settings.num_heads}"
            raise ConfigError(f"{settings.place}.width: got {got}; expected an even multiple of it.")
        hidden = settings.channels
        self.ranges = len(settings.edges) + 1
        levels = torch.arange(_LEVELS + 1) / (_LEVELS / 2) - 1
        edges = torch.tensor(settings.edges)
        range_of_level = torch.bucketize(levels + _ROUNDING / _LEVELS, edges, right=True, out_int32=True)
        self.register_buffer("range_of_level", range_of_level, persistent=False)
        self.describe = nn.Conv3d(_STATISTICS * self.ranges, hidden, 1)
        self.neighbours = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, settings.width)
        self.norm = nn.LayerNorm(settings.width)  # else patches drown in their positions, which are several times as long
        self.layers = nn.ModuleList(
            EncoderLayer(settings.width, 2 * settings.width, settings.num_heads, dropout=0.0) for _ in range(settings.layers)
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        described = F.gelu(self.describe(self.shares(volumes)))
        with torch.autocast(volumes.device.type, enabled=False):
            # With AVX512-BF16 its gradient in bfloat16 is added to memory that was not written, where two patches lie along z.
            maps = described + F.gelu(self.neighbours(described.float()))  # (B, hidden, gz, gy, gx)
        patches: Tensor = self.norm(self.project(maps.flatten(2).transpose(1, 2)))  # (B, P, W)
        if len(self.layers):
            patches = patches + patch_positions(self.grid_zyx, self.width, like=patches)
            everything = torch.ones(1, 1, 1, patches.shape[1], dtype=torch.bool, device=patches.device)
            for layer in self.layers:
                patches = layer(patches, everything)
        return patches

    @torch.no_grad()
    def shares(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, 3 R, gz, gy, gx): mean, most, least of the parts' shares of R ranges, as roots.

        Channels lie next to each other in memory, where the convolutions behind it are fastest.
        """
        batch, _, *shape = volumes.shape
        gz, gy, gx = (_PARTS * count for count in self.grid_zyx)  # parts along each axis
        z, y, x = (
            torch.arange(side, device=volumes.device, dtype=torch.int32) // (side // parts)
            for side, parts in zip(shape, (gz, gy, gx), strict=True)
        )
        part = (z[:, None, None] * gy + y[:, None]) * gx + x  # (Z, Y, X), number of a voxel's part
        first = part.flatten() * self.ranges  # bin of the first range of a voxel's part
        counts = volumes.new_zeros(batch, gz * gy * gx * self.ranges, dtype=torch.float32)
        one = counts.new_ones(1).expand(first.shape)
        for volume, found in zip(volumes, counts, strict=True):  # one by one they stay in the processor's cache
            levels = volume.flatten().add(1).mul_(_LEVELS / 2).add_(_ROUNDING).int()
            bins = self.range_of_level.index_select(0, levels).add_(first)
            found.scatter_add_(0, bins.long(), one)
        voxels = prod(shape) / (gz * gy * gx)
        shares = counts.div_(voxels).sqrt_()
        split = shares.view(batch, gz // _PARTS, _PARTS, gy // _PARTS, _PARTS, gx // _PARTS, _PARTS, self.ranges)
        parts = split.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)  # (B, gz, gy, gx, 8, R)
        return torch.cat([parts.mean(dim=4), parts.amax(dim=4), parts.amin(dim=4)], dim=4).permute(0, 4, 1, 2, 3)


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
    blocks = volumes.view(batch, gz, pz, gy, py, gx, px)
    found = (blocks.amax(dim=2).amax(dim=3).amax(dim=4) > AIR).flatten(1)  # (B, gz, gy, gx) -> (B, P); slabs first is fastest
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
