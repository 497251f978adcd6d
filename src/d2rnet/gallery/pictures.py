"""Images of a study as small JPEG data URIs; one that cannot be shown is reported, not fatal."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.gallery.settings import PageSettings
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.parallel import map_in_processes

Source = tuple[Path, tuple[int, int]]  # file, height and width that annotation.json gives


@dataclass(frozen=True)
class Picture:
    """One picture of a study.

    Attributes:
        uri: ``data:image/jpeg;base64,...``, "" where it cannot be shown.
        image_hw: height and width of the original, pixels; its boxes refer to them.
        problem: why it cannot be shown, "" if it can.
        name: what it shows.
    """

    uri: str
    image_hw: tuple[int, int]
    problem: str
    name: str = "Radiograph"


def sources_of(entry: Entry, image_root: Path) -> list[Source]:
    """Return file and size of each image of an entry of annotation.json."""
    paths = [image_root / path for path in entry["image_path"]]
    several = len(paths) > 1
    heights = entry["heights"] if several else [entry["height"]]
    widths = entry["widths"] if several else [entry["width"]]
    return list(zip(paths, zip(heights, widths, strict=True), strict=True))


def radiograph_pictures(
    entries: Sequence[Entry | None], image_root: Path | None, settings: PageSettings, *, workers: int
) -> Iterator[list[Picture]]:
    """Yield the radiographs of each study, in order; smaller ones are not enlarged.

    Args:
        entries: of annotation.json, None where only texts are known.
        image_root: folder that ``image_path`` is relative to; None for texts only.
        settings: size and quality of the pictures.
        workers: processes.
    """
    sources = [sources_of(entry, image_root) if entry and image_root else [] for entry in entries]
    read = partial(_read_study, side_px=settings.image_side_px, quality=settings.jpeg_quality)
    return map_in_processes(read, sources, workers=workers, what="read radiographs", setting="--workers")


def _read_study(sources: Sequence[Source], *, side_px: int, quality: int) -> list[Picture]:
    pictures = [_read_picture(path, image_hw, side_px, quality) for path, image_hw in sources]
    if len(pictures) < 2:
        return pictures
    return [replace(one, name=f"Radiograph {place} of {len(pictures)}") for place, one in enumerate(pictures, start=1)]


def _read_picture(path: Path, image_hw: tuple[int, int], side_px: int, quality: int) -> Picture:
    try:
        radiograph = read_radiograph(path, max_side_px=side_px)
    except (DatasetError, OSError) as error:
        return Picture("", image_hw, str(error))
    if tuple(radiograph.source_hw) != tuple(image_hw):
        got, expected = (f"{height} x {width}" for height, width in (radiograph.source_hw, image_hw))
        return Picture("", image_hw, f"{path}: got height x width {got}; expected {expected} as in annotation.json")
    return Picture(jpeg_uri(radiograph.pixels, quality), image_hw, "")


def jpeg_uri(pixels: np.ndarray, quality: int) -> str:
    """Return (height, width) uint8 pixels as a data URI of a JPEG."""
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
