"""Abnormalities of lungs, airways and pleura in the CT phantom.

Each function draws one abnormality into a body, and notes what it drew and where. Reads and writes: nothing. Own work.
"""

import numpy as np

from d2rnet.ct.demo.canvas import Solid, smooth_noise
from d2rnet.ct.demo.drawn import LOWER_LOBES, UPPER_LOBES, Body, Drawn, Finding, Mask, side_of
from d2rnet.ct.demo.trees import Bronchus, draw_bronchus


def nodule(body: Body) -> None:
    """Draw one to three nodules in a lobe, solid or calcified."""
    lobe = body.lobe()
    count = int(body.rng.integers(1, 4))
    calcified = bool(body.rng.random() < 0.2)
    size = int(body.rng.integers(7, 24))
    mask = np.zeros_like(body.anatomy.lungs)
    for number in range(count):
        radius = size / 2 / body.scale * (1.0 if number == 0 else 0.75)
        centre = body.point_in(body.anatomy.lobes[lobe], margin_mm=radius)
        solid = body.canvas.ellipsoid(centre, (radius, radius, radius), roughness=0.12, phase=float(body.rng.uniform(0, 6)))
        mask |= body.paint([solid], 420.0 if calcified else 45.0, only=body.anatomy.lungs)
    kind = "calcified nodule" if calcified else "nodule"
    body.note(Drawn("Lung nodule", "lung", kind, side_of(lobe), lobe, size, count=count), mask)


def _patch(body: Body, lobe: str, radius: float) -> Solid:
    centre = body.point_in(body.anatomy.lobes[lobe], margin_mm=radius * 0.5)
    radii = tuple(float(radius * body.rng.uniform(0.8, 1.3)) for _ in range(3))
    return body.canvas.ellipsoid(centre, (radii[0], radii[1], radii[2]), roughness=0.35, phase=float(body.rng.uniform(0, 6)))


def opacity(body: Body) -> None:
    """Draw ground-glass opacities in one lobe, or in several of both lungs."""
    both = bool(body.rng.random() < 0.4)
    lobes = [body.lobe("right upper lobe", "right lower lobe"), body.lobe("left upper lobe", "left lower lobe")]
    lobes = lobes if both else [body.lobe()]
    mask = np.zeros_like(body.anatomy.lungs)
    for lobe in lobes:
        for _ in range(2 if both else 1):
            patch = _patch(body, lobe, float(body.rng.uniform(16, 28)))
            faint = Solid(patch.box, patch.weight * np.float32(0.85))
            mask |= body.paint([faint], -480.0, only=body.anatomy.lungs)
    side = "bilateral" if both else side_of(lobes[0])
    place = "both lungs" if both else lobes[0]
    body.note(Drawn("Lung opacity", "lung", "ground glass", side, place), mask)


def consolidation(body: Body) -> None:
    """Draw a dense patch with open airways in it."""
    lobe = body.lobe("right middle lobe", "right lower lobe", "left lower lobe", "lingula", "right upper lobe")
    patch = _patch(body, lobe, float(body.rng.uniform(18, 30)))
    mask = body.paint([patch], 42.0, only=body.anatomy.lobes[lobe])
    for bronchus in body.bronchi:
        if bronchus.lobe == lobe:
            body.paint(body.canvas.path(bronchus.points, 2.2, 1.8), -900.0, only=mask)
    body.note(Drawn("Consolidation", "lung", "consolidation", side_of(lobe), lobe), mask)


def atelectasis(body: Body) -> None:
    """Draw linear bands in a lower lobe, the middle lobe or the lingula."""
    lobe = body.lobe("right middle lobe", "lingula", *LOWER_LOBES)
    mask = np.zeros_like(body.anatomy.lungs)
    for _ in range(int(body.rng.integers(1, 4))):
        x, y, z = body.point_in(body.anatomy.lobes[lobe])
        plate = body.canvas.ellipsoid((x, y, z), (26.0, 20.0, 3.4), roughness=0.1)
        mask |= body.paint([plate], 20.0, only=body.anatomy.lobes[lobe])
    body.note(Drawn("Atelectasis", "lung", "atelectasis", side_of(lobe), lobe), mask)


def fibrotic_sequela(body: Body) -> None:
    """Draw radiating bands below the pleura of an apex, or in a lobe."""
    lobe = body.lobe(*UPPER_LOBES) if body.rng.random() < 0.7 else body.lobe()
    voxels = body.anatomy.lobes[lobe]
    near_wall = voxels & (body.anatomy.wall_mm < 16)
    start = body.point_in(near_wall if near_wall.any() else voxels)
    solids = []
    for _ in range(6):
        step = body.rng.normal(0, 20, 3)
        end = tuple(float(place + move) for place, move in zip(start, step, strict=True))
        solids.append(body.canvas.capsule(start, (end[0], end[1], end[2]), 3.2, 2.2))
    mask = body.paint(solids, 30.0, only=body.anatomy.lungs)
    body.note(Drawn("Pulmonary fibrotic sequela", "lung", "fibrotic sequela", side_of(lobe), lobe), mask)


