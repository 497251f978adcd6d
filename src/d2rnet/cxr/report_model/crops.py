"""Lesion crops: the pixels of each box at the resolution of the original file, and a cache of them on disk.

Source: D2R-Net (Tang et al. 2025) crops each box, pads it to a square and resizes it. Differs: the released code takes boxes
of the resized image and cuts them out of the original; here both are in original pixels.

A crop is kept as it is where it fits into the square, else scaled down until its longer side does; padding and enlarging come
when it is read. So the cache holds one byte a pixel of what the network can see, at most ``size_px ** 2`` a box, in a memory
map: main memory holds no crop that is not in use.
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
from d2rnet.cxr.report_model.image_cache import Source, check_size
from d2rnet.files.hashes import fingerprint
from d2rnet.runs.array_cache import file_state, fill, open_maps
from d2rnet.runs.workdir import hold_lock

CLAHE_CLIP = 2.0
CLAHE_TILES = 8
Crops = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class CropSource:
    """A radiograph and the boxes that lie in it.

    Attributes:
        image: file and (height, width) from annotation.json.
        rectangles: (K, 4) int64 as of :func:`pixel_rectangles`.
    """

    image: Source
    rectangles: NDArray[np.int64]


def grown_boxes(boxes_xywh: NDArray[Any], factor: float) -> NDArray[np.float64]:
    """Scale boxes (K, 4) about their centres; what then lies outside of the image is cut off by :func:`pixel_rectangles`."""
    boxes = np.asarray(boxes_xywh, dtype=np.float64)
    sizes = boxes[:, 2:] * factor
    return np.concatenate([boxes[:, :2] - (sizes - boxes[:, 2:]) / 2, sizes], axis=1)


def pixel_rectangles(boxes_xywh: NDArray[Any], image_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Round boxes to whole pixels inside their image.

    Args:
        boxes_xywh: (K, 4) original pixels; x and y are edges, not centres of pixels.
        image_hw: height and width of the image, pixels.

    Returns:
        (K, 4) first column, first row, one past the last column, one past the last row; each crop has a pixel at least.
    """
    height, width = image_hw
    corners = np.rint(xywh_to_xyxy(np.asarray(boxes_xywh, dtype=np.float64))).astype(np.int64)
    first = np.clip(corners[:, :2], 0, [width - 1, height - 1])
    return np.concatenate([first, np.clip(corners[:, 2:], first + 1, [width, height])], axis=1)


def kept_sizes(rectangles: NDArray[np.int64], size_px: int) -> NDArray[np.int64]:
    """Return (K, 2) height and width under which crops are kept: their own, or with the longer side ``size_px``."""
    sizes_hw = (rectangles[:, 2:] - rectangles[:, :2])[:, ::-1]
    scale = np.minimum(1.0, size_px / sizes_hw.max(axis=1, initial=1))
    return np.maximum(1, np.rint(sizes_hw * scale[:, None])).astype(np.int64)


def read_crops(source: CropSource, size_px: int, read: Reader = read_radiograph) -> list[NDArray[np.uint8]]:
    """Decode a radiograph at full resolution and cut out its boxes.

    Returns:
        K crops (h, w) uint8 of :func:`kept_sizes`.

    Raises:
        DatasetError: the file cannot be decoded or has another size than annotation.json says.
    """
    if not len(source.rectangles):
        return []
    path, image_hw = source.image
    radiograph = read(path)
    check_size(path, radiograph.source_hw, image_hw)
    crops: list[NDArray[np.uint8]] = []
    for (left, top, right, bottom), (height, width) in zip(
        source.rectangles.tolist(), kept_sizes(source.rectangles, size_px).tolist(), strict=True
    ):
        crop = radiograph.pixels[top:bottom, left:right]
        if crop.shape != (height, width):
            crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        crops.append(crop)
    return crops


def inside_of_square(crop_hw: tuple[int, int], size_px: int) -> tuple[int, int, int, int]:
    """Return where :func:`square_crop` puts a crop: first column and row, one past the last column and row."""
    scale = size_px / max(crop_hw)
    height, width = (max(1, round(side * scale)) for side in crop_hw)
    top = (size_px - height) // 2
    left = (size_px - width) // 2
    return left, top, left + width, top + height


