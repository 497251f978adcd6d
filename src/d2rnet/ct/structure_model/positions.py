"""Places of patches in a volume."""

import torch
from torch import Tensor

from d2rnet.report.decoder.attention import sinusoidal_positions


def patch_positions(grid_zyx: tuple[int, int, int], width: int, like: Tensor) -> Tensor:
    """Return (P, D) places of the P = gz * gy * gx patches, in raster order: sines and cosines of z, then y, then x.

    Args:
        grid_zyx: patches along each axis.
        width: D; what is left over of three even parts is zero.
        like: gives device and type.
    """
    part = width // 6 * 2  # even, so that sines and cosines pair
    along = [sinusoidal_positions(0, count, part, like) for count in grid_zyx]
    planes = [
        along[0][:, None, None].expand(*grid_zyx, part),
        along[1][None, :, None].expand(*grid_zyx, part),
        along[2][None, None, :].expand(*grid_zyx, part),
        like.new_zeros(*grid_zyx, width - 3 * part),
    ]
    return torch.cat(planes, dim=-1).flatten(0, 2)  # (gz, gy, gx, D) -> (P, D)
