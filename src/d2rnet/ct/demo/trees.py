"""Airways and lung vessels of the CT phantom: trees of rods that grow from the hila into the lobes.

Reads and writes: nothing. Positions: standard mm. Own work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2rnet.ct.demo.anatomy import CARINA, Anatomy
from d2rnet.ct.demo.canvas import Canvas, Point, Solid

HILA: dict[str, Point] = {"right": (-38.0, 18.0, 22.0), "left": (42.0, 20.0, 22.0)}
LOBE_TARGETS: dict[str, Point] = {
    "right upper lobe": (-62.0, 0.0, 82.0),
    "right middle lobe": (-64.0, -44.0, -8.0),
    "right lower lobe": (-66.0, 42.0, -40.0),
    "left upper lobe": (62.0, -4.0, 82.0),
    "lingula": (82.0, -42.0, -4.0),
    "left lower lobe": (68.0, 42.0, -44.0),
}
_VESSELS_PER_LOBE = 34


@dataclass(frozen=True)
class Bronchus:
    """A branch of the airways.

    Attributes:
        lobe: the lobe that it leads to, "" for trachea and main bronchi.
        points: its centre line.
        radius: of the lumen at its start, standard mm.
        end_radius: at its end.
    """

    lobe: str
    points: tuple[Point, ...]
    radius: float
    end_radius: float


def draw_trees(anatomy: Anatomy, blood_hu: float, rng: np.random.Generator) -> list[Bronchus]:
    """Draw lung vessels and airways; return the bronchi."""
    canvas = anatomy.canvas
    for lobe, target in LOBE_TARGETS.items():
        hilum = HILA["right" if target[0] < 0 else "left"]
        voxels = np.flatnonzero(anatomy.lobes[lobe])
        if len(voxels):
            _draw_vessels(anatomy, hilum, voxels, blood_hu, rng)
    bronchi = _bronchi(rng)
    for bronchus in bronchi:
        draw_bronchus(canvas, bronchus, wall_mm=1.8)
    anatomy.structures["trachea_bronchi"] = canvas.mask(
        [
            solid
            for bronchus in bronchi
            for solid in canvas.path(bronchus.points, bronchus.radius + 2, bronchus.end_radius + 2)
        ],
        0.5,
    )
    return bronchi


def draw_bronchus(canvas: Canvas, bronchus: Bronchus, *, wall_mm: float, wall_hu: float = 20.0) -> list[Solid]:
    """Draw a branch with its wall; return the solids of the wall."""
    wall = canvas.path(bronchus.points, bronchus.radius + wall_mm, bronchus.end_radius + wall_mm)
    for solid in wall:
        canvas.paint(solid, wall_hu)
    for solid in canvas.path(bronchus.points, bronchus.radius, bronchus.end_radius):
        canvas.paint(solid, -990.0)
    return wall


def _draw_vessels(anatomy: Anatomy, hilum: Point, voxels: np.ndarray, blood_hu: float, rng: np.random.Generator) -> None:
    """Draw arteries and veins from a hilum to random ones of a lobe's voxels (flat indices), each with side branches."""
    canvas = anatomy.canvas
    chosen = voxels[rng.integers(0, len(voxels), _VESSELS_PER_LOBE)]
    axes = (canvas.x.reshape(-1), canvas.y.reshape(-1), canvas.z.reshape(-1))
    places = np.unravel_index(chosen, canvas.hu.shape)[::-1]  # x, y, z
    for target in zip(*(axis[place].tolist() for axis, place in zip(axes, places, strict=True)), strict=True):
        middle = _between(hilum, target, 0.5, rng, 9.0)
        width = float(rng.uniform(1.8, 4.6))
        solids = canvas.path([hilum, middle, target], width, 0.9)
        for _ in range(2):
            start = _between(hilum, target, float(rng.uniform(0.4, 0.75)), rng, 3.0)
            end = tuple(float(value + step) for value, step in zip(start, rng.normal(0, 17, 3), strict=True))
            solids.append(canvas.capsule(start, (end[0], end[1], end[2]), width * 0.45, 0.7))
        for solid in solids:
            canvas.paint(solid, blood_hu, only=anatomy.lungs)


def _between(start: Sequence[float], end: Sequence[float], share: float, rng: np.random.Generator, spread: float) -> Point:
    """Return a point between two, a little aside."""
    x, y, z = (first + share * (last - first) for first, last in zip(start, end, strict=True))
    aside = rng.normal(0, spread, 3)
    return float(x + aside[0]), float(y + aside[1]), float(z + aside[2])


def _bronchi(rng: np.random.Generator) -> list[Bronchus]:
    """Return trachea, main bronchi, and the bronchus of each lobe with its segments."""
    found = [Bronchus("", ((1.0, 14.0, 170.0), (0.0, 12.0, 100.0), CARINA), 8.6, 8.2)]
    for hilum in HILA.values():
        found.append(Bronchus("", (CARINA, hilum), 6.4, 5.4))
    for lobe, target in LOBE_TARGETS.items():
        hilum = HILA["right" if target[0] < 0 else "left"]
        knee = _between(hilum, target, 0.4, rng, 3.0)
        found.append(Bronchus(lobe, (hilum, knee), 4.4, 3.2))
        for _ in range(3):
            end = _between(knee, target, float(rng.uniform(0.7, 1.2)), rng, 14.0)
            found.append(Bronchus(lobe, (knee, end), 2.6, 1.5))
    return found
