"""Weak and strong views of one-channel radiographs, on uint8 NumPy arrays.

Weak: resize and optional flip; the only changes of geometry, shared by both views. Strong: weak plus brightness, contrast,
blur and erasing. The authors' hue, saturation and grayscale jitter does nothing to one channel and is left out.

Source: Unbiased Teacher v2 and its public configuration (strengths, erasing shares). Images are (H, W) uint8.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from d2rnet.cxr.detector.settings import DetectorModelSettings, StrongViewSettings

Image = NDArray[Any]
Boxes = NDArray[np.float32]
ERASING_ATTEMPTS = 10
# (probability, least and greatest share of the image, least and greatest height / width), applied one after the other.
ERASINGS = ((0.7, 0.05, 0.2, 0.3, 3.3), (0.5, 0.02, 0.2, 0.1, 6.0), (0.3, 0.02, 0.2, 0.05, 8.0))
GREY_LEVELS = np.arange(256, dtype=np.float32)


def resized_hw(image_hw: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """Size after detectron2's ``ResizeShortestEdge``: shorter side to ``shortest`` px unless the longer one would exceed
    ``longest`` px.

    Args:
        image_hw: height and width, pixels.
        shortest: wanted shorter side, pixels.
        longest: limit of the longer side, pixels.
    """
    height, width = image_hw
    scale = shortest / min(height, width)
    new_height, new_width = (float(shortest), scale * width) if height < width else (scale * height, float(shortest))
    if max(new_height, new_width) > longest:
        shrink = longest / max(new_height, new_width)
        new_height = new_height * shrink
        new_width = new_width * shrink
    return int(new_height + 0.5), int(new_width + 0.5)


def resize(image: Image, image_hw: tuple[int, int]) -> Image:
    """Resize with Pillow's antialiased bilinear filter, as detectron2's predictor does."""
    if image.shape == image_hw:
        return image
    height, width = image_hw
    return np.asarray(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Geometry:
    """What a weak view does to an image: resize to ``image_hw`` (height, width), then mirror left and right if ``flip``."""

    image_hw: tuple[int, int]
    flip: bool

    def apply_image(self, image: Image) -> Image:
        """Return the weak view."""
        view = resize(image, self.image_hw)
        return np.ascontiguousarray(view[:, ::-1]) if self.flip else view

    def apply_boxes(self, boxes_xyxy: Boxes, source_hw: tuple[int, int]) -> Boxes:
        """Move (N, 4) boxes from pixels of the source image to pixels of the view."""
        height, width = self.image_hw
        factors = np.array([width / source_hw[1], height / source_hw[0]] * 2, dtype=np.float32)
        moved = boxes_xyxy * factors
        if self.flip:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        return moved


def sample_geometry(rng: np.random.Generator, image_hw: tuple[int, int], model: DetectorModelSettings, flip: bool) -> Geometry:
    """Draw the geometry of one image.

    Args:
        rng: source of randomness.
        image_hw: height and width of the stored image.
        model: ``cxr.detector.model`` settings (input sizes).
        flip: whether half of the images are mirrored.
    """
    low, high = model.train_shortest_px
    shortest = int(rng.integers(low, high + 1))
    return Geometry(resized_hw(image_hw, shortest, model.longest_px), bool(flip and rng.random() < 0.5))


def strong_view(rng: np.random.Generator, weak: Image, strong: StrongViewSettings) -> Image:
    """Change brightness, contrast and sharpness of a weak view and erase parts of it; geometry stays.

    Args:
        rng: source of randomness.
        weak: (H, W) uint8; not changed.
        strong: ``cxr.detector.training.strong`` settings.

    Returns:
        A new (H, W) uint8 array.
    """
    image = weak.copy()
    if rng.random() < strong.jitter_probability:
        image = jitter(rng, image, strong.brightness, strong.contrast)
    if rng.random() < strong.blur_probability:
        sigma = rng.uniform(*strong.blur_sigma_px)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if strong.erasing:
        for probability, *limits in ERASINGS:
            if rng.random() < probability:
                erase(rng, image, *limits)
    return image


def jitter(rng: np.random.Generator, image: Image, brightness: float, contrast: float) -> Image:
    """Multiply grey levels by U[1 - b, 1 + b] and their distance from the mean by U[1 - c, 1 + c], in random order.

    Done through a table of 256 grey levels, so the cost does not depend on how many steps there are.
    """
    brighter = rng.uniform(max(0.0, 1.0 - brightness), 1.0 + brightness)
    steeper = rng.uniform(max(0.0, 1.0 - contrast), 1.0 + contrast)
    brightness_first = rng.random() < 0.5
    table = GREY_LEVELS
    mean = float(image.mean())
    if brightness_first:
        table = np.clip(table * brighter, 0, 255)
        mean = float(np.bincount(image.ravel(), minlength=256) @ table) / image.size
    table = np.clip((table - mean) * steeper + mean, 0, 255)
    if not brightness_first:
        table = np.clip(table * brighter, 0, 255)
    return cv2.LUT(image, np.rint(table).astype(np.uint8))


def erase(
    rng: np.random.Generator, image: Image, least_share: float, greatest_share: float, flattest: float, steepest: float
) -> None:
    """Fill one random rectangle with noise, in place.

    Args:
        rng: source of randomness.
        image: (H, W) uint8.
        least_share: of the image's area.
        greatest_share: of the image's area.
        flattest: least height / width, drawn log-uniformly.
        steepest: greatest height / width.
    """
    height, width = image.shape
    for _ in range(ERASING_ATTEMPTS):
        area = rng.uniform(least_share, greatest_share) * height * width
        aspect = math.exp(rng.uniform(math.log(flattest), math.log(steepest)))
        rows = round(math.sqrt(area * aspect))
        columns = round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            top = int(rng.integers(height - rows + 1))
            left = int(rng.integers(width - columns + 1))
            image[top : top + rows, left : left + columns] = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
            return
