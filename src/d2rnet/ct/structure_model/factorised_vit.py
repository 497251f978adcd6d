"""The factorised Vision Transformer of CT-CLIP (CT-ViT), from which the code released with arXiv 2603.04878 starts.

Source: arXiv 2305.16037 (CT-ViT) and ibrahimethemhamamci/CT-CLIP, whose state dict names every part; sizes in brackets are
those of its first release. What names do not tell:

- attention compares directions: queries and keys are of length 1, times a learnt vector each, times 8; keys and values are
  read from the layer's input before its norm;
- attention within a slab has a bias for each offset of two patches, by a small network from the logarithm of the offset;
- each layer begins with a depthwise 3 x 3 x 3 convolution over neighbouring patches, which sees none ahead along its first
  axis. In the layers over z that code reads its tokens in the order (y, x, z) as (z, y, x); for as many patches along each
  axis, as it always has, this is a convolution over (y, x, z), and that is what stands here for any grid.

Tokens are those before the code book, as in the released code; CT-CLIP's own contrast takes them after it.

Shapes: B volumes of Z x Y x X voxels, gz x gy x gx patches [16 x 16 x 16], P of them, W width [512], H heads [8] of 32.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.ct.structure_model.volume_encoder import Shape, VolumeEncoder, grid_of, in_order, turn, turn_back
from d2rnet.errors import ConfigError

HEAD_WIDTH = 32
SCALE = 8.0  # of the cosines of queries and keys
SLOPE = 0.1  # of the offset network's leaky ReLU
_BEHIND = 2  # patches that the convolution sees before its own along its first axis, and none after


class PatchEmbedding(nn.Module):
    """Voxels of a patch -> norm, linear, norm."""

    def __init__(self, voxels: int, width: int) -> None:
        super().__init__()
        self.norm_voxels = nn.LayerNorm(voxels)
        self.project = nn.Linear(voxels, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, volumes: Tensor, grid_zyx: Shape) -> Tensor:
        """(B, 1, Z, Y, X) -> (B, gz, gy, gx, W)."""
        batch, _, *shape = volumes.shape
        (gz, gy, gx), (pz, py, px) = grid_zyx, (side // count for side, count in zip(shape, grid_zyx, strict=True))
        blocks = volumes.reshape(batch, gz, pz, gy, py, gx, px)
        voxels = blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)  # (B, gz, gy, gx, pz * py * px)
        embedded: Tensor = self.norm(self.project(self.norm_voxels(voxels)))
        return embedded


class OffsetBias(nn.Module):
    """A bias of attention for each head and each offset of two patches of a slab (arXiv 2111.09883, section 3.3)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, num_heads)])

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return (H, N, N), N = rows * columns: for a query, then a key."""
        device = next(self.parameters()).device
        down = torch.arange(1 - rows, rows, device=device)
        right = torch.arange(1 - columns, columns, device=device)
        offsets = torch.cartesian_prod(down, right).float()  # (M, 2); M = (2 rows - 1) * (2 columns - 1) of the N * N pairs
        hidden = offsets.sign() * offsets.abs().log1p()
        for layer in self.layers[:-1]:
            hidden = F.leaky_relu(layer(hidden), SLOPE)
        table = self.layers[-1](hidden)  # (M, H)
        row = torch.arange(rows, device=device).repeat_interleave(columns)  # (N,), raster order
        column = torch.arange(columns, device=device).repeat(rows)
        # Offsets are a query's place minus a key's; -(rows - 1) stands first in the table.
        vertical = row[:, None] - row[None, :] + rows - 1
        horizontal = column[:, None] - column[None, :] + columns - 1
        biases: Tensor = table[vertical * (2 * columns - 1) + horizontal]  # (N, N, H)
        return biases.permute(2, 0, 1)


class CosineAttention(nn.Module):
    """Self-attention over directions: softmax(8 (q / |q| * s_q) (k / |k| * s_k) + bias) v."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        inner = num_heads * HEAD_WIDTH
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.query_scale = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.key_scale = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(R, N, W), bias (H, N, N) -> (R, N, W); R rows that do not see each other."""
        keys, values = self.key_value(x).chunk(2, dim=-1)  # the norm is the queries' alone
        query, key, value = (self._heads(part) for part in (self.query(self.norm(x)), keys, values))  # (R, H, N, 32)
        query = F.normalize(query, dim=-1) * self.query_scale
        key = F.normalize(key, dim=-1) * self.key_scale
        mask = None if bias is None else bias.unsqueeze(0)  # (1, H, N, N): a CPU has no kernel for three axes
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=SCALE)
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))  # (R, N, H * 32) -> (R, N, W)
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, HEAD_WIDTH)).transpose(1, 2)


class GatedFeedForward(nn.Module):
    """Norm, linear to twice two thirds of 4 W, one half times the GELU of the other, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = int(4 * (2 / 3) * width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        content, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = self.down(content * F.gelu(gate))
        return out


class FactorisedLayer(nn.Module):
    """Convolution over neighbours, attention over the last axes of the grid, feed-forward; each added to its input."""

    def __init__(self, width: int, num_heads: int, *, attended_axes: int) -> None:
        """Make the layer.

        Args:
            width: W.
            num_heads: H.
            attended_axes: how many of the last axes of the grid attend as one; the others are rows that do not see each other.
        """
        super().__init__()
        self.attended_axes = attended_axes
        self.neighbours = nn.Conv3d(width, width, 3, groups=width)
        self.attention = CosineAttention(width, num_heads)
        self.feed_forward = GatedFeedForward(width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, a, b, c, W) -> the same shape, for any order of the three axes of the grid."""
        padded = F.pad(x.movedim(-1, 1), (1, 1, 1, 1, _BEHIND, 0))  # (B, W, a + 2, b + 2, c + 2)
        x = x + self.neighbours(padded).movedim(1, -1)
        rows = x.flatten(0, 3 - self.attended_axes).flatten(1, -2)  # (R, N, W)
        rows = rows + self.attention(rows, bias)
        rows = rows + self.feed_forward(rows)
        return rows.view(x.shape)


class FactorisedViT(VolumeEncoder):
    """Patch embedding, layers within each slab of patches, then layers along z for each place in the plane."""

    def __init__(self, settings: VolumeEncoderSettings, shape_zyx: Shape) -> None:
        """Make the encoder with random weights.

        Args:
            settings: section ``ct.structure_model.model.encoder``; ``layers`` are made twice, in the plane and along z.
            shape_zyx: voxels of a volume.

        Raises:
            ConfigError: patches do not fill the volume, or there are no layers.
        """
        super().__init__()
        self.grid_zyx = grid_of(shape_zyx, settings.patch_zyx, settings.place)
        if settings.layers < 1:
            raise ConfigError(f"{settings.place}.layers: got 0; kind ct_vit expects 1 or more (released: 4).")
        self.width = settings.width
        self.recompute = settings.recompute
        self.axes = settings.axes
        self.patches = PatchEmbedding(math.prod(settings.patch_zyx), settings.width)
        self.offset_bias = OffsetBias(settings.width, settings.num_heads)
        self.in_plane = self._layers(settings, attended_axes=2)
        self.norm_in_plane = nn.LayerNorm(settings.width, bias=False)
        self.along_z = self._layers(settings, attended_axes=1)
        self.norm = nn.LayerNorm(settings.width, bias=False)

    def _layers(self, settings: VolumeEncoderSettings, *, attended_axes: int) -> nn.ModuleList:
        layers = (
            FactorisedLayer(settings.width, settings.num_heads, attended_axes=attended_axes) for _ in range(settings.layers)
        )
        return nn.ModuleList(layers)

    def forward(self, volumes: Tensor) -> Tensor:
        """(B, 1, Z, Y, X) in [-1, 1] -> (B, P, W)."""
        gz, gy, gx = in_order(self.grid_zyx, self.axes)  # the names are the network's: its slabs lie along its first axis
        x = self.patches(turn(volumes, self.axes), (gz, gy, gx))
        bias = self.offset_bias(gy, gx)
        for layer in self.in_plane:
            x = self._run(layer, x, bias)
        x = self.norm_in_plane(x).permute(0, 2, 3, 1, 4)  # (B, gy, gx, gz, W)
        for layer in self.along_z:
            x = self._run(layer, x, None)
        x = self.norm(x).permute(0, 3, 1, 2, 4)  # (B, gz, gy, gx, W)
        return turn_back(x, self.axes)

    def _run(self, layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(layer, x, bias, use_reentrant=False)
            return out
        out = layer(x, bias)
        return out
