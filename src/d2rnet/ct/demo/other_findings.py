"""Findings that none of the 18 labels names: of the upper abdomen, bones, thyroid, chest wall and trachea.

Without them nothing that a report says of these structures would differ between volumes. Each function draws one into a body,
and notes what it drew and where. Reads and writes: nothing. Own work.
"""

import numpy as np

from d2rnet.ct.demo.anatomy import SPINE_Y, VERTEBRA_MM, WALL_MM
from d2rnet.ct.demo.canvas import Point
from d2rnet.ct.demo.drawn import Body, Drawn, Finding


def fatty_liver(body: Body) -> None:
    """Lower the density of the liver below that of the spleen."""
    liver = body.anatomy.organs["liver"]
    body.canvas.hu[liver] -= 70.0
    body.note(Drawn("Fatty liver", "abdomen", "fatty liver"), liver)


def liver_lesion(body: Body) -> None:
    """Draw one to three dark lesions in the liver."""
    size = int(body.rng.integers(22, 56))
    count = int(body.rng.integers(1, 4))
    liver = body.anatomy.organs["liver"]
    mask = np.zeros_like(liver)
    for number in range(count):
        radius = size / 2 / body.scale * (1.0 if number == 0 else 0.7)
        centre = body.point_in(liver, margin_mm=radius)
        mask |= body.paint([body.canvas.ellipsoid(centre, (radius, radius, radius), roughness=0.1)], -25.0, only=liver)
    body.note(Drawn("Liver lesion", "abdomen", "liver lesion", size_mm=size, count=count), mask)


def bone_metastases(body: Body) -> None:
    """Draw dense lesions in two to five vertebral bodies."""
    levels = np.arange(-6, 6)
    chosen = body.rng.choice(levels, int(body.rng.integers(2, 6)), replace=False)
    centres: list[Point] = [(0.0, SPINE_Y, VERTEBRA_MM * (float(level) + 0.5)) for level in chosen]
    mask = body.paint([body.canvas.ellipsoid(centre, (15.0, 12.0, 8.5), roughness=0.1) for centre in centres], 950.0)
    body.note(Drawn("Bone metastases", "bone", "bone metastases", count=len(chosen)), mask)


def low_bone_density(body: Body) -> None:
    """Take half of the density from all bones."""
    mask = body.anatomy.structures["bone"] & (body.canvas.hu > 130)
    body.canvas.hu[mask] *= 0.5
    body.note(Drawn("Low bone density", "bone", "low bone density"), mask)


def goitre(body: Body) -> None:
    """Enlarge the thyroid, with dark nodules in it."""
    soft = body.canvas.hu > -300  # the trachea stays open
    lobes = [body.canvas.ellipsoid((side * 27.0 + 2.0, 0.0, 142.0), (18.0, 19.0, 30.0), roughness=0.1) for side in (-1, 1)]
    mask = body.paint(lobes, 125.0, only=soft)
    for _ in range(5):
        side = float(body.rng.choice([-1.0, 1.0]))
        across, along = body.rng.normal(0, 6, 2).tolist()
        centre = (side * 27.0 + 2.0 + across, along, float(body.rng.uniform(122, 156)))
        body.paint([body.canvas.ellipsoid(centre, (6.0, 6.0, 6.0))], 15.0, only=mask)
    body.note(Drawn("Goitre", "thyroid", "goitre"), mask)


def chest_wall_mass(body: Body) -> None:
    """Draw a mass in a breast, or in the soft tissue of a man's chest wall."""
    size = int(body.rng.integers(24, 56))
    radius = size / 2 / body.scale
    side = body.choose("left", "right")
    sign = 1 if side == "left" else -1
    patient = body.anatomy.patient
    front = -(88 * patient.depth + WALL_MM)
    centre = (sign * 70.0, front - (14.0 if patient.is_female else -4.0), -6.0)
    solid = body.canvas.ellipsoid(centre, (radius, radius * 0.8, radius), roughness=0.15)
    mask = body.paint([solid], 85.0, only=(body.canvas.hu > -400) & (body.anatomy.wall_mm < -12))
    kind = "breast mass" if patient.is_female else "chest wall mass"
    body.note(Drawn("Chest wall mass", "breast_axilla_chest_wall", kind, side, size_mm=size), mask)


def tracheal_secretion(body: Body) -> None:
    """Fill a part of the trachea with secretion."""
    level = float(body.rng.uniform(66, 120))
    plug = body.canvas.ellipsoid((0.5, 12.5, level), (7.5, 7.5, 17.0))
    lumen = body.anatomy.structures["trachea_bronchi"] & (body.canvas.hu < -500)
    mask = body.paint([plug], 10.0, only=lumen)
    body.note(Drawn("Tracheal secretion", "trachea_bronchi", "tracheal secretion"), mask)


OTHER_FINDINGS: dict[str, Finding] = {
    "Fatty liver": fatty_liver,
    "Liver lesion": liver_lesion,
    "Low bone density": low_bone_density,
    "Bone metastases": bone_metastases,
    "Goitre": goitre,
    "Chest wall mass": chest_wall_mass,
    "Tracheal secretion": tracheal_secretion,
}
