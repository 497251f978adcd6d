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
_BLOCK = 16  # voxels; of 16, 32 and 64 the fastest on 512 x 512


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
        body and lungs is outside.
    """
    source_shape = volume.hu.shape
    grid_shape = tuple(
        max(1, round(side * old / new))
        for side, old, new in zip(source_shape, volume.spacing_mm, settings.spacing_mm, strict=True)
    )
    start, body_outside, lung_outside = body_window(volume, settings.spacing_mm, grid_shape, settings.shape_zyx)
    taps = []
    for axis, (side, old, new) in enumerate(zip(source_shape, volume.spacing_mm, settings.spacing_mm, strict=True)):
        kept = np.arange(max(0, start[axis]), min(grid_shape[axis], start[axis] + settings.shape_zyx[axis]))
        place = (side - 1) / 2 + (kept - (grid_shape[axis] - 1) / 2) * (new / old)
        taps.append(_taps(side, place, new / old, antialias=settings.antialias))
    low, high = settings.window_hu
    dtype = np.uint8 if settings.bits == 8 else np.int16
    # Never above the window's lowest value, by which a model tells padding (structure_model/volume_encoder.py).
    air = _quantised(np.full((1, 1), min(AIR_HU, np.floor(low)), np.float32), low, high, settings.bits)[0, 0]
    array = np.empty(settings.shape_zyx, dtype)
    if any(len(part.index) < side for part, side in zip(taps, settings.shape_zyx, strict=True)):
        array.fill(air)
    first = [max(0, -offset) for offset in start]  # of the result, where the grid begins
    rows = slice(first[1], first[1] + len(taps[1].index))
    columns = slice(first[2], first[2] + len(taps[2].index))
    for z, resampled in enumerate(_slices(volume.hu, taps), start=first[0]):
        array[z, rows, columns] = _quantised(resampled, low, high, settings.bits)
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
        "body_outside_fraction": round(body_outside, 4),
        "lung_outside_fraction": round(lung_outside, 4),
    }
    return ConvertedVolume(array, settings.spacing_mm, facts)


def resample_part(
    volume: Volume, *, start_mm: Millimetres, spacing_mm: Millimetres, shape_zyx: tuple[int, int, int]
) -> np.ndarray:
    """Resample any part of a volume, averaging where the result is coarser; what lies beyond the volume is air.

    Args:
        volume: source.
        start_mm: (z, y, x) of the result's lower edges, counted from the volume's centre.
        spacing_mm: (z, y, x) of the result.
        shape_zyx: its voxels.

    Returns:
        (Z, Y, X) int16 HU.
    """
    result = np.full(shape_zyx, AIR_HU, np.int16)
    taps = []
    inside = []
    for source, old, new, start, wanted in zip(
        volume.hu.shape, volume.spacing_mm, spacing_mm, start_mm, shape_zyx, strict=True
    ):
        place = (source - 1) / 2 + (start + (np.arange(wanted) + 0.5) * new) / old
        within = np.flatnonzero((place >= -0.5) & (place <= source - 0.5))
        if not len(within):
            return result
        inside.append(slice(int(within[0]), int(within[-1]) + 1))
        taps.append(_taps(source, place[within], new / old, antialias=True))
    kept = result[inside[0], inside[1], inside[2]]
    for z, resampled in enumerate(_slices(volume.hu, taps)):
        kept[z] = np.rint(resampled)
    return result


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


def _taps(source: int, place: np.ndarray, ratio: float, *, antialias: bool) -> _Taps:
    """Return source indices and weights for the voxels of a result along one axis.

    Args:
        source: voxels of the source along the axis.
        place: (n,) where the result's voxels lie, in source voxels.
        ratio: spacing of the result over that of the source.
        antialias: widen the kernel where the result is coarser.
    """
    width = max(1.0, ratio) if antialias else 1.0
    reach = int(np.ceil(width))
    base = np.floor(place).astype(np.int64) - reach + 1
    index = base[:, None] + np.arange(2 * reach)  # (n, taps)
    weight = np.clip(1 - np.abs(index - place[:, None]) / width, 0, None)
    weight /= weight.sum(axis=1, keepdims=True)
    return _Taps(np.clip(index, 0, source - 1), weight.astype(np.float32))


def _slices(hu: np.ndarray, taps: list[_Taps]) -> Iterator[np.ndarray]:
    """Yield the kept slices of the grid one by one: (rows, columns) float32 HU; each is overwritten by the next."""
    along_z, along_y, along_x = taps
    if 0 in (len(along_z.index), len(along_y.index), len(along_x.index)):
        return
    # rows and columns that no kept voxel needs are not touched
    y_first, y_end = int(along_y.index.min()), int(along_y.index.max()) + 1
    x_first, x_end = int(along_x.index.min()), int(along_x.index.max()) + 1
    near = hu[:, y_first:y_end, x_first:x_end]
    rows = _blocks(_Taps(along_y.index - y_first, along_y.weight))
    columns = _blocks(_Taps(along_x.index - x_first, along_x.weight))
    in_rows = np.empty((len(along_y.index), x_end - x_first), np.float32)
    result = np.empty((len(along_y.index), len(along_x.index)), np.float32)
    for index, weight in zip(along_z.index, along_z.weight, strict=True):
        parts = [(np.ascontiguousarray(near[z]), float(share)) for z, share in zip(index, weight, strict=True) if share > 0]
        mixed = _mixed(parts)  # (source rows, source columns)
        for block in rows:
            np.matmul(block.matrix, mixed[block.source], out=in_rows[block.result])
        for block in columns:
            result[:, block.result] = in_rows[:, block.source] @ block.matrix.T
        yield result


def _mixed(parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Return the weighted sum of int16 slices as float32."""
    first, share = parts[0]
    if len(parts) == 1:
        return first.astype(np.float32)
    second, other_share = parts[1]
    total = cv2.addWeighted(first, share, second, other_share, 0.0, dtype=cv2.CV_32F)
    for part, weight in parts[2:]:
        total = cv2.scaleAdd(part.astype(np.float32), weight, total)
    return total


