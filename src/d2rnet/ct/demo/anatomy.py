"""The body of the CT phantom: wall, bones, lungs, mediastinum, organs of the neck and the upper abdomen.

Drawn from the outside in, each organ over what lies there before. What findings need to know of where things are is kept as
masks and landmarks in :class:`Anatomy`. Positions: standard mm, x to the patient's left, y to the back, z to the head.

Reads and writes: nothing. Own work.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.demo.canvas import Canvas, Point, Solid, smooth_noise
from d2rnet.ct.demo.patient import Patient, Scan

Mask = NDArray[np.bool_]
FAT_HU = -95.0
MUSCLE_HU = 52.0
BONE_HU = 260.0
LUNG_HU = -860.0
APEX_Z = 132.0
CARINA: Point = (2.0, 18.0, 40.0)
SPINE_Y = 72.0
WALL_MM = 20.0
RIB_STEP_MM = 25.0
VERTEBRA_MM = 24.0  # from disc to disc; one lies at z = 0
LOBES = {
    "right upper lobe": ("right", False, False),
    "right middle lobe": ("right", False, True),
    "right lower lobe": ("right", True, None),
    "left upper lobe": ("left", False, False),
    "lingula": ("left", False, True),
    "left lower lobe": ("left", True, None),
}


@dataclass
class Anatomy:
    """Where things are in a drawn body.

    Attributes:
        canvas: the volume.
        patient: whose body.
        heart_centre: x, y, z.
        heart_radii: along x, y, z.
        aorta: points of its centre line from the valve to the abdomen.
        structures: structure of the report tables -> its voxels (Z, Y, X).
        organs: "liver" -> its voxels.
        lobes: name -> voxels.
        lungs: voxels of both.
        depth_mm: depth (Z, Y, X) of a voxel below the dome of the diaphragm on its side, standard mm; negative above.
        wall_mm: distance (Z, Y, X) to the inner chest wall along the radius, standard mm; negative outside the cavity.
    """

    canvas: Canvas
    patient: Patient
    heart_centre: Point
    heart_radii: Point
    aorta: list[Point]
    structures: dict[str, Mask] = field(default_factory=dict)
    organs: dict[str, Mask] = field(default_factory=dict)
    lobes: dict[str, Mask] = field(default_factory=dict)
    lungs: Mask = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    depth_mm: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))
    wall_mm: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))


def draw_body(canvas: Canvas, patient: Patient, scan: Scan, heart_factor: float, rng: np.random.Generator) -> Anatomy:
    """Draw a healthy body.

    Args:
        canvas: empty volume.
        patient: whose body.
        scan: breathing and contrast.
        heart_factor: what the heart's radii are multiplied with, above 1.2 for a large heart.
        rng: textures.
    """
    factor = patient.heart * heart_factor
    anatomy = Anatomy(
        canvas,
        patient,
        heart_centre=(22.0 + 12 * (factor - 1), -30.0 * patient.depth, -22.0 + 0.4 * scan.breath_mm),
        heart_radii=(56.0 * factor, 44.0 * factor, 50.0 * factor),
        aorta=_aorta_line(),
    )
    _draw_wall(anatomy, scan, rng)
    _draw_lungs(anatomy, scan, rng)
    _draw_abdomen(anatomy, scan, rng)
    _draw_bones(anatomy)
    _draw_mediastinum(anatomy, scan)
    _draw_neck(anatomy, scan)
    return anatomy


def _aorta_line() -> list[Point]:
    """Ascending, arch from the right front to the left back, descending beside the spine."""
    arch = [(12 + 26 * share, -22 + 62 * share, 58 + 26 * np.sin(np.pi * share)) for share in np.linspace(0, 1, 7)]
    descending = [(36 - 20 * share, 42 + 6 * share, 52 - 230 * share) for share in np.linspace(0, 1, 6)]
    line: list[Point] = [(8.0, -26.0, 2.0), (14.0, -28.0, 30.0)]
    return line + [(float(x), float(y), float(z)) for x, y, z in [*arch, *descending]]


def _profile(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Width of the chest cavity at a height as share of the greatest, 0 above the apices."""
    above = np.clip((z - 5) / (APEX_Z - 5), 0, None)
    return np.sqrt(np.clip(1 - above**2.6, 0, None)).astype(np.float32)


