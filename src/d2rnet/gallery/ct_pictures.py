"""Middle slices of converted CT volumes as pictures of a study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2rnet.ct.conversion.grid import to_hounsfield_units
from d2rnet.ct.conversion.store import read_array
from d2rnet.ct.volumes.display_windows import LUNG, MEDIASTINUM, DisplayWindow, grey_levels
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.files.names import is_path_below
from d2rnet.gallery.pictures import Picture, jpeg_uri
from d2rnet.gallery.settings import PageSettings
from d2rnet.runs.parallel import map_in_processes

# What each picture shows: name, axis of its slices, window. Axes (z, y, x) of LPS+; the two others run down and across.
SHOWN: tuple[tuple[str, int, DisplayWindow], ...] = (
    ("Axial, lung window", 0, LUNG),
    ("Axial, mediastinal window", 0, MEDIASTINUM),
    ("Coronal, lung window", 1, LUNG),
    ("Sagittal, mediastinal window", 2, MEDIASTINUM),
)


@dataclass(frozen=True)
class VolumeSource:
    """A converted volume.

    Attributes:
        path: of its array, (Z, Y, X).
        spacing_mm: (z, y, x).
        window_hu: what its levels stand for, if it has 8 bits.
    """

    path: Path
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float]


def read_volume_sources(volumes: Path) -> dict[str, VolumeSource]:
    """Read volumes.jsonl of convert-ct.

    Args:
        volumes: the file; arrays are named relative to its folder.

    Returns:
        Id of the volume -> source.

    Raises:
        DatasetError: a line is not one of convert-ct.
    """
    sources: dict[str, VolumeSource] = {}
    for number, line in enumerate(read_jsonl(volumes), start=1):
        spacing = _numbers(line.get("spacing_mm"), 3)
        window = _numbers(line.get("window_hu"), 2)
        name, path = line.get("volume_id"), line.get("volume_path")
        if not spacing or not window or not isinstance(name, str) or not (isinstance(path, str) and is_path_below(path)):
            raise DatasetError(f"{volumes}: line {number}: expected a volume of convert-ct. Run 'd2rnet convert-ct' again.")
        z, y, x = spacing
        low, high = window
        sources[name] = VolumeSource(volumes.parent / path, (z, y, x), (low, high))
    return sources


def _numbers(values: Any, count: int) -> list[float]:
    """Return so many numbers, or none."""
    good = isinstance(values, list) and len(values) == count and all(isinstance(one, int | float) for one in values)
    return [float(one) for one in values] if good else []


def volume_pictures(
    names: Sequence[str], sources: Mapping[str, VolumeSource], settings: PageSettings, *, workers: int
) -> Iterator[list[Picture]]:
    """Yield the pictures of each volume, in order.

    Args:
        names: ids of the volumes.
        sources: where they are.
        settings: size and quality of the pictures.
        workers: processes.
    """
    draw = partial(_draw, side_px=settings.image_side_px, quality=settings.jpeg_quality)
    named = [(name, sources.get(name)) for name in names]
    return map_in_processes(draw, named, workers=workers, what="read volumes", setting="--workers")


def _draw(named: tuple[str, VolumeSource | None], *, side_px: int, quality: int) -> list[Picture]:
    name, source = named
    if source is None:
        return [Picture("", (1, 1), f"volume {name}: not in volumes.jsonl of convert-ct", "Volume")]
    try:
        array = read_array(source.path)
    except (DatasetError, OSError) as error:
        return [Picture("", (1, 1), str(error), "Volume")]
    pictures = []
    for title, axis, window in SHOWN:
        pixels = middle_slice(array, source, axis, window, side_px=side_px)
        height, width = pixels.shape
        pictures.append(Picture(jpeg_uri(pixels, quality), (height, width), "", title))
    return pictures


def middle_slice(array: np.ndarray, source: VolumeSource, axis: int, window: DisplayWindow, *, side_px: int) -> np.ndarray:
    """Return the middle slice along an axis as radiologists look at it, (height, width) uint8.

    Args:
        array: (Z, Y, X).
        source: its spacing and window.
        axis: 0 axial, 1 coronal, 2 sagittal.
        window: to show it in.
        side_px: longest side; true proportions, no larger than the finest voxels give.
    """
    plane = array.take(array.shape[axis] // 2, axis=axis)  # (down, across), axes in their order
    down_mm, across_mm = (side for place, side in enumerate(source.spacing_mm) if place != axis)
    if axis:  # down is z, which grows to the head
        plane = plane[::-1]
    levels = grey_levels(to_hounsfield_units(plane, source.window_hu), window)
    finest = min(down_mm, across_mm)
    height, width = plane.shape[0] * down_mm / finest, plane.shape[1] * across_mm / finest
    scale = min(1.0, side_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(levels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
