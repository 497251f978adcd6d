"""Radiographs as small JPEG data URIs; one that cannot be shown is reported, not fatal."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.parallel import map_in_processes

Source = tuple[Path, tuple[int, int]]  # file, height and width that annotation.json gives


@dataclass(frozen=True)
class Picture:
    """One radiograph of a study as shown.

    Attributes:
        uri: ``data:image/jpeg;base64,...``, "" where it cannot be shown.
        image_hw: height and width of the original, pixels; its boxes refer to them.
        problem: why it cannot be shown, "" if it can.
    """

    uri: str
    image_hw: tuple[int, int]
    problem: str


def sources_of(entry: Entry, image_root: Path) -> list[Source]:
    """Return file and size of each image of an entry of annotation.json."""
    paths = [image_root / path for path in entry["image_path"]]
    several = len(paths) > 1
    heights = entry["heights"] if several else [entry["height"]]
    widths = entry["widths"] if several else [entry["width"]]
    return list(zip(paths, zip(heights, widths, strict=True), strict=True))


def make_pictures(studies: Sequence[Sequence[Source]], *, side_px: int, quality: int, workers: int) -> Iterator[list[Picture]]:
    """Yield the pictures of each study, in order.

    Args:
        studies: sources of the images of each study.
        side_px: longer side of a picture; smaller radiographs are not enlarged.
        quality: of the JPEG, 1 to 100.
        workers: processes.
    """
    read = partial(_read_study, side_px=side_px, quality=quality)
    return map_in_processes(read, studies, workers=workers, what="read radiographs", setting="--workers")


def _read_study(sources: Sequence[Source], *, side_px: int, quality: int) -> list[Picture]:
    return [_read_picture(path, image_hw, side_px, quality) for path, image_hw in sources]


def _read_picture(path: Path, image_hw: tuple[int, int], side_px: int, quality: int) -> Picture:
    try:
        radiograph = read_radiograph(path, max_side_px=side_px)
    except (DatasetError, OSError) as error:
        return Picture("", image_hw, str(error))
    if tuple(radiograph.source_hw) != tuple(image_hw):
        got, expected = (f"{height} x {width}" for height, width in (radiograph.source_hw, image_hw))
        return Picture("", image_hw, f"{path}: got height x width {got}; expected {expected} as in annotation.json")
    _, encoded = cv2.imencode(".jpg", radiograph.pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Picture(f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}", image_hw, "")
