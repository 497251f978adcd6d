"""Drawing primitives of the CT phantom: a volume in patient coordinates and antialiased solids.

Positions are *standard millimetres* (x to the patient's left, y to the back, z to the head; the origin lies at the middle of
the thorax, the carina at z = 40), so that size and position of a patient change nothing else: a voxel's standard position is
(its position - shift) / scale. Solids are evaluated in their own bounding box.

Reads and writes: nothing. Shapes: Z, Y, X voxels of the volume.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatVolume = NDArray[np.float32]
Point = tuple[float, float, float]  # x, y, z in standard mm
AIR_HU = -1000.0


@dataclass(frozen=True)
class Solid:
    """A solid on a canvas.

    Attributes:
        box: slices of the axes z, y, x that hold it.
        weight: share of each voxel of the box that it fills, 0 to 1.
    """

    box: tuple[slice, slice, slice]
    weight: FloatVolume


class Canvas:
    """A volume that is drawn on.

    Attributes:
        hu: (Z, Y, X) float32, Hounsfield units.
        z, y, x: standard mm of the voxels' centres, shapes (Z, 1, 1), (1, Y, 1), (1, 1, X).
        voxel_mm: mean side of a voxel in plane, standard mm: the width of a soft edge.
    """

    def __init__(self, z: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]) -> None:
        self.z = z[:, None, None]
        self.y = y[None, :, None]
        self.x = x[None, None, :]
        self.hu: FloatVolume = np.full((len(z), len(y), len(x)), AIR_HU, dtype=np.float32)
        self.voxel_mm = float(x[1] - x[0])
        self._places: tuple[list[float], ...] = (z.tolist(), y.tolist(), x.tolist())

    def box(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice, slice]:
        """Return the slices (z, y, x) of the voxels between two corners (x, y, z) in standard mm, and a voxel more."""
        found = []
        for places, lowest, highest in zip(self._places, reversed(low), reversed(high), strict=True):
            first = max(bisect_left(places, lowest) - 1, 0)
            last = min(bisect_left(places, highest) + 1, len(places))
            found.append(slice(first, max(first, last)))
        return found[0], found[1], found[2]

    def coordinates(self, box: tuple[slice, slice, slice]) -> tuple[FloatVolume, FloatVolume, FloatVolume]:
        """Return x, y, z of the voxels of a box, broadcastable to its shape."""
        return self.x[:, :, box[2]], self.y[:, box[1]], self.z[box[0]]

    def ellipsoid(self, centre: Point, radii: Point, *, roughness: float = 0.0, phase: float = 0.0) -> Solid:
        """Return an ellipsoid along the axes.

        Args:
            centre: x, y, z.
            radii: along x, y, z.
            roughness: share of the radius by which the surface undulates.
            phase: of the undulation, radians.
        """
        reach = 1.0 + roughness
        low = [middle - reach * radius for middle, radius in zip(centre, radii, strict=True)]
        high = [middle + reach * radius for middle, radius in zip(centre, radii, strict=True)]
        box = self.box(low, high)
        x, y, z = self.coordinates(box)
        dx = (x - centre[0]) / radii[0]
        dy = (y - centre[1]) / radii[1]
        dz = (z - centre[2]) / radii[2]
        distance = np.sqrt(dx * dx + dy * dy + dz * dz)
        if roughness:
            wave = np.sin(5 * dx + phase) * np.sin(4 * dy - phase) + np.sin(4 * dz + 2 * phase)
            distance = distance - roughness * 0.6 * wave
        return Solid(box, self._soft((1.0 - distance) * min(radii)))

    def capsule(self, start: Point, end: Point, radius: float, end_radius: float | None = None) -> Solid:
        """Return a rod with round ends; its radius changes linearly from ``radius`` to ``end_radius``."""
        last = radius if end_radius is None else end_radius
        reach = max(radius, last) + self.voxel_mm
        low = [min(pair) - reach for pair in zip(start, end, strict=True)]
        high = [max(pair) + reach for pair in zip(start, end, strict=True)]
        box = self.box(low, high)
        x, y, z = self.coordinates(box)
        axis = np.subtract(end, start).astype(np.float32)
        length2 = float(axis @ axis) or 1.0
        x, y, z = x - start[0], y - start[1], z - start[2]
        along = _between_0_and_1((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(length2))
        squared = np.square(x - along * axis[0])
        squared += np.square(y - along * axis[1])
        squared += np.square(z - along * axis[2])
        distance = np.sqrt(squared, out=squared)
        return Solid(box, self._soft(radius + along * (last - radius) - distance, thin=min(radius, last)))

    def path(self, points: Sequence[Point], radius: float, end_radius: float | None = None) -> list[Solid]:
        """Return the rods of a polyline; the radius changes evenly from its first to its last point."""
        last = radius if end_radius is None else end_radius
        radii = np.linspace(radius, last, len(points))
        pairs = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
        return [self.capsule(start, end, float(first), float(second)) for start, end, first, second in pairs]

    def _soft(self, inside_mm: FloatVolume, thin: float = np.inf) -> FloatVolume:
        """Turn the depth below a surface into the share of a voxel that is filled; solids thinner than a voxel fill less."""
        weight = _between_0_and_1(0.5 + inside_mm / np.float32(self.voxel_mm))
        fullest = (2 * thin / self.voxel_mm) ** 1.5
        if fullest < 1.0:
            weight *= np.float32(fullest)
        return weight.astype(np.float32, copy=False)

    def paint(self, solid: Solid, hu: float, *, only: NDArray[np.bool_] | None = None) -> None:
        """Fill a solid with a Hounsfield value; ``only`` limits it to some voxels of the volume."""
        weight = solid.weight if only is None else solid.weight * only[solid.box]
        part = self.hu[solid.box]
        part += weight * (np.float32(hu) - part)

    def mask(self, solids: Sequence[Solid], threshold: float = 0.3) -> NDArray[np.bool_]:
        """Return the voxels (Z, Y, X) of which solids fill more than a share."""
        found = np.zeros(self.hu.shape, dtype=bool)
        for solid in solids:
            found[solid.box] |= solid.weight > threshold
        return found


def _between_0_and_1(values: FloatVolume) -> FloatVolume:
    """Clip values in place: a third of the time of numpy's clip where there are few."""
    return np.minimum(np.maximum(values, 0, out=values), 1, out=values)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int], knots: tuple[int, int, int]) -> FloatVolume:
    """Return noise of mean about 0 and standard deviation about 0.6 that varies slowly: a coarse grid, interpolated linearly.

    Args:
        rng: source of the grid's normal deviates.
        shape: of the result (Z, Y, X).
        knots: points of the grid along each axis, at least 2.
    """
    noise = rng.standard_normal(knots, dtype=np.float32)
    for axis, size in enumerate(shape):
        place = np.linspace(0, knots[axis] - 1, size, dtype=np.float32)
        low = np.minimum(place.astype(int), knots[axis] - 2)
        share = (place - low).reshape([-1 if other == axis else 1 for other in range(3)]).astype(np.float32)
        noise = np.take(noise, low, axis) * (1 - share) + np.take(noise, low + 1, axis) * share
    return noise
