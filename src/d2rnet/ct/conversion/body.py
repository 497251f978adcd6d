"""Where the body lies in a volume, and which part of a grid is kept.

A crop round the middle of the picture cuts patients who lie off-centre, and a scan from neck to pelvis loses its lung tops.
"""

from collections.abc import Sequence

import numpy as np

from d2rnet.ct.volumes.chest import find_tissue
from d2rnet.ct.volumes.volume import Millimetres, Volume

_LEAST_SHARE = 0.1  # of the fullest row, column or slice: less is a cable, a blanket, noise


def body_window(
    volume: Volume, spacing_mm: Millimetres, grid_shape: Sequence[int], wanted_shape: Sequence[int]
) -> tuple[tuple[int, int, int], float, float]:
    """Return the first voxel of the grid that is kept, along z, y, x (negative: padding before it), and what is lost.

    Along y and x the result is centred on the body. Along z it is centred on the lungs where the body is longer than the
    result. It never pads on one side what it cuts on the other: a window inside the grid stays inside.

    Args:
        volume: source.
        spacing_mm: of the grid.
        grid_shape: voxels of the grid, which is centred on the source.
        wanted_shape: voxels of the result.

    Returns:
        The start, and the shares of the body's and of the lungs' voxels that lie outside.
    """
    tissue = find_tissue(volume)
    body, lungs, voxel_mm = tissue.body, tissue.lungs, tissue.voxel_mm
    start = [0, 0, 0]
    for axis in range(3):
        profile = body.sum(axis=tuple(other for other in range(3) if other != axis))
        if axis == 0 and lungs.any():
            profile = lungs.sum(axis=(1, 2))
        centre_mm = _centre(profile) * voxel_mm[axis]  # from the volume's edge
        grid_centre = centre_mm / spacing_mm[axis] - _half_excess(volume, spacing_mm, grid_shape, axis)
        spare = grid_shape[axis] - wanted_shape[axis]
        first = round(grid_centre - wanted_shape[axis] / 2)
        start[axis] = spare // 2 if spare <= 0 else int(np.clip(first, 0, spare))
    kept = []
    for axis in range(3):
        excess = _half_excess(volume, spacing_mm, grid_shape, axis)
        edges = (np.array([start[axis], start[axis] + wanted_shape[axis]]) + excess) * spacing_mm[axis] / voxel_mm[axis]
        low, high = np.clip(np.rint(edges).astype(int), 0, body.shape[axis])
        kept.append(slice(low, high))
    inside = (kept[0], kept[1], kept[2])
    return (start[0], start[1], start[2]), _outside(body, inside), _outside(lungs, inside)


def _outside(mask: np.ndarray, inside: tuple[slice, slice, slice]) -> float:
    """Return the share of a mask's voxels beyond a box; 0 for an empty one."""
    total = int(mask.sum())
    return 1 - int(mask[inside].sum()) / total if total else 0.0


def _half_excess(volume: Volume, spacing_mm: Millimetres, grid_shape: Sequence[int], axis: int) -> float:
    """Return where the grid's edge lies behind the volume's edge, in voxels of the grid (less than half of one)."""
    return (volume.hu.shape[axis] * volume.spacing_mm[axis] / spacing_mm[axis] - grid_shape[axis]) / 2


def _centre(profile: np.ndarray) -> float:
    """Return the middle of where a profile is above a share of its top, in its own steps from its edge."""
    if not profile.any():
        return len(profile) / 2
    filled = np.flatnonzero(profile >= _LEAST_SHARE * profile.max())
    return (filled[0] + filled[-1] + 1) / 2
