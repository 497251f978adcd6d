"""Free disk for what the conversion will write, estimated from the sizes of the images before anything is written.

A PNG of a radiograph has about 0.4 bytes a pixel: 57 images of NIH ChestX-ray14, Open-i and NEMA's samples at the compression
of :mod:`d2rnet.cxr.conversion.image_conversion` have 0.40 on average, 0.28 to 0.50 from the 5th to the 95th percentile.
"""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)
LEAST_BYTES_PER_PIXEL = 0.28
USUAL_BYTES_PER_PIXEL = 0.4
GIGA = 1e9


def check_space(
    heights: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    problems: Problems,
    *,
    folder: Path,
    max_side_px: int,
    kept_side_px: int,
) -> None:
    """Compare the free disk with what will be written there; too little for even the smallest PNGs is a problem.

    Args:
        heights: (N,) rows of each image's file, pixels.
        widths: (N,) columns.
        problems: grows by one if the images cannot fit.
        folder: results of verify-inputs; the PNG files will lie beside it.
        max_side_px: longer side of a PNG.
        kept_side_px: side of the square that the report model's training keeps of each image, a byte a pixel; 0: none.
    """
    longer = np.maximum(np.maximum(heights, widths), 1)
    scale = np.minimum(1.0, max_side_px / longer)
    pixels = float((heights * scale * (widths * scale)).sum())
    kept = float(len(longer) * kept_side_px**2)
    there = folder.parent
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    usual = pixels * USUAL_BYTES_PER_PIXEL
    if free >= usual + kept:
        return
    free += _size(folder.parent)  # of an earlier conversion, whose PNG files are not written again
    least = pixels * LEAST_BYTES_PER_PIXEL
    if free < least:
        problems.add(
            "too_little_space",
            file=there,
            record="disk",
            got=f"{free / GIGA:.1f} GB free or taken by an earlier conversion",
            expected=f"about {usual / GIGA:.1f} GB for {len(longer)} PNG files of at most {max_side_px} px",
            remedy="Make space, run in a folder of another disk, or lower cxr.data.conversion.max_side_px.",
        )
    elif free < usual + kept:
        log.warning(
            "%s: %.1f GB free; the PNG files will need about %.1f GB, what the report model's training keeps of them %.1f GB",
            there,
            free / GIGA,
            usual / GIGA,
            kept / GIGA,
        )


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(Path(parent, name).lstat().st_size for name in names)
    return total
