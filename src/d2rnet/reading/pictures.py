"""Radiographs that are in memory, not in files: arrays and PIL images, on their way through the reader of files.

Each becomes a PNG, which loses nothing, in a folder that is gone afterwards: so it is read exactly as its file would be.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d2rnet.errors import DatasetError
from d2rnet.files.names import absolute_without_dots

Picture = str | Path | NDArray[Any] | Image.Image
NAME = "picture"  # of one that has no file
_DEPTHS = (np.uint8, np.uint16)
_CHANNELS = (3, 4)


@contextmanager
def as_files(pictures: Sequence[Picture], name: str) -> Iterator[list[Path]]:
    """Yield a file for each picture: its own, or a PNG that lasts as long as the context.

    Args:
        pictures: files; (h, w) arrays of uint8 or uint16, bright where the body absorbs, or (h, w, 3 or 4) of uint8, whose
            luma is taken; PIL images.
        name: of the PNG, without suffix; ``picture`` if empty, and numbered where there are several.

    Raises:
        DatasetError: an array of another shape or type.
    """
    with tempfile.TemporaryDirectory(prefix="d2rnet-") as folder:
        files = []
        for number, picture in enumerate(pictures, start=1):
            if isinstance(picture, str | Path):
                files.append(absolute_without_dots(picture))
                continue
            several = f"_{number}" if len(pictures) > 1 else ""
            file = Path(folder, f"{Path(name).name or NAME}{several}.png")
            image = picture if isinstance(picture, Image.Image) else _image_of(picture)
            image.save(file, format="PNG")
            files.append(file)
        yield files


def _image_of(array: Any) -> Image.Image:
    given = np.asarray(array)
    is_grey = given.ndim == 2 and given.dtype in _DEPTHS
    is_colour = given.ndim == 3 and given.shape[2] in _CHANNELS and given.dtype == np.uint8
    if not (is_grey or is_colour) or 0 in given.shape:
        raise DatasetError(
            f"read: got an array of shape {given.shape} and type {given.dtype}; expected (height, width) of uint8 or uint16, "
            "bright where the body absorbs, or (height, width, 3) of uint8. Scale the values to one of these types."
        )
    return Image.fromarray(np.ascontiguousarray(given))
