"""What a radiograph file holds once read, and how an unreadable one is reported; shared by the DICOM, PNG and JPG readers."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d2rnet.errors import DatasetError

MAX_PIXELS = 100_000_000  # of one radiograph; real ones have at most about 25 million
DATA_RANGE_QUANTILES = (0.001, 0.999)
_SAMPLE_SIDE = 512
# A coarsely decoded image keeps at least this many times the wanted side. Measured on two real JPEG 2000 radiographs: mean
# difference from full decoding at most 0.3 grey levels, 99.9th percentile at most 3.5; area averaging and Lanczos differ by up
# to 0.37 and 7.5. JPG: mean at most 0.15, never more than 1.
OVERSAMPLING_HALVED = 1.25
OVERSAMPLING = 2.0


@dataclass(frozen=True)
class RadiographHeader:
    """Geometry, view and kind of an image file: all of a header that ever leaves the reader.

    Attributes:
        height: rows, pixels.
        width: columns, pixels.
        view: "PA", "AP", "LATERAL", or "" where the file does not say (always for PNG and JPG).
        photometric: DICOM photometric interpretation, or the colour mode of a PNG or JPG.
        transfer_syntax: name of the DICOM transfer syntax, or "PNG", "JPEG".
        bits_stored: bits a sample.
        exif_orientation: EXIF orientation tag, 1 where there is none. Pixels are never turned: boxes and tables of sizes refer
            to the pixels as stored.
        modality: DICOM modality; "" where none is stated, "?" for no term of the standard.
        body_part: "CHEST", another term, "" or "?" likewise.
        described_part: another body part that the description of series, protocol or study names, where none names the chest.
        species: "" where none but the human one is stated, else "animal" or "?".
        other_view: what is stated in place of a known view, "" or "?" likewise.
        uid_hash: of the SOPInstanceUID, which itself is never kept: it leads back to the archive. "" where a DICOM file states
            none, None for PNG and JPG.
        orientation: DICOM PatientOrientation, such as ``L\\F``, or "".
        is_coloured: the pixels are not all grey (:func:`d2rnet.cxr.images.reader.look_at`); None where they are stored in
            colour and were not looked at.
        one_grey_level: all pixels are alike (likewise).
    """

    height: int
    width: int
    view: str
    photometric: str
    transfer_syntax: str
    bits_stored: int
    exif_orientation: int = 1
    modality: str = ""
    body_part: str = ""
    described_part: str = ""
    species: str = ""
    other_view: str = ""
    orientation: str = ""
    uid_hash: str | None = None
    is_coloured: bool | None = False
    one_grey_level: bool = False


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


def check_pixel_count(path: Path, height: int, width: int, *, where: str) -> None:
    """Refuse an image that would need more memory than any radiograph, before anything is decoded.

    Args:
        path: image file.
        height: rows that the file promises.
        width: columns that it promises.
        where: what makes the promise, such as "the header".

    Raises:
        DatasetError: more than MAX_PIXELS, or none.
    """
    if not 0 < height * width <= MAX_PIXELS or height < 0:
        raise unreadable(
            path,
            got=f"{height} x {width} pixels (height x width) in {where}",
            expected=f"a radiograph of 1 to {MAX_PIXELS:,} pixels",
            remedy="This is not a plain radiograph; leave it out.",
        )


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


def is_fine_enough(side: int, halvings: int, max_side_px: int) -> bool:
    """Say whether an image decoded at ``side / 2**halvings`` pixels is fine enough to be reduced to ``max_side_px``."""
    return side >> halvings >= (OVERSAMPLING_HALVED if halvings == 1 else OVERSAMPLING) * max_side_px


def align_coarse(coarse: np.ndarray, source_hw: tuple[int, int], step: int, first_center: float) -> np.ndarray:
    """Bring a coarsely decoded image onto a grid that covers exactly the field of the full one.

    Coarse samples lie ``step`` source pixels apart, and the last ones may reach beyond the source's edge; taken as they are,
    the picture would be shifted and stretched by up to ``step`` source pixels against its boxes.

    Args:
        coarse: (h, w) samples.
        source_hw: height and width of the full image.
        step: distance of neighbouring samples, source pixels.
        first_center: position of the first sample in either direction, source pixels (0: centre of the first pixel).

    Returns:
        (h, w) samples at the centres of h x w equal parts of the full image.
    """
    height, width = coarse.shape
    # the centre of part i of n is at source position (i + 0.5) * N / n - 0.5, so at coarse index (position - first) / step
    rows = [
        (side / parts / step, ((side / parts - 1) / 2 - first_center) / step)
        for side, parts in ((source_hw[1], width), (source_hw[0], height))
    ]
    if all(row == (1.0, 0.0) for row in rows):
        return coarse
    inverse = np.array([[rows[0][0], 0, rows[0][1]], [0, rows[1][0], rows[1][1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(coarse, inverse, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


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
