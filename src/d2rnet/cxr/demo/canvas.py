"""Drawing primitives of the demo phantoms: a thorax coordinate frame and antialiased vector shapes.

Every shape is given in *thorax units*, so that size, aspect, rotation and position of the picture change nothing else: the
origin is on the midline at the level of the lung apices, u grows to the right of the picture (the patient's left), v grows
downwards, and one unit is the half width of the thorax at its base in both directions (circles stay round).

Reads and writes: nothing. Own work. Shapes: H, W picture size in pixels; N points of a curve.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatImage = NDArray[np.float32]
_SHIFT = 4  # fractional bits of cv2's fixed-point coordinates


@dataclass(frozen=True)
class Frame:
    """Where the thorax lies in the picture.

    Attributes:
        image_hw: height, width in pixels.
        origin_xy: pixel of u = 0, v = 0.
        unit_px: pixels of one thorax unit.
        rotation: radians, clockwise as seen.
    """

    image_hw: tuple[int, int]
    origin_xy: tuple[float, float]
    unit_px: float
    rotation: float

    def to_px(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map (..., 2) thorax coordinates u, v to (..., 2) pixels x, y."""
        return np.asarray(points, dtype=np.float64) @ self._rotation_scale + self.origin_xy

    @cached_property
    def _rotation_scale(self) -> NDArray[np.float64]:
        cosine = math.cos(self.rotation) * self.unit_px
        sine = math.sin(self.rotation) * self.unit_px
        return np.array([[cosine, sine], [-sine, cosine]])

    @cached_property
    def grid(self) -> tuple[FloatImage, FloatImage]:
        """u and v of every pixel, each (H, W) float32."""
        height, width = self.image_hw
        x = (np.arange(width, dtype=np.float32) - np.float32(self.origin_xy[0])) / np.float32(self.unit_px)
        y = (np.arange(height, dtype=np.float32) - np.float32(self.origin_xy[1])) / np.float32(self.unit_px)
        cosine = np.float32(np.cos(self.rotation))
        sine = np.float32(np.sin(self.rotation))
        return x[None] * cosine + y[:, None] * sine, y[:, None] * cosine - x[None] * sine