def emphysema(body: Body) -> None:
    """Draw holes of air, most of them in the upper lobes."""
    grade = body.choose("mild", "moderate", "severe")
    count = {"mild": 60, "moderate": 120, "severe": 200}[grade]
    solids = []
    for number in range(count):
        lobe = body.lobe(*UPPER_LOBES) if number % 4 else body.lobe()
        radius = float(body.rng.uniform(5, 10))
        solids.append(body.canvas.ellipsoid(body.point_in(body.anatomy.lobes[lobe]), (radius, radius, radius)))
    mask = body.paint(solids, -985.0, only=body.anatomy.lungs)
    body.note(Drawn("Emphysema", "lung", "emphysema", "bilateral", "upper lobes", grade=grade), mask)


def mosaic_attenuation(body: Body) -> None:
    """Darken some territories of both lungs and brighten the others."""
    canvas = body.canvas
    territory = smooth_noise(body.rng, canvas.hu.shape, (6, 7, 8)) > 0
    bright = body.anatomy.lungs & territory & (canvas.hu < -600)
    dark = body.anatomy.lungs & ~territory & (canvas.hu < -600)
    canvas.hu[bright] += 130
    canvas.hu[dark] -= 65
    body.note(Drawn("Mosaic attenuation pattern", "lung", "mosaic", "bilateral", "both lungs"), bright)


def septal_thickening(body: Body) -> None:
    """Draw a network of thin lines in the bases of both lungs."""
    canvas = body.canvas
    step = 13.0
    x = canvas.x + 3 * smooth_noise(body.rng, canvas.hu.shape, (6, 8, 8))
    lines = np.minimum(np.abs(np.mod(x, step) - step / 2), np.abs(np.mod(canvas.y + 0.4 * canvas.x, step) - step / 2))
    lines = np.minimum(lines, np.abs(np.mod(canvas.z, step) - step / 2))
    band = (lines < 1.9) & body.anatomy.lungs & (body.anatomy.wall_mm < 34) & (canvas.z < 45)
    canvas.hu[band] += 320
    body.note(Drawn("Interlobular septal thickening", "lung", "septal thickening", "bilateral", "lower lobes"), band)


def bronchiectasis(body: Body) -> None:
    """Widen the airways of a lobe."""
    lobe = body.lobe(*LOWER_LOBES, "right middle lobe", "lingula")
    mask = np.zeros_like(body.anatomy.lungs)
    for bronchus in body.bronchi:
        if bronchus.lobe == lobe:
            wide = Bronchus(lobe, bronchus.points, bronchus.radius + 2.6, bronchus.end_radius + 3.4)
            mask |= body.canvas.mask(draw_bronchus(body.canvas, wide, wall_mm=2.4, wall_hu=60.0))
    body.note(Drawn("Bronchiectasis", "trachea_bronchi", "bronchiectasis", side_of(lobe), lobe), mask)


def peribronchial_thickening(body: Body) -> None:
    """Thicken the walls of the airways in both lungs."""
    mask = np.zeros_like(body.anatomy.lungs)
    for bronchus in body.bronchi:
        if bronchus.lobe:
            mask |= body.canvas.mask(draw_bronchus(body.canvas, bronchus, wall_mm=4.6, wall_hu=30.0))
    body.note(Drawn("Peribronchial thickening", "trachea_bronchi", "peribronchial", "bilateral", ""), mask)


def pleural_effusion(body: Body) -> None:
    """Fill the lowest part of one side or both with fluid."""
    side = body.choose("right", "left", "bilateral")
    size = int(body.rng.integers(12, 44))
    anatomy = body.anatomy
    mask: Mask = np.zeros_like(anatomy.lungs)
    for number, one in enumerate(("right", "left")):
        if side not in (one, "bilateral"):
            continue
        of_side = anatomy.lungs & ((body.canvas.x < 0) if one == "right" else (body.canvas.x > 0))
        depth = size / body.scale * (1.0 if number == 0 or side == one else 0.8)
        # fluid settles at the back of a lying patient and thins out towards the apex
        thickness = depth * np.clip((58 - body.canvas.z) / 80, 0, 1)
        back = 88 * anatomy.patient.depth - np.abs(body.canvas.x) * 0.18
        behind = body.canvas.y > back - thickness - 4
        along_wall = (anatomy.wall_mm < 0.35 * thickness) & (body.canvas.y > 10)
        mask |= of_side & (behind | along_wall)
    body.canvas.hu[mask] = 8.0
    anatomy.lungs &= ~mask
    body.note(Drawn("Pleural effusion", "pleura", "effusion", side, "", size), mask)


LUNG_FINDINGS: dict[str, Finding] = {
    "Mosaic attenuation pattern": mosaic_attenuation,
    "Emphysema": emphysema,
    "Interlobular septal thickening": septal_thickening,
    "Peribronchial thickening": peribronchial_thickening,
    "Bronchiectasis": bronchiectasis,
    "Pulmonary fibrotic sequela": fibrotic_sequela,
    "Lung opacity": opacity,
    "Consolidation": consolidation,
    "Atelectasis": atelectasis,
    "Lung nodule": nodule,
    "Pleural effusion": pleural_effusion,
}
