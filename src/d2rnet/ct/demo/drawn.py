"""What a demo patient has: one abnormality as it was drawn, and helpers for choosing places.

Reads and writes: nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.demo.anatomy import Anatomy
from d2rnet.ct.demo.canvas import Canvas, Point, Solid
from d2rnet.ct.demo.trees import Bronchus

Mask = NDArray[np.bool_]
UPPER_LOBES = ("right upper lobe", "left upper lobe")
LOWER_LOBES = ("right lower lobe", "left lower lobe")


@dataclass(frozen=True)
class Drawn:
    """An abnormality that was drawn.

    Attributes:
        label: one of :data:`d2rnet.findings.ct_classes.CT_ABNORMALITIES`, or the name of a finding that none of them covers.
        structure: the structure that its sentence belongs to.
        kind: which wording tells it.
        side: the patient's "left", "right", "bilateral", or "" where there is no side.
        place: lobe or other place in words, "" where the wording needs none.
        size_mm: size that the report tells, true mm; 0 where it tells none.
        grade: "mild", "moderate", "severe" or "".
        count: how many.
    """

    label: str
    structure: str
    kind: str
    side: str = ""
    place: str = ""
    size_mm: int = 0
    grade: str = ""
    count: int = 1


@dataclass
class Body:
    """A body that findings are drawn into.

    Attributes:
        anatomy: where things are.
        bronchi: the airways.
        rng: source of places and sizes.
        masks: label -> voxels (Z, Y, X) of what was drawn.
        drawn: what was drawn.
    """

    anatomy: Anatomy
    bronchi: list[Bronchus]
    rng: np.random.Generator
    masks: dict[str, Mask] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)
    _voxels: dict[int, tuple[Mask, NDArray[np.intp]]] = field(default_factory=dict)

    @property
    def canvas(self) -> Canvas:
        """The volume."""
        return self.anatomy.canvas

    @property
    def scale(self) -> float:
        """True mm per standard mm."""
        return self.anatomy.patient.scale

    def note(self, drawn: Drawn, mask: Mask) -> None:
        """Keep what was drawn and where: from now on it is part of its structure, as fluid is of the pleural space."""
        self.drawn.append(drawn)
        self.anatomy.structures[drawn.structure] |= mask
        self.masks[drawn.label] = self.masks[drawn.label] | mask if drawn.label in self.masks else mask

    def paint(self, solids: list[Solid], hu: float, *, only: Mask | None = None) -> Mask:
        """Paint solids and return their voxels."""
        for solid in solids:
            self.canvas.paint(solid, hu, only=only)
        mask = self.canvas.mask(solids)
        return mask if only is None else mask & only

    def choose(self, *options: str) -> str:
        """Return one of some words."""
        return options[int(self.rng.integers(len(options)))]

    def point_in(self, mask: Mask, *, margin_mm: float = 0.0) -> Point:
        """Return a random place of a mask, ``margin_mm`` from the chest wall if one of 40 tries finds such."""
        known = self._voxels.get(id(mask))
        voxels = known[1] if known else np.flatnonzero(mask)
        self._voxels[id(mask)] = (mask, voxels)  # the mask is kept, so that its id is not given to another
        for place in voxels[self.rng.integers(0, len(voxels), 40)]:
            z, y, x = np.unravel_index(place, mask.shape)
            if self.anatomy.wall_mm[z, y, x] > margin_mm:
                break
        axes = self.canvas
        return float(axes.x[0, 0, x]), float(axes.y[0, y, 0]), float(axes.z[z, 0, 0])

    def lobe(self, *names: str) -> str:
        """Return one of some lobes (all where none is given) that has voxels in this scan."""
        options = [name for name in names or tuple(self.anatomy.lobes) if self.anatomy.lobes[name].any()]
        return self.choose(*options)


Finding = Callable[[Body], None]


def side_of(lobe: str) -> str:
    """Return the side of a lobe; the lingula is on the left."""
    return "right" if lobe.startswith("right") else "left"