def _draw_wall(anatomy: Anatomy, scan: Scan, rng: np.random.Generator) -> None:
    """Draw skin, fat, muscle, the empty cavity, breasts and the table."""
    canvas = anatomy.canvas
    depth = anatomy.patient.depth
    z = canvas.z
    cavity_x = np.float32(122) * _profile(z)
    cavity_y = np.float32(88 * depth) * _profile(z)
    shoulder = np.clip((z - 60) / 70, 0, 1)
    muscle_x = 122 + WALL_MM + 14 * shoulder - 40 * np.clip((z - 125) / 40, 0, 1)
    muscle_y = 88 * depth + WALL_MM - 14 * shoulder
    radius_muscle = _oval(canvas, muscle_x, muscle_y)
    skin_x = muscle_x + anatomy.patient.fat_mm
    skin_y = muscle_y + anatomy.patient.fat_mm * 0.8
    radius_skin = _oval(canvas, skin_x, skin_y)
    hu = canvas.hu
    edge = canvas.voxel_mm
    body = np.clip(0.5 + (1 - radius_skin) * skin_y / edge, 0, 1)
    hu += body * (FAT_HU - hu)
    anatomy.structures["breast_axilla_chest_wall"] = radius_skin < 1
    if anatomy.patient.is_female:
        _draw_breasts(anatomy, rng)
    muscle = np.clip(0.5 + (1 - radius_muscle) * muscle_y / edge, 0, 1)
    streaks = smooth_noise(rng, hu.shape, (18, 26, 26)) > 0.95  # fat between muscles
    hu += muscle * (np.where(streaks, np.float32(-40), np.float32(MUSCLE_HU)) - hu)
    radius = _oval(canvas, np.maximum(cavity_x, 1e-3), np.maximum(cavity_y, 1e-3))
    anatomy.wall_mm = ((1 - radius) * cavity_y).astype(np.float32)
    in_cavity = np.clip(0.5 + anatomy.wall_mm / edge, 0, 1)
    hu += in_cavity * (FAT_HU - hu)
    anatomy.structures["pleura"] = np.abs(anatomy.wall_mm) < 4
    anatomy.structures["breast_axilla_chest_wall"] &= anatomy.wall_mm < -12
    back = 88 * depth + WALL_MM + anatomy.patient.fat_mm * 0.8
    curve = back + 7 - 0.0011 * canvas.x**2
    table = (np.abs(canvas.y - curve) < 3) & (np.abs(canvas.x) < 190) & (canvas.hu < -900)
    canvas.hu[table] = -350


def _oval(canvas: Canvas, half_x: NDArray[Any], half_y: NDArray[Any]) -> NDArray[Any]:
    """Return the distance (Z, Y, X) from the middle as share of the radius of a rounded oval."""
    return ((np.abs(canvas.x) / half_x) ** 2.3 + (np.abs(canvas.y) / half_y) ** 2.3) ** np.float32(1 / 2.3)


def _draw_breasts(anatomy: Anatomy, rng: np.random.Generator) -> None:
    canvas = anatomy.canvas
    front = -(88 * anatomy.patient.depth + WALL_MM)
    size = float(rng.uniform(0.8, 1.3))
    density = float(rng.uniform(0.25, 0.75))
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 68.0, front, -5.0), (56 * size, 42 * size, 55 * size)), FAT_HU)
        gland = canvas.ellipsoid((side * 70.0, front - 12 * size, -6.0), (32 * size, 18 * size, 30 * size), roughness=0.3)
        canvas.paint(Solid(gland.box, gland.weight * np.float32(density)), 25.0)