def square_crop(crop: NDArray[np.uint8], size_px: int, *, equalise: bool) -> NDArray[np.uint8]:
    """Pad a crop to a square, centred on black, and enlarge it.

    Args:
        crop: (h, w) uint8, no side longer than ``size_px``.
        size_px: side of the square.
        equalise: apply contrast-limited adaptive histogram equalisation (CLAHE) to the crop.

    Returns:
        (size_px, size_px) uint8.
    """
    height, width = crop.shape
    left, top, right, bottom = inside_of_square((height, width), size_px)
    inner_hw = (bottom - top, right - left)
    inner: NDArray[Any] = crop
    if inner_hw != crop.shape:
        inner = cv2.resize(crop, inner_hw[::-1], interpolation=cv2.INTER_LINEAR)
    if equalise:
        inner = cv2.createCLAHE(CLAHE_CLIP, (CLAHE_TILES, CLAHE_TILES)).apply(inner)
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    square[top:bottom, left:right] = inner
    return square


class CropCache:
    """Crops by row of their image, read from a memory map that is filled once; a killed filling goes on."""

    def __init__(self, folder: Path, sources: Sequence[CropSource], *, size_px: int, workers: int) -> None:
        """Cut out what is not cached yet.

        Args:
            folder: where caches live; each list of files and boxes and each size has its own sub-folder.
            sources: radiographs with boxes, one per row of the image list.
            size_px: longest side of a kept crop.
            workers: decoding processes; below 2 this process decodes.

        Raises:
            DatasetError: files are missing, undecodable or of another size; the first ten are named.
        """
        identity = [(str(path), hw, *file_state(path), s.rectangles.tolist()) for s in sources for path, hw in [s.image]]
        place = folder / fingerprint([size_px, identity])
        place.mkdir(parents=True, exist_ok=True)
        sizes = [kept_sizes(source.rectangles, size_px) for source in sources]
        self._sizes_hw = np.concatenate([np.zeros((0, 2), dtype=np.int64), *sizes])
        self._first_crop = np.cumsum([0, *map(len, sizes)])
        self._first_byte = np.cumsum([0, *self._sizes_hw.prod(axis=1)])
        self._path = place / "crops.u8"
        self._pixels: NDArray[np.uint8] | None = None
        with hold_lock(place / ".lock", what=place, doing="cutting these crops", wait=True):
            # A map cannot be empty; a last byte that nobody reads makes room for no box at all.
            pixels, done = open_maps(self._path, (int(self._first_byte[-1]) + 1,), rows=len(sources))
            done[[row for row, size in enumerate(sizes) if not len(size)]] = 1

            def keep(row: int, crops: Any) -> None:
                start, end = self._first_byte[self._first_crop[row : row + 2]]
                pixels[start:end] = np.concatenate([crop.ravel() for crop in crops])

            fill(
                done,
                sources,
                read=partial(read_crops, size_px=size_px),
                keep=keep,
                flush=pixels.flush,
                path_of=lambda source: source.image[0],
                what="cut out lesions",
                workers=workers,
            )

    def __getitem__(self, row: int) -> Crops:
        """Return the crops of image ``row``, each (h, w) uint8, read-only."""
        if self._pixels is None:
            self._pixels = np.memmap(self._path, dtype=np.uint8, mode="r", shape=(int(self._first_byte[-1]) + 1,))
        return [
            self._pixels[self._first_byte[crop] : self._first_byte[crop + 1]].reshape(self._sizes_hw[crop])
            for crop in range(self._first_crop[row], self._first_crop[row + 1])
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory map out; a loader process opens it again."""
        return self.__dict__ | {"_pixels": None}


class DirectCrops:
    """Crops by row of their image, cut out at each access: for one pass, as in generation."""

    def __init__(self, sources: Sequence[CropSource], *, size_px: int, read: Reader = read_radiograph) -> None:
        """Take radiographs with their boxes, the longest side of a crop, and what decodes a file."""
        self._sources = sources
        self._size_px = size_px
        self._read = read

    def __getitem__(self, row: int) -> Crops:
        """Decode image ``row`` and cut out its boxes."""
        return read_crops(self._sources[row], self._size_px, self._read)
