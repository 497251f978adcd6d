"""Radiographs at the model's input size: letterbox geometry and a cache of decoded images on disk.

A radiograph is scaled so that its longer side fills the square input and is centred on a black square (letterbox): the aspect
is kept, nothing is cut off, and one scale with two offsets maps boxes of the original pixels into the input. Decoding a
full-size radiograph costs far more than a training step on it, so each file is decoded once into a uint8 memory map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.cxr.images.reader import Reader, read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.files.hashes import fingerprint
from d2rnet.runs.array_cache import file_state, fill, open_maps
from d2rnet.runs.workdir import hold_lock


@dataclass(frozen=True)
class Letterbox:
    """Where an original image lies in the square input.

    Attributes:
        scale: input pixels an original pixel.
        top: rows of padding above the image, input pixels.
        left: columns of padding left of it.
    """

    scale: float
    top: int
    left: int

    def boxes(self, boxes_xywh: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (K, 4) xywh boxes of original pixels to (K, 4) xyxy boxes of input pixels."""
        corners = xywh_to_xyxy(boxes_xywh)
        offset = np.array([self.left, self.top, self.left, self.top], dtype=np.float32)
        return (corners * self.scale + offset).astype(np.float32)


def letterbox_of(image_hw: tuple[int, int], size_px: int) -> Letterbox:
    """Return the letterbox of an image of ``image_hw`` (height, width) pixels in a square of ``size_px``."""
    height, width = image_hw
    scale = size_px / max(height, width)
    inner_h, inner_w = _inner_size(image_hw, size_px)
    return Letterbox(scale, (size_px - inner_h) // 2, (size_px - inner_w) // 2)


def _inner_size(image_hw: tuple[int, int], size_px: int) -> tuple[int, int]:
    scale = size_px / max(image_hw)
    return max(1, round(image_hw[0] * scale)), max(1, round(image_hw[1] * scale))


def read_input(path: Path, image_hw: tuple[int, int], size_px: int, read: Reader = read_radiograph) -> NDArray[np.uint8]:
    """Decode a radiograph into the square input.

    Args:
        path: radiograph file.
        image_hw: height and width that annotation.json gives, pixels.
        size_px: side of the square.
        read: what decodes it.

    Returns:
        (size_px, size_px) uint8.

    Raises:
        DatasetError: the file cannot be decoded or has another size than annotation.json says (its boxes would be wrong).
    """
    radiograph = read(path, max_side_px=size_px)
    check_size(path, radiograph.source_hw, image_hw)
    inner_h, inner_w = _inner_size(image_hw, size_px)
    pixels = radiograph.pixels
    if pixels.shape != (inner_h, inner_w):
        shrinks = pixels.shape[0] > inner_h or pixels.shape[1] > inner_w
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (inner_w, inner_h), interpolation=interpolation)
    box = letterbox_of(image_hw, size_px)
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    square[box.top : box.top + inner_h, box.left : box.left + inner_w] = pixels
    return square


def check_size(path: Path, got_hw: tuple[int, int], expected_hw: tuple[int, int]) -> None:
    """Compare the size of a radiograph with annotation.json.

    Raises:
        DatasetError: they differ.
    """
    if tuple(got_hw) != tuple(expected_hw):
        raise DatasetError(
            f"{path}: got height x width {got_hw[0]} x {got_hw[1]}; expected {expected_hw[0]} x {expected_hw[1]} as in "
            "annotation.json. Point the image root at the files that the annotation was made from."
        )


Source = tuple[Path, tuple[int, int]]  # file, (height, width) from annotation.json


class ImageCache:
    """Images by row, read from a memory map that is filled once; filling goes on where a killed process stopped."""

    def __init__(self, folder: Path, sources: Sequence[Source], *, size_px: int, workers: int) -> None:
        """Decode what is not cached yet.

        Args:
            folder: where caches live; each list of files and input size has its own sub-folder.
            sources: files with their sizes; the row of an image is its place in this list.
            size_px: side of the square input.
            workers: decoding processes; below 2 this process decodes.

        Raises:
            DatasetError: files are missing, undecodable or of another size; the first ten are named.
        """
        identity = [size_px, [(str(path), hw, *file_state(path)) for path, hw in sources]]
        place = folder / fingerprint(identity)
        place.mkdir(parents=True, exist_ok=True)
        with hold_lock(place / ".lock", what=place, doing="decoding these images", wait=True):
            pixels, done = open_maps(place / "pixels.u8", (len(sources), size_px, size_px), rows=len(sources))
            fill(
                done,
                sources,
                read=partial(_read, size_px=size_px),
                keep=pixels.__setitem__,
                flush=pixels.flush,
                path_of=lambda source: source[0],
                what="decode radiographs",
                workers=workers,
            )
        self._path = place / "pixels.u8"
        self._shape = (len(sources), size_px, size_px)
        self._pixels: NDArray[np.uint8] | None = None

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row`` as (S, S) uint8, read-only."""
        if self._pixels is None:
            self._pixels = np.memmap(self._path, dtype=np.uint8, mode="r", shape=self._shape)
        return self._pixels[row]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory map out: pickling would copy all images; a loader process opens it again."""
        return self.__dict__ | {"_pixels": None}


class DirectImages:
    """Images by row, decoded at each access: for one pass, as in generation."""

    def __init__(self, sources: Sequence[Source], *, size_px: int, read: Reader = read_radiograph) -> None:
        """Take the files, the side of the square input, and what decodes a file."""
        self._sources = sources
        self._size_px = size_px
        self._read = read

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Decode image ``row`` to (S, S) uint8."""
        path, image_hw = self._sources[row]
        return read_input(path, image_hw, self._size_px, self._read)


def _read(source: Source, *, size_px: int) -> NDArray[np.uint8]:
    return read_input(*source, size_px)
