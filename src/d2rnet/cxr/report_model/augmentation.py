"""Training augmentation that keeps image, boxes, crops and words of an entry consistent.

One random similarity (shift and scale) moves pixels and boxes; contrast and brightness change pixels only. A horizontal flip
mirrors pixels, crops and boxes and swaps left and right in the report. Off by default: a mirrored chest has its heart on the
right and its burnt-in side marker reversed, and both are findings. Reports with a side that has no mirror word (right middle
lobe, lingula) are never flipped.
"""

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.report_model.settings import AugmentationSettings
from d2rnet.findings.short_sides import SHORT_SIDE

_WORDS = {"left": "right", "leftward": "rightward", "leftwards": "rightwards", "rul": "lul", "rll": "lll"}
_WORDS |= {value: key for key, value in _WORDS.items()}
_MIRRORED = _WORDS | {"r": "l", "l": "r", "rt": "lt", "lt": "rt"}
# "left-sided" falls into "left" and "sided"; "bilateral" and "both" are their own mirror words.
_SIDE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![A-Za-z0-9])|{SHORT_SIDE}", re.IGNORECASE
)
_ONE_SIDED = re.compile(r"\b(?:rml|lingula\w*|middle\s+lobe|dextrocardia|dextroposition|levocardia)\b", re.IGNORECASE)


def mirror_report(report: str) -> str | None:
    """Swap left and right in a report.

    Args:
        report: text as written.

    Returns:
        The text with each side word replaced by its mirror word in the same case; None if it names a side that has none.
    """
    if _ONE_SIDED.search(report):
        return None
    return _SIDE.sub(lambda match: _in_case_of(match[0], _MIRRORED[match[0].lower()]), report)


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


@dataclass(frozen=True)
class Change:
    """What is done to one image of the square input.

    Attributes:
        scale: factor of size, about the centre.
        shift_x: shift to the right after scaling, share of the side.
        shift_y: shift downwards, share of the side.
        gain: factor of contrast, about mid grey.
        offset: added brightness, share of the grey range.
        flip: mirrored left to right, after the rest.
    """

    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    flip: bool = False

    def matrix(self, side: float) -> NDArray[np.float64]:
        """Return the (2, 3) map of points (x, y) of a square of ``side``, edges at 0 and ``side``, to where they go."""
        centre = side / 2
        matrix = np.array(
            [
                [self.scale, 0.0, centre * (1 - self.scale) + self.shift_x * side],
                [0.0, self.scale, centre * (1 - self.scale) + self.shift_y * side],
            ]
        )
        if self.flip:
            matrix[0] = -matrix[0] + [0.0, 0.0, side]
        return matrix

    def pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change an image: (S, S) uint8 -> (S, S) uint8; what comes in from outside is black."""
        side = len(pixels)
        matrix = self.matrix(side)
        # OpenCV's coordinates are those of pixel centres, half a pixel from the edges.
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
        moved = cv2.warpAffine(pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        grey = (np.arange(256) - 127.5) * self.gain + 127.5 + 255 * self.offset
        return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)[moved]

    def boxes(self, boxes_xyxy: NDArray[np.float32], side: float) -> NDArray[np.float32]:
        """Move (K, 4) xyxy boxes of a square of ``side``."""
        matrix = self.matrix(side)
        corners = boxes_xyxy.reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
        corners.sort(axis=1)
        return corners.reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True)
class Augmentation:
    """Draws a change for each entry of an epoch: the same for a seed, epoch and entry, in whatever process.

    Attributes:
        settings: how far changes reach.
        seed: ``cxr.report.training.seed``.
        epoch: from 0.
    """

    settings: AugmentationSettings
    seed: int
    epoch: int

    def draw(self, index: int, *, may_flip: bool) -> Change:
        """Return the change of entry ``index``; all its images get the same one."""
        # The order of entries is drawn from (seed, epoch); a third number keeps the two apart.
        random = np.random.default_rng([self.seed, self.epoch, index + 1])
        draws = random.uniform(-1.0, 1.0, size=5)
        reach = self.settings
        return Change(
            scale=float(1 + reach.max_scale * draws[0]),
            shift_x=float(reach.max_shift * draws[1]),
            shift_y=float(reach.max_shift * draws[2]),
            gain=float(1 + reach.max_intensity * draws[3]),
            offset=float(reach.max_intensity * draws[4]),
            flip=bool(reach.horizontal_flip and random.random() < 0.5 and may_flip),
        )

    @property
    def changes_anything(self) -> bool:
        """Whether any part of it is on."""
        return self.settings != AugmentationSettings()
