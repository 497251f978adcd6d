"""One CT volume to an array of wanted spacing, size, window and depth, slice by slice.

Axes (z, y, x) of LPS+ throughout. Interpolation is trilinear and separable: along z two slices (more where the kernel is
widened) are mixed, then rows of the mixed slice, then its columns; a slice is finished before the next is begun, so that
memory holds the source, the result and a few slices. Spacing is exact: the centre of the new grid is that of the old one, and
its outermost voxels may lie up to half a voxel beyond the source, whose border voxel they take.

Crop and pad follow the body (:mod:`d2rnet.ct.conversion.body`), and only what is kept is computed. Padding is air.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from d2rnet.ct.conversion.body import body_window
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.volumes.volume import AIR_HU, Millimetres, Volume

UINT8_LEVELS = 255


@dataclass(frozen=True)
class ConvertedVolume:
    """A volume ready to be stored.

    Attributes:
        array: (Z, Y, X), uint8 levels of the window or int16 HU.
        spacing_mm: (z, y, x).
        facts: what was read, decided and cut off, as JSON values.
    """

    array: np.ndarray
    spacing_mm: Millimetres
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Taps:
    """Interpolation along one axis.

    Attributes:
        index: (n, taps) source indices.
        weight: (n, taps) float32, each row summing to 1.
    """

    index: np.ndarray
    weight: np.ndarray


def convert_volume(volume: Volume, settings: CtConversionSettings) -> ConvertedVolume:
    """Resample, crop or pad round the body, window and quantise a volume.

    Args:
        volume: as :func:`d2rnet.ct.volumes.reader.read_volume` returns it.
        settings: grid, window, bits.

    Returns:
        The converted volume; its facts say source shape and spacing, where the window of the new grid lies, and how much of
        the body is outside.
    """
    source_shape = volume.hu.shape
    grid_shape = tuple(
        max(1, round(side * old / new))
        for side, old, new in zip(source_shape, volume.spacing_mm, settings.spacing_mm, strict=True)
    )
    start, outside = body_window(volume, settings.spacing_mm, grid_shape, settings.shape_zyx)
    taps = [
        _taps(
            source_shape[axis],
            volume.spacing_mm[axis],
            settings.spacing_mm[axis],
            grid_shape[axis],
            start[axis],
            settings.shape_zyx[axis],
            antialias=settings.antialias,
        )
        for axis in range(3)
    ]
    low, high = settings.window_hu
    dtype = np.uint8 if settings.bits == 8 else np.int16
    air = _quantised(np.array([AIR_HU], np.float32), low, high, settings.bits)[0]
    array = np.full(settings.shape_zyx, air, dtype)
    first = [max(0, -offset) for offset in start]  # of the result, where the grid begins
    for z, resampled in enumerate(_slices(volume.hu, taps), start=first[0]):
        rows, columns = resampled.shape
        kept = array[z, first[1] : first[1] + rows, first[2] : first[2] + columns]
        kept[:] = _quantised(resampled, low, high, settings.bits)
    facts = {
        "file_format": volume.file_format,
        "source_shape_zyx": list(source_shape),
        "source_spacing_mm": [round(side, 5) for side in volume.spacing_mm],
        "hu_source": volume.hu_source,
        "notes": list(volume.notes),
        "spacing_mm": list(settings.spacing_mm),
        "shape_zyx": list(settings.shape_zyx),
        "window_hu": list(settings.window_hu),
        "bits": settings.bits,
        "start_in_grid_zyx": list(start),
        "grid_shape_zyx": list(grid_shape),
        "body_outside_fraction": round(outside, 4),
    }
    return ConvertedVolume(array, settings.spacing_mm, facts)


def to_hounsfield_units(array: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """Return float32 HU of a converted array; of uint8, to half a level.

    Args:
        array: (..., Z, Y, X) uint8 or int16.
        window_hu: of the conversion.
    """
    if array.dtype != np.uint8:
        return array.astype(np.float32)
    low, high = window_hu
    return array.astype(np.float32) * np.float32((high - low) / UINT8_LEVELS) + np.float32(low)


def _taps(source: int, old_mm: float, new_mm: float, grid: int, start: int, wanted: int, *, antialias: bool) -> _Taps:
    """Return source indices and weights for the part of one axis of the grid that is kept.

    Args:
        source: voxels of the source along the axis.
        old_mm: its spacing.
        new_mm: spacing of the grid.
        grid: voxels of the whole grid, centred on the source.
        start: first kept voxel of the grid; negative where the result begins with padding.
        wanted: voxels of the result.
        antialias: widen the kernel where the grid is coarser.
    """
    kept = np.arange(max(0, start), min(grid, start + wanted))
    ratio = new_mm / old_mm
    place = (source - 1) / 2 + (kept - (grid - 1) / 2) * ratio  # (n,) in source voxels
    width = max(1.0, ratio) if antialias else 1.0
    reach = int(np.ceil(width))
    base = np.floor(place).astype(np.int64) - reach + 1
    index = base[:, None] + np.arange(2 * reach)  # (n, taps)
    weight = np.clip(1 - np.abs(index - place[:, None]) / width, 0, None)
    weight /= weight.sum(axis=1, keepdims=True)
    return _Taps(np.clip(index, 0, source - 1), weight.astype(np.float32))


def _slices(hu: np.ndarray, taps: list[_Taps]) -> Iterator[np.ndarray]:
    """Yield the kept slices of the grid one by one: (rows, columns) float32 HU."""
    along_z, along_y, along_x = taps
    # rows and columns that no kept voxel needs are not touched
    y_first, y_end = (int(along_y.index.min()), int(along_y.index.max()) + 1) if along_y.index.size else (0, 0)
    x_first, x_end = (int(along_x.index.min()), int(along_x.index.max()) + 1) if along_x.index.size else (0, 0)
    if 0 in (len(along_z.index), y_end, x_end):
        return
    near = hu[:, y_first:y_end, x_first:x_end]
    rows = _Taps(along_y.index - y_first, along_y.weight)
    columns = _Taps(along_x.index - x_first, along_x.weight)
    floats: dict[int, np.ndarray] = {}
    for index, weight in zip(along_z.index, along_z.weight, strict=True):
        needed = {int(z) for z, share in zip(index, weight, strict=True) if share > 0}
        floats = {z: floats[z] if z in floats else near[z].astype(np.float32) for z in needed}
        mixed = _mixed([floats[int(z)] for z, share in zip(index, weight, strict=True) if share > 0], weight[weight > 0])
        in_rows = _along_first_axis(mixed, rows)  # (rows, source columns)
        turned = cv2.transpose(in_rows)
        yield cv2.transpose(_along_first_axis(turned, columns))  # (rows, columns)


def _mixed(parts: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted sum of slices."""
    if len(parts) == 1:
        return parts[0]
    total = cv2.addWeighted(parts[0], float(weights[0]), parts[1], float(weights[1]), 0.0)
    for part, weight in zip(parts[2:], weights[2:], strict=True):
        total = cv2.scaleAdd(part, float(weight), total)
    return total


def _along_first_axis(values: np.ndarray, taps: _Taps) -> np.ndarray:
    """Interpolate (source, m) float32 along its first axis; (n, m)."""
    total = np.take(values, taps.index[:, 0], axis=0)
    total *= taps.weight[:, :1]
    for tap in range(1, taps.index.shape[1]):
        part = np.take(values, taps.index[:, tap], axis=0)
        part *= taps.weight[:, tap : tap + 1]
        total += part
    return total


def _quantised(hu: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    """Clip to the window and round: levels 0 to 255 of it, or HU."""
    clipped = np.clip(hu, low, high)
    if bits == 8:
        clipped -= np.float32(low)
        clipped *= np.float32(UINT8_LEVELS / (high - low))
    clipped += np.float32(0.5)
    return np.floor(clipped, out=clipped).astype(np.uint8 if bits == 8 else np.int16)
