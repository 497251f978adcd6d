"""Findings of the demo phantoms, put together: anatomy changes, structural lesions, boxes.

Seven classes change the anatomy or the skeleton before anything is drawn; the rest are drawn over it (phantom_opacities.py).
:func:`render_frontal` is the one entry: findings in, picture and boxes out.

Reads and writes: nothing. Own work. Coordinates: phantom_canvas.py.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from d2rnet.cxr.demo import opacities
from d2rnet.cxr.demo.anatomy import (
    CLAVICLE_BREAK,
    RIB_BREAK,
    SIDES,
    Anatomy,
    Chest,
    clavicle_curve,
    draw_chest,
    heart_outline,
    lung_outline,
    rib_curves,
)
from d2rnet.cxr.demo.canvas import FloatImage, Frame, Layer, bounding_xyxy, ellipse
from d2rnet.cxr.demo.findings import Box, Finding, Style

LEAST_SIDE = 0.07  # of the picture's longer side: smaller boxes are widened, a small detector could not learn them
Rng = np.random.Generator
Drawer = Callable[[Chest, Finding, Style, Rng], list[FloatImage]]


def alter_anatomy(anatomy: Anatomy, finding: Finding, style: Style, rng: Rng) -> Anatomy:
    """Return the anatomy as a finding of a structural class changes it; others leave it alone."""
    size = finding.size * style.scale
    sign = SIDES.get(finding.side, 0)
    match finding.category:
        case "Cardiomegaly":
            return replace(anatomy, heart_left=0.70 + 0.12 * size, heart_right=0.30 + 0.08 * size)
        case "Aortic enlargement":
            return replace(anatomy, knob_radius=0.225 + 0.05 * size)
        case "Enlarged PA":
            return replace(anatomy, pulmonary_radius=0.165 + 0.04 * size)
        case "Mediastinal shift":
            return replace(anatomy, shift=sign * (0.22 + 0.10 * size))
        case "Emphysema":
            low_flat = replace(anatomy, dome=anatomy.dome + 0.12, dome_height=0.10 - 0.04 * size)
            return replace(low_flat, air=1.22 + 0.08 * style.contrast, vessels=0.45, heart_left=0.40, heart_right=0.20)
        case "Rib fracture":
            return replace(anatomy, broken_rib=(sign, int(rng.integers(2, 5))))
        case "Clavicle fracture":
            return replace(anatomy, broken_clavicle=sign)
    return anatomy


def _cardiomegaly(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    return [Layer(chest.frame).fill(heart_outline(chest.anatomy)).values() * (chest.frame.grid[1] > 0.66)]


def _aorta(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """The knob is drawn with the mediastinum; its calcified rim and the box are added here."""
    radius = chest.anatomy.knob_radius
    centre = (0.13 + radius * 0.3, 0.44)
    rim = ellipse(centre, (radius * 0.95, radius * 1.09))
    chest.tissue += 0.08 * style.contrast * Layer(chest.frame).fill(rim).values(0.01)
    chest.tissue += 0.14 * style.contrast * Layer(chest.frame).stroke([rim[34:]], 0.018).values(0.003)
    return [Layer(chest.frame).fill(ellipse(centre, (radius, radius * 1.15))).values()]


def _pulmonary_artery(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    radius = chest.anatomy.pulmonary_radius
    outline = ellipse((0.14 + radius * 0.8, 0.74), (radius, radius * 1.15))
    mask = Layer(chest.frame).fill(outline).values(0.008)
    chest.tissue += 0.10 * style.contrast * mask
    return [mask]


def _mediastinal_shift(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    shift = chest.anatomy.shift
    sign = SIDES[finding.side]
    edge = shift + sign * 0.20
    return [Layer(chest.frame).fill([(0.02 * sign, -0.12), (edge, -0.12), (edge, 0.66), (0.02 * sign, 0.66)]).values()]


def _emphysema(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    return [Layer(chest.frame).fill(lung_outline(chest.anatomy, sign)).values() for sign in (-1, 1)]


def _rib_fracture(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """The step is drawn with the ribs; gap, bright callus and haematoma are added here."""
    sign, index = chest.anatomy.broken_rib or (SIDES[finding.side], 3)
    curve = rib_curves(chest.anatomy, sign)[index]
    return [_break_marks(chest, curve[int(len(curve) * RIB_BREAK)], 0.115, style)]


def _clavicle_fracture(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    curve = clavicle_curve(chest.anatomy, SIDES[finding.side])
    return [_break_marks(chest, curve[int(len(curve) * CLAVICLE_BREAK)], 0.15, style)]


def _break_marks(chest: Chest, where: np.ndarray, radius: float, style: Style) -> FloatImage:
    """Swelling around a fracture, a dark oblique gap and bright bone ends; returns the footprint."""
    centre = (float(where[0]), float(where[1]) + 0.03)
    swelling = Layer(chest.frame).fill(ellipse(centre, (radius, radius), wobble=[0.04, 0.03])).values(0.02)
    slant = np.array([(-0.17, -0.40), (0.17, 0.40)]) * radius
    ends = Layer(chest.frame).stroke([slant + centre + (offset, 0.6 * offset) for offset in (-0.03, 0.03)], 0.018)
    gap = Layer(chest.frame).stroke([slant * 1.15 + centre], 0.030).values(0.006)
    chest.tissue += style.contrast * (0.10 * swelling + 0.16 * ends.values(0.005) * (1 - gap) - 0.15 * gap)
    return swelling


def _other(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    if finding.kind == "hernia":
        return [_hernia(chest, finding, style)]
    return [_device(chest, finding, style, rng)]


def _device(chest: Chest, finding: Finding, style: Style, rng: Rng) -> FloatImage:
    """Generator of an implanted device below the outer clavicle, its lead coiled beside it."""
    half = (0.11 + 0.03 * finding.size) * style.scale
    centre = np.array([SIDES[finding.side] * rng.uniform(0.60, 0.72), rng.uniform(0.34, 0.42)])
    angle = rng.uniform(-0.25, 0.25)
    corners = [(-1, -0.6), (-0.7, -0.85), (0.7, -0.85), (1, -0.6), (1, 0.5), (0.6, 0.85), (-0.6, 0.85), (-1, 0.5)]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    case = np.array(corners) * half @ turn + centre
    coil = [ellipse((centre[0], centre[1]), (half * 1.25, half * 1.15), points=32)[4:29]]
    body = Layer(chest.frame).fill(case).values(0.003)
    lead = Layer(chest.frame).stroke(coil, 0.022).values(0.002)
    battery = Layer(chest.frame).fill(case * 0.5 + centre * 0.5).values(0.003)
    chest.tissue += (0.55 + 0.2 * style.contrast) * np.maximum(0.8 * body + 0.2 * battery, 0.7 * lead)
    return np.maximum(body, lead)


def _hernia(chest: Chest, finding: Finding, style: Style) -> FloatImage:
    """Retrocardiac stomach: bright wall, air above a flat fluid level."""
    radius = (0.19 + 0.05 * finding.size) * style.scale
    centre = (0.08, chest.anatomy.dome - 0.12)
    outline = ellipse(centre, (radius * 1.1, radius), wobble=[0.04, 0.02])
    disc = Layer(chest.frame).fill(outline).values(0.006)
    wall = Layer(chest.frame).stroke([outline], 0.026, closed=True).values(0.003)
    air = disc * (chest.frame.grid[1] < centre[1] + 0.05)
    chest.tissue += style.contrast * (0.16 * wall - 0.26 * air + 0.10 * (disc - air))
    return np.maximum(disc, wall)


DRAWERS: dict[str, Drawer] = {
    "Aortic enlargement": _aorta,
    "Atelectasis": opacities.atelectasis,
    "Calcification": opacities.calcification,
    "Cardiomegaly": _cardiomegaly,
    "Clavicle fracture": _clavicle_fracture,
    "Consolidation": opacities.consolidation,
    "Edema": opacities.edema,
    "Emphysema": _emphysema,
    "Enlarged PA": _pulmonary_artery,
    "ILD": opacities.ild,
    "Infiltration": opacities.infiltration,
    "Lung Opacity": opacities.lung_opacity,
    "Lung cavity": opacities.cavity,
    "Lung cyst": opacities.cyst,
    "Mediastinal shift": _mediastinal_shift,
    "Nodule/Mass": opacities.nodule,
    "Pleural effusion": opacities.effusion,
    "Pleural thickening": opacities.pleural_thickening,
    "Pneumothorax": opacities.pneumothorax,
    "Pulmonary fibrosis": opacities.fibrosis,
    "Rib fracture": _rib_fracture,
    "Other lesion": _other,
}


def render_frontal(
    anatomy: Anatomy, frame: Frame, findings: list[Finding], style: Style, rng: Rng
) -> tuple[FloatImage, list[tuple[Finding, str, Box]]]:
    """Draw a frontal chest with its findings.

    Args:
        anatomy: the patient's normal anatomy.
        frame: picture size and position.
        findings: what to draw.
        style: contrast, size and noise factors.
        rng: of this picture.

    Returns:
        Attenuation (H, W) float32, about 0 to 1, and for each box its finding, its own side ("left", "right", or "" for the
        midline; a bilateral finding has one box a side) and its corners x0, y0, x1, y1 in pixels.
    """
    for finding in findings:
        anatomy = alter_anatomy(anatomy, finding, style, rng)
    chest = draw_chest(anatomy, frame, rng)
    boxes = []
    for finding in findings:
        masks = DRAWERS[finding.category](chest, finding, style, rng)
        sides = ("right", "left") if finding.side == "bilateral" else (finding.side,)
        for side, mask in zip(sides, masks, strict=True):
            box = bounding_xyxy(mask)
            if box is not None:
                boxes.append((finding, side, _widened(box, frame.image_hw)))
    return chest.compose(), boxes


def _widened(box: Box, image_hw: tuple[int, int]) -> Box:
    """Widen a box to the least side, keeping its centre, and clip it to the picture."""
    least = LEAST_SIDE * max(image_hw)
    x0, y0, x1, y1 = box
    dx = max(least - (x1 - x0), 0) / 2
    dy = max(least - (y1 - y0), 0) / 2
    height, width = image_hw
    return max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, float(width)), min(y1 + dy, float(height))