def _draw_lungs(anatomy: Anatomy, scan: Scan, rng: np.random.Generator) -> None:
    """Carve the lungs out of the cavity, down to the domes of the diaphragm, and lay their lobes."""
    canvas = anatomy.canvas
    x, y, z = canvas.x, canvas.y, canvas.z
    is_left = x > 0
    # domes: highest near the middle of each side, falling to the costophrenic angles, most of all at the back
    top = np.where(is_left, -62.0, -50.0) + scan.breath_mm
    dome = top - 0.0062 * (np.abs(x) - 56) ** 2 - np.where(y > -12, 0.0085, 0.0045) * (y + 12) ** 2
    anatomy.depth_mm = np.broadcast_to(dome - z, canvas.hu.shape).astype(np.float32)
    middle = 13 + 17 * np.exp(-(((y - 6) / 46) ** 2)) + 5 * np.clip((60 - z) / 60, 0, 1)
    free = (anatomy.wall_mm > 1) & (anatomy.depth_mm < 0) & (np.abs(x - 3) > middle)
    around_spine = (x / 30) ** 2 + ((y - SPINE_Y) / 28) ** 2 > 1
    lungs = free & around_spine & (z < APEX_Z)
    anatomy.lungs = lungs
    gravity = 55 * np.clip((y + 60) / 130, 0, 1) + scan.breath_mm * 2.5
    tissue = LUNG_HU + gravity + 14 * smooth_noise(rng, canvas.hu.shape, (12, 16, 16))
    canvas.hu[lungs] = tissue[lungs]
    lower = np.broadcast_to(y - 0.9 * (z - 22) > 14, lungs.shape)  # behind and below the oblique fissure
    low = np.broadcast_to(z < 12, lungs.shape)
    for name, (side, is_lower, is_middle) in LOBES.items():
        of_side = lungs & (is_left if side == "left" else ~is_left)
        anatomy.lobes[name] = of_side & lower if is_lower else of_side & ~lower & (low if is_middle else ~low)
    line = lungs & (np.abs(y - 0.9 * (z - 22) - 14) < 1.6)
    canvas.hu[line] += 90
    horizontal = lungs & ~is_left & ~lower & (np.abs(z - 12) < 2.2)
    canvas.hu[horizontal] += 60
    anatomy.structures["lung"] = lungs


def _draw_bones(anatomy: Anatomy) -> None:
    """Draw ribs, spine, sternum, clavicles and scapulae."""
    canvas = anatomy.canvas
    x, y, z = canvas.x, canvas.y, canvas.z
    bone = np.zeros(canvas.hu.shape, dtype=bool)
    shell = np.abs(anatomy.wall_mm + 7.5) < 4.5
    # a rib falls from the spine to its front end; front runs from 0 at the back to 1 at the sternum
    front = np.clip((SPINE_Y - y) / (SPINE_Y + 80), 0, 1)
    level = z + 46 * front
    on_rib = np.abs(np.mod(level + 6, RIB_STEP_MM) - RIB_STEP_MM / 2) < 4.6
    ribs = shell & on_rib & (level > -95) & (level < APEX_Z + 6)
    cartilage = ribs & (y < -58) & (np.abs(x) < 68)
    canvas.hu[ribs] = BONE_HU + 90
    canvas.hu[cartilage] = 105
    bone |= ribs
    spine = np.broadcast_to((x / 19) ** 2 + ((y - SPINE_Y) / 16) ** 2 < 1, bone.shape)
    disc = np.broadcast_to(np.abs(np.mod(z, VERTEBRA_MM) - VERTEBRA_MM / 2) > 9.5, bone.shape)
    canvas.hu[spine] = BONE_HU - 60
    canvas.hu[spine & disc] = 85
    rim = spine & ~np.broadcast_to((x / 16) ** 2 + ((y - SPINE_Y) / 13) ** 2 < 1, bone.shape) & ~disc
    canvas.hu[rim] = BONE_HU + 120
    bone |= spine
    canal = np.broadcast_to((x / 9) ** 2 + ((y - SPINE_Y - 24) / 8) ** 2 < 1, bone.shape)
    arch = np.broadcast_to((x / 15) ** 2 + ((y - SPINE_Y - 24) / 14) ** 2 < 1, bone.shape) & ~canal & ~disc
    canvas.hu[arch] = BONE_HU + 60
    canvas.hu[canal] = 30
    bone |= arch
    spinous = (np.abs(x) < 4) & (y > SPINE_Y + 36) & (y < SPINE_Y + 56) & (np.mod(z, VERTEBRA_MM) < 15) & (anatomy.wall_mm < 0)
    transverse = (np.abs(y - SPINE_Y - 22) < 4.5) & (np.abs(x) < 34) & (np.mod(z, VERTEBRA_MM) < 9)
    for part in (spinous, transverse):
        canvas.hu[np.broadcast_to(part, bone.shape)] = BONE_HU
        bone |= part
    sternum_y = -(88 * anatomy.patient.depth + 6)
    sternum = (np.abs(x) < 15) & (np.abs(y - sternum_y - 0.16 * np.clip(z - 40, 0, None)) < 6) & (z > -35) & (z < 98)
    canvas.hu[np.broadcast_to(sternum, bone.shape)] = BONE_HU - 40
    bone |= sternum
    solids = []
    for side in (-1, 1):
        solids += canvas.path([(side * 16.0, -62.0, 104.0), (side * 70.0, -58.0, 122.0), (side * 128.0, -8.0, 136.0)], 6.5)
        scapula = canvas.path([(side * 108.0, 96.0, 40.0), (side * 122.0, 84.0, 80.0), (side * 136.0, 58.0, 122.0)], 5.5, 8.0)
        solids += [*scapula, canvas.capsule((side * 84.0, 102.0, 100.0), (side * 128.0, 66.0, 112.0), 4.5)]
        solids += [canvas.ellipsoid((side * 150.0, 30.0, 128.0), (22.0, 22.0, 24.0))]
    outside = anatomy.wall_mm < -4
    for solid in solids:
        canvas.paint(solid, BONE_HU + 60, only=outside)
    anatomy.structures["bone"] = bone | (canvas.mask(solids) & outside)


