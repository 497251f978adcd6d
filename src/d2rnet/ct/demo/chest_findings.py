"""Abnormalities of heart, vessels, mediastinum and oesophagus in the CT phantom, and medical material.

Each function draws one abnormality into a body, and notes what it drew and where. Reads and writes: nothing. Own work.
"""

import numpy as np

from d2rnet.ct.demo.canvas import Point, Solid
from d2rnet.ct.demo.drawn import Body, Drawn, Finding

LARGE_HEART = 1.3  # factor of the heart's radii with cardiomegaly
NODES: dict[str, Point] = {
    "right upper paratracheal": (-20.0, 10.0, 82.0),
    "right lower paratracheal": (-20.0, 8.0, 56.0),
    "aortopulmonary": (34.0, -4.0, 56.0),
    "subcarinal": (2.0, 26.0, 20.0),
    "prevascular": (8.0, -52.0, 66.0),
}


def cardiomegaly(body: Body) -> None:
    """Note the large heart; the body is drawn with it."""
    heart = body.canvas.ellipsoid(body.anatomy.heart_centre, body.anatomy.heart_radii)
    body.note(Drawn("Cardiomegaly", "heart_mediastinum_vessels", "cardiomegaly"), body.canvas.mask([heart]))


def pericardial_effusion(body: Body) -> None:
    """Draw fluid round the heart."""
    size = int(body.rng.integers(9, 20))
    centre = body.anatomy.heart_centre
    radii = body.anatomy.heart_radii
    inner = body.canvas.ellipsoid(centre, (0.95 * radii[0], 0.95 * radii[1], 0.95 * radii[2]))
    grow = size / body.scale
    outer = body.canvas.ellipsoid(centre, (radii[0] + grow, radii[1] + grow, radii[2] + grow))
    above = body.anatomy.depth_mm < 6
    mask = body.canvas.mask([outer], 0.5) & ~body.canvas.mask([inner], 0.5) & above & (body.anatomy.wall_mm > 2)
    mask &= body.canvas.hu < 30  # vessels and bone stay
    body.canvas.hu[mask] = 12.0
    body.anatomy.lungs &= ~mask
    body.note(Drawn("Pericardial effusion", "heart_mediastinum_vessels", "pericardial effusion", size_mm=size), mask)


def arterial_calcification(body: Body) -> None:
    """Draw plaques in the wall of the aorta."""
    line = body.anatomy.aorta[2:]
    wall = body.anatomy.patient.aorta_mm
    solids: list[Solid] = []
    for _ in range(int(body.rng.integers(4, 11))):
        place = int(body.rng.integers(len(line) - 1))
        share = float(body.rng.random())
        angle = float(body.rng.uniform(0, 2 * np.pi))
        x, y, z = (first + share * (last - first) for first, last in zip(line[place], line[place + 1], strict=True))
        centre = (x + wall * np.cos(angle) * 0.9, y + wall * np.sin(angle) * 0.9, z)
        radius = float(body.rng.uniform(2.2, 4.0))
        solids.append(body.canvas.ellipsoid(centre, (radius, radius, radius * 1.6)))
    mask = body.paint(solids, 900.0)
    body.note(Drawn("Arterial wall calcification", "heart_mediastinum_vessels", "aortic calcification"), mask)


def coronary_calcification(body: Body) -> None:
    """Draw plaques along the coronary arteries."""
    grade = body.choose("mild", "moderate", "severe")
    x, y, z = body.anatomy.heart_centre
    rx, ry, rz = body.anatomy.heart_radii
    courses = {
        "left anterior descending": [
            (x + 0.1 * rx, y - 0.55 * ry, z + 0.72 * rz),
            (x + 0.35 * rx, y - 0.9 * ry, z - 0.2 * rz),
        ],
        "circumflex": [(x + 0.25 * rx, y - 0.2 * ry, z + 0.8 * rz), (x + 0.85 * rx, y + 0.45 * ry, z + 0.05 * rz)],
        "right coronary": [(x - 0.3 * rx, y - 0.7 * ry, z + 0.6 * rz), (x - 0.8 * rx, y - 0.55 * ry, z - 0.2 * rz)],
    }
    solids: list[Solid] = []
    plaques = {"mild": 1, "moderate": 3, "severe": 5}[grade]
    for start, end in courses.values():
        for share in body.rng.random(plaques):
            centre = tuple(float(first + share * (last - first)) for first, last in zip(start, end, strict=True))
            solids.append(body.canvas.ellipsoid((centre[0], centre[1], centre[2]), (3.0, 3.0, 3.6)))
    mask = body.paint(solids, 1000.0)
    label = "Coronary artery wall calcification"
    body.note(Drawn(label, "heart_mediastinum_vessels", "coronary calcification", grade=grade), mask)


