"""Lung and pleural lesions of the demo phantoms: 14 of the 22 classes, drawn over a finished chest.

Each function changes the chest's layers and returns one footprint mask (H, W) in [0, 1] for each box: of the finding's side,
or right then left. Places and looks follow the Fleischner Society's glossary of terms for thoracic imaging (Radiology
2008;246:697); the drawing is own work.

Reads and writes: nothing. Coordinates: phantom_canvas.py.
"""

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.demo.anatomy import SIDES, Chest, dome_at, lung_outline, wall_at
from d2rnet.cxr.demo.canvas import FloatImage, Layer, band, blurred, cloud, ellipse, spline
from d2rnet.cxr.demo.findings import Finding, Style

OPAQUE = 0.36  # what fully airless lung adds, about AIR_DEPTH
Rng = np.random.Generator
_ZONE_V = {"upper": (0.32, 0.39), "mid": (0.77, 0.85), "lower": (1.22, 1.30)}


def _centre(chest: Chest, finding: Finding, radius: float, rng: Rng) -> tuple[float, float]:
    """A place in the finding's zone where a disc of ``radius`` units fits beside heart and chest wall."""
    sign = SIDES[finding.side]
    anatomy = chest.anatomy
    v = rng.uniform(*_ZONE_V[finding.zone])
    if finding.zone == "lower":
        v = min(v, dome_at(anatomy, sign) - 0.08 - radius * 0.8)
    heart = anatomy.heart_left if sign > 0 else anatomy.heart_right
    inner = {"upper": 0.20, "mid": 0.28, "lower": 0.88 * heart}[finding.zone] + radius
    outer = wall_at(v - radius * 0.6) - 0.04 - radius
    distance = rng.uniform(inner, outer) if inner < outer else (inner + outer) / 2
    return sign * distance, v


def _radius(finding: Finding, style: Style, smallest: float, largest: float) -> float:
    return (smallest + (largest - smallest) * finding.size) * style.scale


def _within(chest: Chest, finding: Finding) -> FloatImage:
    return chest.lungs[SIDES[finding.side]]