def _draw_mediastinum(anatomy: Anatomy, scan: Scan) -> None:
    """Draw heart, great vessels and oesophagus, over lungs and fat."""
    canvas = anatomy.canvas
    blood = scan.contrast_hu
    centre = anatomy.heart_centre
    radii = anatomy.heart_radii
    above_diaphragm = anatomy.depth_mm < 14
    heart = canvas.ellipsoid(centre, radii, roughness=0.05)
    canvas.paint(heart, 44.0, only=above_diaphragm)
    unit = radii[0] / 56
    chambers = {  # left and right ventricle, left and right atrium
        (20.0, -4.0, -14.0): (24.0, 20.0, 28.0),
        (-6.0, -22.0, -12.0): (26.0, 16.0, 26.0),
        (2.0, 22.0, 14.0): (27.0, 16.0, 20.0),
        (-34.0, 2.0, 4.0): (18.0, 22.0, 27.0),
    }
    for offset, size in chambers.items():
        middle = tuple(float(place + unit * step) for place, step in zip(centre, offset, strict=True))
        solid = canvas.ellipsoid((middle[0], middle[1], middle[2]), (size[0] * unit, size[1] * unit, size[2] * unit))
        canvas.paint(solid, blood, only=above_diaphragm)
    wall = anatomy.patient.aorta_mm
    vessels = canvas.path(anatomy.aorta, wall, wall * 0.8)
    trunk = canvas.path([(20.0, -36.0, 4.0), (24.0, -24.0, 30.0), (30.0, 4.0, 36.0)], 13.0, 10.0)
    right_branch = canvas.path([(20.0, -10.0, 32.0), (-14.0, 2.0, 32.0), (-42.0, 10.0, 24.0)], 10.0, 8.0)
    left_branch = canvas.path([(28.0, 0.0, 36.0), (46.0, 18.0, 28.0)], 10.0, 8.0)
    cava = canvas.path([(-20.0, -22.0, 104.0), (-22.0, -16.0, 40.0), (-26.0, -14.0, -4.0)], 8.5, 10.0)
    lower_cava = canvas.path([(-24.0, 8.0, -30.0), (-24.0, 18.0, -150.0)], 11.0)
    arms = [
        *canvas.path([(14.0, -24.0, 80.0), (-14.0, -18.0, 108.0), (-22.0, -8.0, 150.0)], 6.0),
        *canvas.path([(24.0, 2.0, 84.0), (24.0, -2.0, 116.0), (22.0, 4.0, 156.0)], 5.0),
        *canvas.path([(34.0, 16.0, 82.0), (44.0, 10.0, 118.0), (70.0, -6.0, 134.0)], 5.5),
        *canvas.path([(-20.0, -24.0, 102.0), (10.0, -34.0, 96.0), (34.0, -30.0, 108.0)], 6.0),
    ]
    everything = [*vessels, *trunk, *right_branch, *left_branch, *cava, *lower_cava, *arms]
    for solid in everything:
        canvas.paint(solid, blood)
    heart_mask = canvas.mask([heart, *everything], 0.5)
    mediastinum = (anatomy.wall_mm > 0) & ~anatomy.lungs & (anatomy.depth_mm < 0) & ~anatomy.structures["bone"]
    anatomy.structures["heart_mediastinum_vessels"] = heart_mask | mediastinum
    anatomy.lungs &= ~heart_mask
    for mask in anatomy.lobes.values():
        mask &= anatomy.lungs
    gullet = canvas.path([(4.0, 34.0, 156.0), (4.0, 38.0, 60.0), (10.0, 40.0, -10.0), (22.0, 34.0, -78.0)], 7.5)
    for solid in gullet:
        canvas.paint(solid, 38.0)
    anatomy.structures["oesophagus"] = canvas.mask(gullet, 0.5)


