"""Grey levels of a picture against those of a model's own training images, for pictures without a header that would tell.

Each picture is reduced to 32 x 32 grey levels, whatever its shape. A few statistics of these are held against the limits
within which those of the training images lie. Own choice throughout, measured by ``benchmarks/odd_pictures.py``; it doubts,
and never refuses. Reads and writes nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import numpy as np
from PIL import Image
from pydantic import Field

from d2rnet.settings import Section

SIDE = 32
LEAST_IMAGES = 20  # below that, limits would be those of single images
PERCENTILES = (0.5, 99.5)
# The limits of few images are too narrow for the next one: each is moved out by this share of the range between them.
MARGIN = 0.25
_DARK = 32
_BRIGHT = 224
Statistic = Literal["likeness", "mean_grey", "contrast", "dark_share", "bright_share", "symmetry", "roughness"]
_STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
_ONE_SIDED = frozenset({"likeness", "symmetry"})  # no picture is too like the mean one, nor too symmetric
Row = Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(strict=False, min_length=SIDE, max_length=SIDE)]
Limits = Annotated[tuple[float, float], Field(strict=False)]


class GreyLevels(Section):
    """What the grey levels of training images are like.

    Attributes:
        images: how many were looked at.
        mean_image: their mean, 32 rows of 32 grey levels.
        limits: statistic -> its 0.5th and 99.5th percentile over them; ``likeness`` (correlation with the mean image),
            ``mean_grey`` and ``contrast`` (standard deviation, both in grey levels), ``dark_share`` and ``bright_share`` (of
            grey levels below 32 and of 224 and more), ``symmetry`` (correlation with the picture mirrored left to right),
            ``roughness`` (mean step between neighbours over contrast).
    """

    images: Annotated[int, Field(ge=LEAST_IMAGES)]
    mean_image: Annotated[tuple[Row, ...], Field(strict=False, min_length=SIDE, max_length=SIDE, repr=False)]
    limits: Annotated[dict[Statistic, Limits], Field(min_length=len(_STATISTICS))]

    def unlike(self, pixels: np.ndarray) -> list[str]:
        """Name the statistics of a picture that lie outside the limits, with what was found and expected.

        Args:
            pixels: (h, w) uint8, bright where the body absorbs.
        """
        found = statistics(reduce(pixels), np.array(self.mean_image, dtype=np.float64))
        texts = []
        for name, (low, high) in self.limits.items():
            margin = MARGIN * (high - low)
            if found[name] < low - margin:
                texts.append(f"{name} {found[name]:.2f}, expected at least {low - margin:.2f}")
            elif found[name] > high + margin and name not in _ONE_SIDED:
                texts.append(f"{name} {found[name]:.2f}, expected at most {high + margin:.2f}")
        return texts


def reduce(pixels: np.ndarray) -> np.ndarray:
    """Reduce a picture of (h, w) uint8 to (32, 32) float64, each value the mean of its part of the picture."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)


def statistics(small: np.ndarray, mean_image: np.ndarray) -> dict[Statistic, float]:
    """Return the statistics that :class:`GreyLevels` describes.

    Args:
        small: (32, 32) float64 of :func:`reduce`.
        mean_image: (32, 32) float64.
    """
    contrast = float(small.std())
    steps = (np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()) / 2
    return {
        "likeness": correlation(small, mean_image),
        "mean_grey": float(small.mean()),
        "contrast": contrast,
        "dark_share": float((small < _DARK).mean()),
        "bright_share": float((small >= _BRIGHT).mean()),
        "symmetry": correlation(small, small[:, ::-1]),
        "roughness": float(steps / contrast) if contrast else 0.0,
    }


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where a picture is of one grey level."""
    spread = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread else 0.0


def describe_grey_levels(small: Sequence[np.ndarray]) -> GreyLevels | None:
    """Describe the grey levels of training images.

    Args:
        small: (32, 32) float64 each, of :func:`reduce`.

    Returns:
        None where there are fewer than 20.
    """
    if len(small) < LEAST_IMAGES:
        return None
    mean_image = np.rint(np.mean(small, axis=0))
    found = [statistics(image, mean_image) for image in small]
    limits = {}
    for name in _STATISTICS:
        low, high = np.percentile([values[name] for values in found], PERCENTILES)
        limits[name] = [round(float(low), 4), round(float(high), 4)]
    return GreyLevels.read({"images": len(small), "mean_image": mean_image.astype(int).tolist(), "limits": limits})