def nodule(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Round, sharply outlined, solid opacity; a mass is larger and lobulated."""
    lobes = rng.uniform(0.02, 0.07, 3) if finding.kind == "mass" else rng.uniform(0, 0.03, 2)
    smallest, largest = (0.19, 0.26) if finding.kind == "mass" else (0.11, 0.155)
    radius = max(_radius(finding, style, smallest, largest), 0.11)
    outline = ellipse(_centre(chest, finding, radius, rng), (radius, radius * rng.uniform(0.9, 1.1)), wobble=lobes)
    mask = Layer(chest.frame).fill(outline).values(0.010)
    chest.tissue += 0.85 * OPAQUE * style.contrast * mask
    return [mask]


def consolidation(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Lobar opacity with one straight fissure edge and dark branching air bronchograms."""
    radius = _radius(finding, style, 0.20, 0.28)
    u, v = _centre(chest, finding, radius * 0.9, rng)
    sign = SIDES[finding.side]
    fissure = radius * 0.75  # below an upper lobe, above a lower one
    bulge = -1 if finding.zone == "upper" else 1
    corners = [(-1.05, -bulge * 0.75), (-0.3, -bulge * 0.70), (0.4, -bulge * 0.80), (1.05, -bulge * 0.70), (0.95, bulge * 0.1),
               (0.45, bulge * 0.75), (-0.3, bulge * 0.85), (-0.95, bulge * 0.3)]  # fmt: skip
    outline = np.concatenate([np.array(corners[:4]), spline(corners[3:])]) * radius + (u, v)
    mask = Layer(chest.frame).fill(outline).values(0.016) * np.clip(1.5 * chest.fields[sign], 0, 1)
    bronchi = Layer(chest.frame)
    root = np.array([u - sign * 0.9 * radius, v - bulge * 0.3 * fissure])
    for angle in (-0.45, 0.0, 0.5):
        tip = root + 1.5 * radius * np.array([sign * np.cos(angle), bulge * np.sin(angle) + 0.15 * bulge])
        fork = (root + tip) / 2
        bronchi.stroke(
            [[root, fork, tip], [fork, fork + 0.5 * radius * np.array([sign * np.cos(angle + 0.7), np.sin(angle + 0.7)])]],
            0.015,
        )
    mottle = np.clip(0.92 + 0.07 * cloud(chest.frame, rng, 0.05), 0.6, 1.1)
    chest.tissue += style.contrast * mask * (0.92 * OPAQUE * mottle - 0.17 * bronchi.values(0.006))
    chest.vessels *= 1 - 0.8 * mask
    return [mask]


def lung_opacity(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Hazy ground-glass ellipse with soft borders, vessels still seen through it."""
    radius = _radius(finding, style, 0.20, 0.28)
    outline = ellipse(
        _centre(chest, finding, radius, rng), (radius * rng.uniform(0.95, 1.15), radius), wobble=rng.uniform(0, 0.05, 2)
    )
    mask = Layer(chest.frame).fill(outline).values(0.05) * np.clip(chest.fields[SIDES[finding.side]], 0, 1)
    chest.tissue += 0.70 * OPAQUE * style.contrast * mask
    return [mask]


def infiltration(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Patchy, ill-defined cluster of fluffy spots."""
    radius = _radius(finding, style, 0.18, 0.26)
    u, v = _centre(chest, finding, radius, rng)
    spots = Layer(chest.frame)
    angles = np.arange(10) * 2.4 + rng.uniform(0, 6)
    for angle, distance in zip(angles, radius * np.sqrt((np.arange(10) + 0.4) / 10), strict=True):
        size = rng.uniform(0.040, 0.058)
        spots.fill(
            ellipse(
                (u + distance * np.cos(angle), v + distance * np.sin(angle)),
                (size, size),
                wobble=rng.uniform(0, 0.35, 3),
                points=20,
            )
        )
    mask = spots.values(0.022) * _within(chest, finding)
    chest.tissue += 1.1 * OPAQUE * style.contrast * mask
    return [mask]


def atelectasis(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Two or three stacked horizontal plates above the diaphragm."""
    radius = _radius(finding, style, 0.22, 0.30)
    u, v = _centre(chest, finding, radius * 0.85, rng)
    plates = Layer(chest.frame)
    tilt = rng.uniform(-0.12, 0.12)
    for offset in (-0.085, 0.0, 0.085):
        half = radius * rng.uniform(0.75, 1.0)
        x = np.linspace(-half, half, 12)
        line = np.stack([u + x, v + offset + tilt * x + rng.uniform(0.02, 0.05) * (x / half) ** 2], 1)
        plates.fill(band(line, 0.052 * np.sqrt(np.clip(1.05 - (x / half) ** 2, 0.05, 1))))
    mask = plates.values(0.010) * np.clip(1.3 * chest.fields[SIDES[finding.side]], 0, 1)
    chest.tissue += 0.80 * OPAQUE * style.contrast * mask
    return [mask]


def calcification(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Cluster of very bright, sharp specks."""
    radius = max(_radius(finding, style, 0.10, 0.15), 0.105)
    u, v = _centre(chest, finding, radius, rng)
    specks = Layer(chest.frame)
    angles = np.arange(7) * 0.9 + rng.uniform(0, 6)
    for angle, distance in zip(angles, radius * np.array([0.85, 0.8, 0.8, 0.85, 0.8, 0.85, 0.1]), strict=True):
        size = rng.uniform(0.024, 0.042)
        specks.fill(
            ellipse((u + distance * np.cos(angle), v + distance * np.sin(angle)), (size, size), wobble=[0.25, 0.2], points=16)
        )
    mask = specks.values(0.003)
    chest.tissue += 1.75 * OPAQUE * style.contrast * mask
    return [mask]


def cavity(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Thick-walled ring, dark inside, with a flat air-fluid level."""
    radius = max(_radius(finding, style, 0.15, 0.21), 0.13)
    centre = _centre(chest, finding, radius, rng)
    outer = Layer(chest.frame).fill(ellipse(centre, (radius, radius), wobble=rng.uniform(0.01, 0.05, 2))).values(0.008)
    inner = Layer(chest.frame).fill(ellipse(centre, (radius * 0.66, radius * 0.66))).values(0.006)
    _, v = chest.frame.grid
    air = inner * (v < centre[1] + 0.12 * radius)
    chest.tissue += style.contrast * (0.98 * OPAQUE * outer - 1.2 * OPAQUE * air)
    chest.vessels *= 1 - outer
    return [outer]


def cyst(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Thin-walled ring around a lucent, vessel-free interior."""
    radius = max(_radius(finding, style, 0.13, 0.20), 0.12)
    outline = ellipse(_centre(chest, finding, radius, rng), (radius, radius * rng.uniform(0.9, 1.1)))
    disc = Layer(chest.frame).fill(outline).values(0.006)
    ring = Layer(chest.frame).stroke([outline], 0.024, closed=True).values(0.003)
    chest.vessels *= 1 - disc
    chest.tissue += style.contrast * (0.85 * OPAQUE * ring - 0.30 * OPAQUE * disc)
    return [np.maximum(disc, ring)]


def fibrosis(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Honeycomb of thick-walled rings with coarse strands drawn towards the hilum."""
    radius = _radius(finding, style, 0.18, 0.26)
    u, v = _centre(chest, finding, radius, rng)
    rings = []
    pitch = 0.088
    for row in np.arange(-radius, radius + 1e-6, pitch * 0.87):
        for column in np.arange(-radius, radius + 1e-6, pitch):
            offset = np.array([column + pitch / 2 * (round(row / pitch) % 2), row]) + rng.normal(0, 0.012, 2)
            if np.hypot(*offset) < radius:
                size = rng.uniform(0.028, 0.046)
                rings.append(ellipse((u + offset[0], v + offset[1]), (size, size), wobble=[0.12, 0.1], points=14))
    hilum = np.array([0.26 * SIDES[finding.side], 0.78])
    strands = []
    for offset in rng.uniform(-0.8, 0.8, 4) * radius:
        tip = np.array([u + offset * 0.4, v + offset])
        strands.append(spline([tip, tip + (hilum - tip) * 0.3 + rng.normal(0, 0.02, 2), tip + (hilum - tip) * 0.45]))
    layer = Layer(chest.frame).stroke(rings, 0.017, closed=True).stroke(strands, 0.022)
    mask = layer.values(0.004) * np.clip(1.3 * _within(chest, finding), 0, 1)
    chest.tissue += style.contrast * (0.70 * OPAQUE * mask + 0.18 * OPAQUE * blurred(mask, 0.04 * chest.frame.unit_px))
    return [mask]


def ild(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Fine reticular net of crossing lines at both bases."""
    masks = []
    half_height = _radius(finding, style, 0.24, 0.36)
    for sign in (-1, 1):
        top = dome_at(chest.anatomy, sign) - 2 * half_height
        heart = chest.anatomy.heart_left if sign > 0 else chest.anatomy.heart_right
        count = 260
        starts = np.stack([rng.uniform(heart * 0.9, 0.98, count) * sign, rng.uniform(top, top + 2.5 * half_height, count)], 1)
        angles = rng.uniform(0, np.pi, count)
        steps = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.10, 0.17, count)[:, None]
        lines = np.stack([starts - steps / 2, starts + steps / 2], 1)  # (count, 2 ends, 2)
        net = Layer(chest.frame).stroke(lines, 0.006, 0.9).values(0.002)
        mask = net * np.clip(1.2 * chest.lungs[sign] - 0.1, 0, 1)
        chest.tissue += 0.70 * OPAQUE * style.contrast * mask
        masks.append(mask)
    return masks


def edema(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Bat-wing haze around both hila, sparing the periphery."""
    masks = []
    size = _radius(finding, style, 0.9, 1.15)
    for sign in (-1, 1):
        wing = [(0.14, 0.64), (0.36, 0.64), (0.56, 0.74), (0.64, 0.92), (0.58, 1.12), (0.40, 1.28), (0.16, 1.30)]
        shape = (spline(wing, closed=True) - (0.1, 0.92)) * size + (0.1, 0.92)
        soft = Layer(chest.frame).fill(shape * (sign, 1)).values(0.045)
        mottle = np.clip(0.85 + 0.14 * cloud(chest.frame, rng, 0.06), 0.3, 1.3)
        mask = soft * chest.lungs[sign]
        chest.tissue += 0.80 * OPAQUE * style.contrast * mask * mottle
        masks.append(mask)
    return masks


def effusion(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Homogeneous opacity of the base with a meniscus that climbs the lateral wall."""
    sign = SIDES[finding.side]
    u, v = chest.frame.grid
    height = _radius(finding, style, 0.12, 0.46)
    level = dome_at(chest.anatomy, sign) + 0.02 - height
    lateral = np.clip(np.abs(u) / 0.97, 0, 1)
    surface = level + 0.10 * (1 - lateral) - 0.22 * lateral**8
    fluid = np.clip((v - surface) / np.float32(0.02), 0, 1) * chest.fields[sign]
    mask = (fluid * np.clip((np.abs(u) - 0.12) / 0.05, 0, 1)).astype(np.float32)
    chest.tissue += 1.02 * OPAQUE * style.contrast * mask * np.maximum(chest.lungs[sign], 0.25)
    chest.vessels *= 1 - mask
    return [mask]


def _wall_curve(chest: Chest, sign: int, top: float, bottom: float, inset: float) -> NDArray[np.float64]:
    heights = np.linspace(top, bottom, 16)
    return np.array([(sign * (wall_at(v) - inset), v) for v in heights])


def pleural_thickening(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Lumpy bright band along the lateral chest wall."""
    sign = SIDES[finding.side]
    half = _radius(finding, style, 0.20, 0.38)
    middle = rng.uniform(0.75, 0.95)
    curve = _wall_curve(chest, sign, middle - half, middle + half, 0.055)
    lumps = 0.10 + 0.05 * np.sin(np.linspace(0, np.pi * rng.integers(3, 6), 16)) ** 2 + rng.uniform(0, 0.02, 16)
    mask = Layer(chest.frame).fill(band(curve, lumps)).values(0.012)
    chest.tissue += 0.72 * OPAQUE * style.contrast * mask
    return [mask]


def pneumothorax(chest: Chest, finding: Finding, style: Style, rng: Rng) -> list[FloatImage]:
    """Black, vessel-free apical and lateral crescent, bordered by the visceral pleural line."""
    sign = SIDES[finding.side]
    depth = _radius(finding, style, 0.17, 0.36)
    bottom = 0.75 + 0.5 * finding.size
    outline = lung_outline(chest.anatomy, sign)
    sideways = np.clip((bottom - outline[:, 1]) / bottom, 0, 1) ** 0.5 * np.clip((np.abs(outline[:, 0]) - 0.15) / 0.2, 0, 1)
    downwards = np.clip((0.4 - outline[:, 1]) / 0.4, 0, 1)
    collapsed = outline + depth * np.stack([-0.85 * sign * sideways, 0.75 * downwards], 1)
    rounded = np.stack(
        [np.convolve(np.pad(column, 6, "edge"), np.hanning(15)[1:-1] / 7, "valid") for column in collapsed.T], 1
    )
    collapsed = np.where((outline[:, 1] < bottom)[:, None], rounded, collapsed)
    lung = Layer(chest.frame).fill(collapsed).values(0.004)
    mask = np.clip(chest.fields[sign] - lung, 0, 1)
    above = chest.frame.grid[1] < bottom
    mask = mask * above * np.clip(3 * chest.lungs[sign], 0, 1)
    edge = collapsed[(collapsed[:, 1] < bottom) & (np.abs(collapsed[:, 0]) > 0.2)]
    line = Layer(chest.frame).stroke([edge], 0.011).values(0.002)
    chest.vessels *= 1 - mask
    chest.tissue += style.contrast * (0.30 * line - 0.14 * mask)
    return [mask]
