"""A CT volume as a page shows it: what the model saw, at a bounded size, in 256 levels of Hounsfield units.

A page holds at most MOST_VOXELS voxels, whatever the scan: they become coarser, never finer than the scan, and equal along all
axes where they must. Levels are closer where tissue differs by less: 4 HU a level in soft tissue, 9 in lung, 18 in bone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.conversion.grid import resample_part
from d2rnet.ct.volumes.volume import Millimetres, Volume

MOST_VOXELS = 1 << 22  # 2.3 mm a voxel for 36 cm of chest; 0.7 bytes a voxel once packed (docs/how-to/read-one-ct.md)
_KNOTS_HU = (-1024, -160, 240, 1300)  # ends of the lung, mediastinal and bone windows
_KNOTS_LEVEL = (0, 96, 196, 255)
LEVELS_HU = np.interp(np.arange(256), _KNOTS_LEVEL, _KNOTS_HU)


@dataclass(frozen=True)
class VolumeView:
    """A volume to look at.

    Attributes:
        levels: (Z, Y, X) uint8, places in LEVELS_HU; z to the head, y to the back, x to the patient's left.
        spacing_mm: (z, y, x).
    """

    levels: NDArray[np.uint8] = field(repr=False, compare=False)
    spacing_mm: Millimetres


def levels_of(hu: np.ndarray) -> NDArray[np.uint8]:
    """Return the level next to each Hounsfield unit; what is beyond the ends takes them.

    Args:
        hu: int16 of any shape.
    """
    table = np.rint(np.interp(np.arange(-(1 << 15), 1 << 15), _KNOTS_HU, _KNOTS_LEVEL)).astype(np.uint8)
    return table[hu.astype(np.int32) + (1 << 15)]


def view_of(volume: Volume, facts: Mapping[str, Any], *, most_voxels: int = MOST_VOXELS) -> VolumeView:
    """Return what a converted volume covers of its source, seen at the source's own spacing or as coarse as it must be.

    Args:
        volume: source.
        facts: of :func:`d2rnet.ct.conversion.grid.convert_volume`; its whole array, padding included, is covered exactly.
        most_voxels: of the result.
    """
    shape = np.array(facts["shape_zyx"])
    spacing = np.array(facts["spacing_mm"])
    extent_mm = shape * spacing
    start_mm = (np.array(facts["start_in_grid_zyx"]) - np.array(facts["grid_shape_zyx"]) / 2) * spacing
    coarse_mm = np.maximum(_coarsest(extent_mm, np.array(volume.spacing_mm), most_voxels), volume.spacing_mm)
    voxels = np.maximum(1, np.floor(extent_mm / coarse_mm + 1e-6)).astype(int)
    shown_mm = extent_mm / voxels
    hu = resample_part(volume, start_mm=_triple(start_mm), spacing_mm=_triple(shown_mm), shape_zyx=_triple(voxels))
    return VolumeView(levels_of(hu), _triple(shown_mm))


def _coarsest(extent_mm: np.ndarray, source_mm: np.ndarray, most_voxels: int) -> float:
    """Return the least spacing that, where the source is finer, keeps a grid over ``extent_mm`` within ``most_voxels``."""
    low, high = 0.0, float(extent_mm.max())
    for _ in range(40):
        middle = (low + high) / 2
        if np.prod(extent_mm / np.maximum(middle, source_mm)) > most_voxels:
            low = middle
        else:
            high = middle
    return high


def _triple(values: np.ndarray) -> Any:
    z, y, x = values.tolist()
    return z, y, x