def hiatal_hernia(body: Body) -> None:
    """Draw a part of the stomach above the diaphragm, with air in it."""
    radius = float(body.rng.uniform(17, 28))
    centre = (14.0, 40.0, -52.0)
    mask = body.paint([body.canvas.ellipsoid(centre, (radius, radius * 0.9, radius))], 30.0)
    bubble = body.canvas.ellipsoid(
        (centre[0], centre[1] - radius * 0.45, centre[2] + 4), (radius * 0.55, radius * 0.3, radius * 0.5)
    )
    body.paint([bubble], -850.0)
    body.anatomy.lungs &= ~mask
    size = "small" if radius < 20 else "large" if radius > 25 else "moderate"
    body.note(Drawn("Hiatal hernia", "oesophagus", "hiatal hernia", grade=size), mask)


def lymphadenopathy(body: Body) -> None:
    """Draw enlarged lymph nodes in the mediastinum or an axilla."""
    size = int(body.rng.integers(13, 30))
    radius = size / 2 / body.scale
    if body.rng.random() < 0.2:
        side = body.choose("left", "right")
        sign = 1 if side == "left" else -1
        centre = (sign * 142.0, 6.0, 84.0)
        mask = body.paint([body.canvas.ellipsoid(centre, (radius, radius, radius * 1.3))], 48.0)
        body.note(Drawn("Lymphadenopathy", "breast_axilla_chest_wall", "axillary nodes", side, size_mm=size), mask)
        return
    stations = [str(name) for name in body.rng.permutation(list(NODES))[: int(body.rng.integers(1, 4))]]
    solids = [body.canvas.ellipsoid(NODES[name], (radius, radius, radius * 1.2), roughness=0.08) for name in stations]
    mask = body.paint(solids, 50.0, only=body.canvas.hu < 40)
    place = stations[0] if len(stations) == 1 else f"{', '.join(stations[:-1])} and {stations[-1]}"
    drawn = Drawn(
        "Lymphadenopathy", "heart_mediastinum_vessels", "mediastinal nodes", place=place, size_mm=size, count=len(stations)
    )
    body.note(drawn, mask)


def medical_material(body: Body) -> None:
    """Draw a pacemaker, a port, wires of a sternotomy, a prosthetic valve or a central line."""
    kind = body.choose("pacemaker", "port", "sternotomy", "valve", "central line")
    front = -(88 * body.anatomy.patient.depth + 14)
    canvas = body.canvas
    x, y, z = body.anatomy.heart_centre
    side, structure, solids = {
        "pacemaker": (
            "left",
            "breast_axilla_chest_wall",
            [
                canvas.ellipsoid((92.0, front + 22, 96.0), (21.0, 7.0, 17.0)),
                *canvas.path(
                    [(84.0, front + 24, 100.0), (20.0, -30.0, 104.0), (-22.0, -16.0, 40.0), (x - 8, y - 14, z - 24)], 2.4
                ),
            ],
        ),
        "port": (
            "right",
            "breast_axilla_chest_wall",
            [
                canvas.ellipsoid((-88.0, front + 18, 92.0), (13.0, 7.0, 12.0)),
                *canvas.path([(-84.0, front + 22, 98.0), (-34.0, -30.0, 116.0), (-22.0, -16.0, 36.0)], 2.0),
            ],
        ),
        "sternotomy": (
            "",
            "bone",
            [
                canvas.capsule((-12.0, front + 4, level), (12.0, front + 4, level), 2.6)
                for level in (-20.0, 5.0, 30.0, 55.0, 80.0)
            ],
        ),
        "valve": ("", "heart_mediastinum_vessels", _ring(body, (x - 2, y + 2, z + 22), 13.0)),
        "central line": (
            "right",
            "heart_mediastinum_vessels",
            canvas.path([(-34.0, -20.0, 152.0), (-24.0, -22.0, 104.0), (-23.0, -16.0, 34.0)], 2.6),
        ),
    }[kind]
    mask = body.paint(list(solids), 2400.0)
    body.note(Drawn("Medical material", structure, kind, side), mask)


def _ring(body: Body, centre: Point, radius: float) -> list[Solid]:
    angles = np.linspace(0, 2 * np.pi, 9)
    points = [(float(centre[0] + radius * np.cos(a)), float(centre[1] + radius * np.sin(a)), centre[2]) for a in angles]
    return body.canvas.path(points, 2.6)


CHEST_FINDINGS: dict[str, Finding] = {
    "Cardiomegaly": cardiomegaly,
    "Pericardial effusion": pericardial_effusion,
    "Hiatal hernia": hiatal_hernia,
    "Lymphadenopathy": lymphadenopathy,
    "Arterial wall calcification": arterial_calcification,
    "Coronary artery wall calcification": coronary_calcification,
    "Medical material": medical_material,
}
