"""What a radiograph file holds once read, and how an unreadable one is reported; shared by the DICOM, PNG and JPG readers."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d2rnet.errors import DatasetError

DATA_RANGE_QUANTILES = (0.001, 0.999)
_SAMPLE_SIDE = 512


@dataclass(frozen=True)
class RadiographHeader:
    """Geometry and view of an image file: all of a header that ever leaves the reader.

    Attributes:
        height: rows, pixels.
        width: columns, pixels.
        view: "PA", "AP", "LATERAL", or "" where the file does not say (always for PNG and JPG).
        photometric: DICOM photometric interpretation, or the colour mode of a PNG or JPG.
        transfer_syntax: name of the DICOM transfer syntax, or "PNG", "JPEG".
        bits_stored: bits a sample.
        exif_orientation: EXIF orientation tag, 1 where there is none. Pixels are never turned: boxes and tables of sizes refer
            to the pixels as stored.
    """

    height: int
    width: int
    view: str
    photometric: str
    transfer_syntax: str
    bits_stored: int
    exif_orientation: int = 1


@dataclass(frozen=True)
class Radiograph:
    """An 8-bit radiograph, bright where the body absorbs (MONOCHROME2).

    Attributes:
        pixels: (h, w) uint8.
        source_hw: height and width of the file's own pixels, before any reduction.
    """

    pixels: np.ndarray
    source_hw: tuple[int, int]


def unreadable(path: Path, *, got: str, expected: str, remedy: str) -> DatasetError:
    """Build the error for an image file that cannot be used; the caller raises it."""
    return DatasetError(f"{path}: got {got}; expected {expected}. {remedy}")


def reduced_hw(height: int, width: int, max_side_px: int | None) -> tuple[int, int]:
    """Return height and width with the longer side brought down to ``max_side_px``; never enlarged.

    Raises:
        ValueError: ``max_side_px`` is less than 1.
    """
    if max_side_px is None or max(height, width) <= max_side_px:
        return height, width
    if max_side_px < 1:
        raise ValueError(f"max_side_px is {max_side_px}; expected at least 1.")
    scale = max_side_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_area(pixels: np.ndarray, target_hw: tuple[int, int]) -> np.ndarray:
    """Reduce (h, w) pixels of any integer type up to 16 bits to ``target_hw`` by averaging areas."""
    if pixels.shape == target_hw:
        return pixels
    return cv2.resize(pixels, (target_hw[1], target_hw[0]), interpolation=cv2.INTER_AREA)


def data_range(pixels: np.ndarray) -> tuple[float, float]:
    """Return the values shown as black and white where a file names no window.

    These are the 0.1st and 99.9th percentiles of a regular sample of at least 512 x 512 pixels (all, if fewer): a dead pixel
    or a burnt-in marker must not squeeze the contrast of the chest. Own choice; plain minimum and maximum are common.
    """
    step = max(1, min(pixels.shape) // _SAMPLE_SIDE)
    low, high = np.quantile(pixels[::step, ::step], DATA_RANGE_QUANTILES)
    return float(low), float(high)