class Layer:
    """One antialiased 8-bit layer that shapes are drawn on; read back as float32 in [0, 1]."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.pixels = np.zeros(frame.image_hw, np.uint8)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        return (self.frame.to_px(points) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, polygons: ArrayLike, level: float = 1.0) -> "Layer":
        """Fill one polygon (N, 2), or several one after the other (K, N, 2), with a level in [0, 1]; it replaces."""
        fixed = self._fixed(polygons)
        for polygon in fixed if fixed.ndim == 3 else fixed[None]:
            cv2.fillPoly(self.pixels, [polygon], round(255 * level), cv2.LINE_AA, _SHIFT)
        return self

    def stroke(
        self, lines: Sequence[ArrayLike] | NDArray[np.float64], width: float, level: float = 1.0, *, closed: bool = False
    ) -> "Layer":
        """Draw polylines ``width`` units thick, a list of (N, 2) or one (K, N, 2); below a pixel the line gets fainter."""
        width_px = width * self.frame.unit_px
        level = level * min(width_px, 1.0)
        fixed = list(self._fixed(lines)) if isinstance(lines, np.ndarray) else [self._fixed(line) for line in lines]
        cv2.polylines(self.pixels, fixed, closed, round(255 * level), max(1, round(width_px)), cv2.LINE_AA, _SHIFT)
        return self

    def values(self, blur: float = 0.0) -> FloatImage:
        """Return the layer as (H, W) float32 in [0, 1], blurred by ``blur`` units (Gaussian sigma)."""
        return blurred(self.pixels, blur * self.frame.unit_px).astype(np.float32) * np.float32(1 / 255)


def blurred(image: NDArray[Any], sigma_px: float) -> NDArray[Any]:
    """Gaussian blur of a float32 or uint8 picture; wide ones are done on a reduced picture: the same look, much faster."""
    if sigma_px < 0.75:  # antialiasing has done as much
        return image
    if sigma_px < 2.6:
        return cv2.GaussianBlur(image, (0, 0), sigma_px)
    height, width = image.shape
    factor = sigma_px / 1.6
    reduced_size = (max(4, round(width / factor)), max(4, round(height / factor)))
    reduced = cv2.GaussianBlur(cv2.resize(image, reduced_size, interpolation=cv2.INTER_AREA), (0, 0), 1.6)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR)


def cloud(frame: Frame, rng: np.random.Generator, grain: float) -> FloatImage:
    """Smooth random field with about zero mean and unit deviation; ``grain`` is the size of its blobs in units."""
    height, width = frame.image_hw
    step = max(grain * frame.unit_px, 1.0)
    coarse = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


@cache
def _catmull_rom_basis(samples: int) -> NDArray[np.float64]:
    """Weights of the four knots around a segment at ``samples`` positions, (samples, 4)."""
    t = np.linspace(0, 1, samples, endpoint=False)
    return 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1)


def spline(points: ArrayLike, *, closed: bool = False, samples: int = 6) -> NDArray[np.float64]:
    """Catmull-Rom curves through (..., N, 2) points, ``samples`` points a segment -> (..., M, 2)."""
    knots = np.asarray(points, dtype=np.float64)
    first = knots[..., :1, :]
    last = knots[..., -1:, :]
    if closed:
        padded = np.concatenate([last, knots, knots[..., :2, :]], axis=-2)
    else:
        padded = np.concatenate([2 * first - knots[..., 1:2, :], knots, 2 * last - knots[..., -2:-1, :]], axis=-2)
    segments = padded.shape[-2] - 3
    windows = np.stack([padded[..., i : segments + i, :] for i in range(4)], axis=-2)  # (..., segments, 4, 2)
    curve = _catmull_rom_basis(samples) @ windows  # (..., segments, samples, 2)
    flat = curve.reshape(*knots.shape[:-2], segments * samples, 2)
    return flat if closed else np.concatenate([flat, last], axis=-2)


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], *, angle: float = 0.0, wobble: ArrayLike = (), points: int = 48
) -> NDArray[np.float64]:
    """Outline of an ellipse in units, (points, 2); ``wobble`` holds amplitudes of the 2nd, 3rd, ... harmonic of the radius."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    amplitudes = np.asarray(wobble, dtype=np.float64)
    harmonics = np.arange(2, 2 + len(amplitudes))[:, None]
    scale = 1 + (amplitudes[:, None] * np.sin(harmonics * t + harmonics * harmonics)).sum(axis=0)
    x = radii[0] * scale * np.cos(t)
    y = radii[1] * scale * np.sin(t)
    return np.stack([centre[0] + x * np.cos(angle) - y * np.sin(angle), centre[1] + x * np.sin(angle) + y * np.cos(angle)], 1)


def band(curve: ArrayLike, width: ArrayLike) -> NDArray[np.float64]:
    """Outlines of bands along curves: (..., N, 2) points and a full width (scalar or N) in units -> (..., 2N, 2)."""
    line = np.asarray(curve, dtype=np.float64)
    tangent = np.gradient(line, axis=-2)
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(tangent, axis=-1), 1e-9)[..., None]
    half = np.broadcast_to(np.asarray(width, dtype=np.float64), line.shape[-2:-1]) / 2
    offset = normal * half[:, None]
    return np.concatenate([line + offset, (line - offset)[..., ::-1, :]], axis=-2)


def bounding_xyxy(mask: FloatImage, threshold: float = 0.25) -> tuple[float, float, float, float] | None:
    """Tight box of the pixels above ``threshold``: x0, y0, x1, y1 in pixels (x1, y1 exclusive); None where there are none."""
    columns = np.flatnonzero(mask.max(axis=0) > threshold)
    rows = np.flatnonzero(mask.max(axis=1) > threshold)
    if not len(columns) or not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
