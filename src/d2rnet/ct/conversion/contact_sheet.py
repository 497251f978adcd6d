"""One picture of many converted volumes: three planes in a lung and a mediastinal window, for people to look at.

A row per volume: three axial slices and a coronal one in the lung window, then two axial slices, a coronal and a sagittal one
in the mediastinal window. Axial and coronal slices show the patient's right on the left, as radiologists hang them; the
sagittal slice has the front on the left. Voxels are drawn in their true proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.volumes.display_windows import LUNG, MEDIASTINUM, DisplayWindow, grey_levels
from d2rnet.files.atomic import atomic_path

TILE_PX = 150
LEVELS = (0.25, 0.5, 0.75)  # of the axial slices, from the feet
_GAP_PX = 3
_TITLE_PX = 15
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ShownVolume:
    """A volume to draw.

    Attributes:
        title: written above its row.
        hu: (Z, Y, X) Hounsfield units, LPS+.
        spacing_mm: (z, y, x).
    """

    title: str
    hu: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]


def draw_contact_sheet(volumes: Sequence[ShownVolume], target: Path) -> None:
    """Draw volumes into one PNG, atomically.

    Args:
        volumes: a row each; none makes an empty picture.
        target: file to write.
    """
    rows = [_row(volume) for volume in volumes] or [np.zeros((TILE_PX, TILE_PX), dtype=np.uint8)]
    encoded = cv2.imencode(".png", np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    with atomic_path(target) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _row(volume: ShownVolume) -> Picture:
    slices, rows, columns = volume.hu.shape
    z_mm, y_mm, x_mm = volume.spacing_mm
    low, middle, high = (volume.hu[int(level * (slices - 1))] for level in LEVELS)
    coronal = volume.hu[::-1, int(0.45 * rows)]  # head on top
    sagittal = volume.hu[::-1, :, columns // 2]
    axial_mm = (y_mm, x_mm)
    tiles = [
        *(_tile(plane, axial_mm, LUNG) for plane in (low, middle, high)),
        _tile(coronal, (z_mm, x_mm), LUNG),
        *(_tile(plane, axial_mm, MEDIASTINUM) for plane in (low, middle)),
        _tile(coronal, (z_mm, x_mm), MEDIASTINUM),
        _tile(sagittal, (z_mm, y_mm), MEDIASTINUM),
    ]
    for tile in tiles[:-1]:
        cv2.putText(tile, "R", (3, TILE_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255, 1, cv2.LINE_AA)
    gap = np.zeros((TILE_PX, _GAP_PX), dtype=np.uint8)
    pictures = np.hstack([part for tile in tiles for part in (tile, gap)])
    title = np.zeros((_TITLE_PX, pictures.shape[1]), dtype=np.uint8)
    cv2.putText(title, volume.title[:120], (3, _TITLE_PX - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, 230, 1, cv2.LINE_AA)
    return np.vstack([title, pictures])


def _tile(plane: NDArray[np.float32], spacing_mm: tuple[float, float], window: DisplayWindow) -> Picture:
    """Return a plane as a square picture, in true proportions, padded with black."""
    levels = grey_levels(plane, window)
    sides_mm = [side * mm for side, mm in zip(plane.shape, spacing_mm, strict=True)]
    height, breadth = (max(1, round(TILE_PX * side / max(sides_mm))) for side in sides_mm)
    resized = cv2.resize(levels, (breadth, height), interpolation=cv2.INTER_LINEAR)
    tile = np.zeros((TILE_PX, TILE_PX), dtype=np.uint8)
    top = (TILE_PX - height) // 2
    left = (TILE_PX - breadth) // 2
    tile[top : top + height, left : left + breadth] = resized
    return tile