def _draw_neck(anatomy: Anatomy, scan: Scan) -> None:
    canvas = anatomy.canvas
    lobes = [canvas.ellipsoid((side * 19.0 + 2.0, 2.0, 146.0), (9.0, 10.0, 20.0)) for side in (-1, 1)]
    lobes.append(canvas.capsule((-14.0, -6.0, 138.0), (18.0, -6.0, 138.0), 4.5))
    for solid in lobes:
        canvas.paint(solid, 95.0 + 0.35 * (scan.contrast_hu - 40))
    anatomy.structures["thyroid"] = canvas.mask(lobes, 0.5)


def _draw_abdomen(anatomy: Anatomy, scan: Scan, rng: np.random.Generator) -> None:
    """Draw what lies below the diaphragm: liver on the right, stomach and spleen on the left, kidneys, gut."""
    canvas = anatomy.canvas
    below = (anatomy.depth_mm > 0) & (anatomy.wall_mm > -2)
    diaphragm = (anatomy.depth_mm > 0) & (anatomy.depth_mm < 5) & (anatomy.wall_mm > 0)
    canvas.hu[diaphragm] = MUSCLE_HU
    enhanced = 0.3 * (scan.contrast_hu - 40)
    organs = [
        (canvas.ellipsoid((-58.0, 2.0, -112.0), (78.0, 84.0, 66.0), roughness=0.06), 58 + enhanced),
        (canvas.ellipsoid((22.0, -42.0, -92.0), (52.0, 34.0, 34.0), roughness=0.06), 58 + enhanced),
        (canvas.ellipsoid((62.0, -20.0, -112.0), (44.0, 42.0, 44.0)), 26.0),
        (canvas.ellipsoid((60.0, -46.0, -96.0), (26.0, 14.0, 20.0)), -900.0),
        (canvas.ellipsoid((92.0, 44.0, -108.0), (24.0, 34.0, 44.0)), 50 + enhanced),
        (canvas.ellipsoid((-52.0, 52.0, -158.0), (22.0, 24.0, 44.0)), 34 + 2 * enhanced),
        (canvas.ellipsoid((54.0, 54.0, -152.0), (22.0, 24.0, 44.0)), 34 + 2 * enhanced),
        (canvas.ellipsoid((-48.0, -52.0, -140.0), (15.0, 18.0, 24.0)), 8.0),
        (canvas.ellipsoid((10.0, 4.0, -150.0), (60.0, 13.0, 14.0)), 40 + enhanced),
    ]
    for solid, hu in organs:
        canvas.paint(solid, float(hu), only=below)
    anatomy.organs["liver"] = canvas.mask([solid for solid, _ in organs[:2]], 0.5) & below
    anatomy.organs["liver"] &= ~canvas.mask([solid for solid, _ in organs[2:]])
    texture = below & (canvas.hu > 20)
    canvas.hu[texture] += 5 * smooth_noise(rng, canvas.hu.shape, (12, 16, 16))[texture]
    anatomy.structures["abdomen"] = below