@dataclass(frozen=True)
class _Block:
    """Interpolation of neighbouring voxels of the result as a small matrix product, which is faster than tap by tap.

    Attributes:
        result: n places of the result.
        source: m places of the source that they need.
        matrix: (n, m) float32 weights.
    """

    result: slice
    source: slice
    matrix: np.ndarray


def _blocks(taps: _Taps) -> list[_Block]:
    """Cut the interpolation along one axis into blocks of neighbours."""
    blocks = []
    for start in range(0, len(taps.index), _BLOCK):
        index, weight = taps.index[start : start + _BLOCK], taps.weight[start : start + _BLOCK]
        first, end = int(index.min()), int(index.max()) + 1
        matrix = np.zeros((len(index), end - first), np.float32)
        np.add.at(matrix, (np.arange(len(index))[:, None], index - first), weight)  # at the border two taps meet
        blocks.append(_Block(slice(start, start + len(index)), slice(first, end), matrix))
    return blocks


def _quantised(hu: np.ndarray, low: float, high: float, bits: int) -> np.ndarray:
    """Clip (rows, columns) float32 HU to the window and round: levels 0 to 255 of it, or HU.

    OpenCV scales, rounds and saturates in one pass; saturation to 8 bits is the window's clip.
    """
    if bits == 8:
        scale = UINT8_LEVELS / (high - low)
        return cv2.addWeighted(hu, scale, hu, 0.0, -low * scale, dtype=cv2.CV_8U)
    rounded = cv2.addWeighted(hu, 1.0, hu, 0.0, 0.0, dtype=cv2.CV_16S)
    return np.clip(rounded, np.int16(np.floor(low)), np.int16(np.floor(high)), out=rounded)
