"""Frontal and lateral chest phantoms: anatomy-like radiographs without lesions, for the demo cohort.

A phantom is built in layers, as an additive attenuation model: soft tissue, aerated lung (which takes tissue away),
mediastinum and heart, vessels, bones. Lesions (phantom_lesions.py) either change the anatomy before it is drawn (a wide
heart, a broken rib) or add to the layers afterwards; phantom_exposure.py turns the sum into a radiograph.

Reads and writes: nothing. Own work, by the look of adult posteroanterior radiographs. Coordinates: phantom_canvas.py.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.demo.canvas import FloatImage, Frame, Layer, band, blurred, cloud, ellipse, spline

SIDES = {"right": -1, "left": 1}  # the patient's side -> sign of u
AIR_DEPTH = 0.40  # attenuation that a fully aerated lung takes away
RIB_COUNT = 9
RIB_WIDTH = 0.068
RIB_BREAK = 0.62  # where along the bone a fracture lies
CLAVICLE_BREAK = 0.5


@dataclass(frozen=True)
class Anatomy:
    """Shape of one chest, in thorax units."""

    dome: float  # v of the right diaphragm dome; the left is lower
    dome_height: float  # from the costophrenic angle to the dome
    heart_left: float
    heart_right: float
    knob_radius: float
    pulmonary_radius: float
    rib_step: float
    clavicle_lift: float
    soft: float  # thickness of soft tissue, brightness units
    breasts: float  # 0 for none
    shift: float = 0.0  # of trachea and upper mediastinum; the heart follows by half of it
    air: float = 1.0  # aeration; above 1 hyperlucent
    vessels: float = 1.0
    broken_rib: tuple[int, int] | None = None  # sign of the side, index
    broken_clavicle: int = 0  # sign of the side, 0 for none
    seed: int = 0  # of the vessel tree: the same patient keeps the same tree


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a normal adult's anatomy."""
    return Anatomy(
        dome=rng.uniform(1.45, 1.68),
        dome_height=rng.uniform(0.22, 0.30),
        heart_left=rng.uniform(0.48, 0.56),
        heart_right=rng.uniform(0.22, 0.28),
        knob_radius=rng.uniform(0.10, 0.12),
        pulmonary_radius=rng.uniform(0.06, 0.08),
        rib_step=rng.uniform(0.165, 0.185),
        clavicle_lift=rng.uniform(-0.02, 0.10),
        soft=rng.uniform(0.50, 0.58),
        breasts=float(rng.uniform(0.03, 0.07) if rng.random() < 0.45 else 0.0),
        seed=int(rng.integers(2**31)),
    )


def sample_frame(rng: np.random.Generator, size_px: int) -> Frame:
    """Draw picture size and position: longer side 0.88 to 1.12 times ``size_px``, portrait to landscape."""
    longer = round(size_px * rng.uniform(0.88, 1.12))
    shorter = round(longer * rng.uniform(0.84, 1.0))
    height, width = (longer, shorter) if rng.random() < 0.6 else (shorter, longer)
    unit = min(width / 2.42, height / 2.52) * rng.uniform(0.97, 1.05)
    origin = (width * 0.5 + unit * rng.uniform(-0.04, 0.04), height * 0.5 - unit * rng.uniform(0.78, 0.88))
    return Frame((height, width), origin, unit, float(rng.normal(0, np.radians(1.3))))


_WALL = np.array(
    [(0.15, 0.12), (0.22, 0.02), (0.36, 0.0), (0.54, 0.08), (0.71, 0.30), (0.85, 0.65), (0.94, 1.05), (0.985, 1.45)]
)


def wall_at(v: float) -> float:
    """Distance of the inner lateral chest wall from the midline at height v."""
    return float(_wall(np.asarray(v)))


def _wall(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.interp(v, _WALL[2:, 1], _WALL[2:, 0])


def dome_at(anatomy: Anatomy, sign: int) -> float:
    """v of the diaphragm dome of a side."""
    return anatomy.dome + (0.09 if sign > 0 else 0.0)


def lung_outline(anatomy: Anatomy, sign: int) -> NDArray[np.float64]:
    """Outline of a lung, (N, 2): wall from the apex down, diaphragm, mediastinal border."""
    dome = dome_at(anatomy, sign)
    angle = dome + anatomy.dome_height
    wall = spline(np.concatenate([_WALL, [(1.0, angle)]]))
    low = anatomy.dome_height
    floor = spline([(1.0, angle), (0.93, dome + 0.45 * low), (0.78, dome + 0.1 * low), (0.56, dome), (0.34, dome + 0.15 * low),
                    (0.15, dome + 0.5 * low)])  # fmt: skip
    medial = spline([(0.15, dome + 0.5 * low), (0.12, 1.2), (0.14, 0.7), (0.12, 0.3), (0.15, 0.12)])
    return np.concatenate([wall, floor[1:], medial[1:-1]]) * (sign, 1)


def heart_outline(anatomy: Anatomy) -> NDArray[np.float64]:
    """Outline of the heart, (N, 2): right atrium, great vessels, left ventricle, apex at lower left."""
    left = anatomy.heart_left
    right = anatomy.heart_right
    floor = anatomy.dome + 0.12
    grow = max(left - 0.5, 0.0)
    knots = [(-0.12, 0.72), (-right * 0.82, 1.02), (-right, floor - 0.38), (-right * 0.85, floor - 0.08),
             (0.1, floor + 0.06), (left * 0.72, floor + 0.07), (left * 0.98, floor - 0.06), (left, floor - 0.22),
             (left * 0.82, floor - 0.50 - grow * 0.3), (0.24 + grow * 0.4, 0.84), (0.13, 0.64)]  # fmt: skip
    return spline(knots, closed=True) + np.array([anatomy.shift * 0.5, 0])


def rib_curves(anatomy: Anatomy, sign: int) -> NDArray[np.float64]:
    """Centre lines of the posterior ribs of a side, highest first, from the spine to the lateral wall: (RIB_COUNT, N, 2)."""
    index = np.arange(RIB_COUNT)
    v = -0.04 + anatomy.rib_step * index
    end = v + np.minimum(0.12 + 0.04 * index, 0.36)
    reach = _wall(end) + 0.02
    across = np.stack([np.full(RIB_COUNT, 0.09), np.full(RIB_COUNT, 0.3), 0.165 + 0.45 * reach, 0.051 + 0.83 * reach, reach])
    down = np.stack([v + 0.03, v - 0.02, v + 0.01, v + 0.45 * (end - v), end])
    return spline(np.stack([sign * across.T, down.T], axis=-1))


def anterior_rib_curves(anatomy: Anatomy, sign: int) -> NDArray[np.float64]:
    """Centre lines of the anterior parts, from the lateral wall down to the costal cartilage: (RIB_COUNT, N, 2)."""
    v = rib_curves(anatomy, sign)[:, -1, 1]
    reach = _wall(v) + 0.02
    across = reach[:, None] * np.array([1, 0.85, 0.62, 0.45])
    down = v[:, None] + np.array([0, 0.15, 0.24, 0.25])
    return spline(np.stack([sign * across, down], axis=-1))


def clavicle_curve(anatomy: Anatomy, sign: int) -> NDArray[np.float64]:
    """Centre line of a clavicle from the sternum outwards, (N, 2)."""
    lift = anatomy.clavicle_lift
    return spline([(0.10, 0.20), (0.32, 0.17 - lift * 0.5), (0.62, 0.04 - lift), (0.95, -0.02 - lift), (1.12, 0.0 - lift)]) * (
        sign,
        1,
    )


@dataclass
class Chest:
    """Layers of one phantom, each (H, W) float32, that lesions may change.

    Attributes:
        lungs: sign of the side -> mask in [0, 1] of aerated lung as seen (heart and mediastinum taken out).
        fields: sign of the side -> mask in [0, 1] of the whole lung field, heart or not.
        tissue: attenuation of soft tissue and bones; lesions add to it.
        vessels: attenuation of lung vessels; blanked where no lung is.
    """

    frame: Frame
    anatomy: Anatomy
    lungs: dict[int, FloatImage] = field(default_factory=dict)
    fields: dict[int, FloatImage] = field(default_factory=dict)
    tissue: FloatImage = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    vessels: FloatImage = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def compose(self) -> FloatImage:
        """Sum of all layers, about 0 (air) to 1 (bone over abdomen)."""
        return self.tissue + self.vessels


def draw_chest(anatomy: Anatomy, frame: Frame, rng: np.random.Generator) -> Chest:
    """Draw the layers of a frontal chest."""
    chest = Chest(frame, anatomy)
    _, v = frame.grid
    chest.fields = {sign: Layer(frame).fill(lung_outline(anatomy, sign)).values(0.012) for sign in (-1, 1)}
    dense = _mediastinum(anatomy, frame)
    visible = 1 - dense
    chest.lungs = {sign: mask * visible for sign, mask in chest.fields.items()}
    lung = chest.fields[-1] + chest.fields[1]
    # The lung is thinner towards its rim, so the rim is brighter.
    depth = np.clip(np.float32(1.55) * blurred(lung, 0.11 * frame.unit_px) - np.float32(0.45), 0.25, 1)
    abdomen = np.clip((v - (anatomy.dome - 0.1)) * 2.2, 0, 1) * (1 - lung)
    overlay = (1 - 0.45 * np.maximum(dense, abdomen)) * _bones(anatomy, frame)
    if anatomy.breasts:
        breasts = Layer(frame)
        for sign in (-1, 1):
            breasts.fill(ellipse((0.58 * sign, 1.28), (0.40, 0.34)))
        overlay += anatomy.breasts * breasts.values(0.02)
    soft = anatomy.soft + 0.05 + 0.16 * abdomen + 0.03 * cloud(frame, rng, 0.5) + overlay
    chest.tissue = _body(anatomy, frame) * soft + _midline(anatomy, frame) + 0.02 * dense
    chest.tissue -= lung * (AIR_DEPTH * anatomy.air * depth * (1 - 0.92 * dense) - 0.10 * dense)
    chest.tissue -= 0.16 * _gastric_bubble(anatomy, frame, rng)
    chest.vessels = _vessel_tree(anatomy, frame) * lung * (1 - 0.7 * dense)
    return chest


def _body(anatomy: Anatomy, frame: Frame) -> FloatImage:
    neck_shoulder = [(0.34, -1.2), (0.35, -0.45), (0.48, -0.30), (0.9, -0.20), (1.25, -0.10)]
    arm = [(1.5, 0.15), (1.6, 0.6), (1.62, 1.2), (1.42, 1.2), (1.30, 0.75), (1.23, 0.60)]
    flank = [(1.20, 0.8), (1.17, 1.3), (1.18, 2.0), (1.25, 3.0)]
    right = spline(neck_shoulder + arm + flank)
    both = np.concatenate([right, right[::-1] * (-1, 1)])
    return Layer(frame).fill(both).values(0.015)


def _mediastinum(anatomy: Anatomy, frame: Frame) -> FloatImage:
    """Heart, great vessels, aortic knob and hilum: opaque silhouettes over the lungs, in [0, 1]."""
    shift = anatomy.shift
    layer = Layer(frame)
    # v, right border, left border, how far each height follows the shift
    borders = [(-0.2, -0.15, 0.14, 1), (0.3, -0.17, 0.13, 1), (0.7, -0.19, 0.18, 0.8), (1.1, -0.2, 0.2, 0.5)]
    right = [(border + shift * follows, v) for v, border, _, follows in borders]
    left = [(border + shift * follows, v) for v, _, border, follows in reversed(borders)]
    layer.fill(spline(right + left, closed=True))
    radius = anatomy.knob_radius
    layer.fill(ellipse((0.13 + shift + radius * 0.3, 0.44), (radius, radius * 1.15)))
    pulmonary = anatomy.pulmonary_radius
    layer.fill(ellipse((0.14 + shift * 0.8 + pulmonary * 0.8, 0.74), (pulmonary, pulmonary * 1.15)))
    return layer.fill(heart_outline(anatomy)).values(0.015)


def _midline(anatomy: Anatomy, frame: Frame) -> FloatImage:
    """Spine, vertebral end plates, spinous processes, trachea and main bronchi."""
    heights = np.arange(-0.5, 2.4, 0.155)
    spine = Layer(frame).fill([(-0.115, -1.2), (0.115, -1.2), (0.125, 3), (-0.125, 3)], 0.72)
    spine.stroke([np.array([(-0.10, h), (0.10, h)]) for h in heights], 0.018, 0.86)
    spine.stroke([np.array([(0, h + 0.055), (0, h + 0.085)]) for h in heights], 0.042)
    shift = anatomy.shift
    trachea = Layer(frame)
    trachea.fill(band(spline([(0.0, -1.0), (0.0, -0.4), (shift * 0.6, -0.1), (shift, 0.2), (shift * 0.95, 0.60)]), 0.125))
    carina = (shift * 0.95, 0.58)
    trachea.fill(band(spline([carina, (carina[0] - 0.14, 0.72), (-0.24 + shift * 0.5, 0.84)]), 0.085))
    trachea.fill(band(spline([carina, (carina[0] + 0.15, 0.72), (0.26 + shift * 0.5, 0.82)]), 0.075))
    return 0.125 * spine.values(0.012) - 0.15 * trachea.values(0.014)


def _bones(anatomy: Anatomy, frame: Frame) -> FloatImage:
    """Ribs, clavicles and scapulae, with brighter cortex."""
    posterior = Layer(frame)
    anterior = Layer(frame)
    for sign in (-1, 1):
        anterior.fill(band(anterior_rib_curves(anatomy, sign), 0.085), 0.31)
        outlines = _rib_outlines(anatomy, sign)
        for outline in outlines:
            posterior.fill(outline, 0.62)
        posterior.stroke(outlines, 0.010, closed=True)
    # The shoulder girdle lies mostly beside and above the anterior ribs, so both share a layer.
    for sign in (-1, 1):
        scapula = [(1.0, 0.02), (0.88, 0.25), (0.92, 0.62), (1.02, 0.86), (1.16, 0.6), (1.3, 0.25)]
        anterior.stroke([spline(np.array(scapula) * (sign, 1), closed=True)], 0.014, 0.4, closed=True)
        anterior.fill(ellipse((1.33 * sign, 0.10), (0.14, 0.15)), 0.6)
        for part in _clavicle_parts(anatomy, sign):
            outline = band(part, np.interp(np.abs(part[:, 0]), (0.1, 0.3, 0.9, 1.1), (0.12, 0.085, 0.075, 0.10)))
            anterior.fill(outline, 0.75)
            anterior.stroke([outline], 0.012, closed=True)
    return 0.135 * posterior.values(0.007) + 0.16 * anterior.values(0.009)


def _rib_outlines(anatomy: Anatomy, sign: int) -> list[NDArray[np.float64]]:
    curves = rib_curves(anatomy, sign)
    outlines = list(band(curves, RIB_WIDTH))
    if anatomy.broken_rib and anatomy.broken_rib[0] == sign:
        index = anatomy.broken_rib[1]
        outlines[index : index + 1] = [band(part, RIB_WIDTH) for part in _broken(curves[index], RIB_BREAK, 0.075)]
    return outlines


def _clavicle_parts(anatomy: Anatomy, sign: int) -> list[NDArray[np.float64]]:
    curve = clavicle_curve(anatomy, sign)
    return _broken(curve, CLAVICLE_BREAK, 0.105) if anatomy.broken_clavicle == sign else [curve]


def _broken(curve: NDArray[np.float64], where: float, step: float) -> list[NDArray[np.float64]]:
    """Two fragments of a bone: the outer one dropped by ``step`` units and overriding a little."""
    cut = int(len(curve) * where)
    inner = curve[: cut + 1]
    outer = curve[cut - 1 :]
    drop = step * np.linspace(1, 0.25, len(outer))
    return [inner, outer + np.stack([np.zeros(len(outer)), drop], 1)]


def _gastric_bubble(anatomy: Anatomy, frame: Frame, rng: np.random.Generator) -> FloatImage:
    """Air in the stomach below the left dome, with a flat fluid level."""
    _, v = frame.grid
    top = dome_at(anatomy, 1) + 0.07
    radius = rng.uniform(0.10, 0.19)
    bubble = Layer(frame).fill(ellipse((rng.uniform(0.42, 0.6), top + 0.09), (radius, 0.09), wobble=[0.1, 0.05])).values(0.012)
    return bubble * (v < top + 0.12)


def _vessel_tree(anatomy: Anatomy, frame: Frame) -> FloatImage:
    """Lung vessels branching from both hila, thinner towards the periphery, plus the hilar shadows."""
    rng = np.random.default_rng(anatomy.seed)
    layer = Layer(frame)
    hila = Layer(frame)
    for sign in (-1, 1):
        hilum = np.array([0.2 * sign + anatomy.shift * 0.6, 0.80])
        hila.fill(ellipse((hilum[0], hilum[1]), (0.075, 0.16), angle=-0.3 * sign, wobble=[0.1, 0.1]))
        starts = np.repeat(hilum[None], 8, axis=0)
        headings = np.linspace(-1.35, 1.35, 8) + rng.uniform(-0.12, 0.12, 8)  # from lateral, downwards positive
        lengths = rng.uniform(0.28, 0.42, 8)
        for width, level in ((0.030, 0.70), (0.018, 0.55), (0.010, 0.5)):
            bends = rng.uniform(-0.5, 0.5, len(starts))
            middles = starts + _step(headings, lengths / 2, sign)
            ends = middles + _step(headings + bends, lengths / 2, sign)
            layer.stroke(_arcs(starts, middles, ends), width, level)
            turns = np.array([-0.5, 0.05, 0.5]) + rng.uniform(-0.2, 0.2, (len(starts), 3))
            headings = (headings[:, None] + bends[:, None] + turns).ravel()
            starts = np.stack([ends, middles, ends], axis=1).reshape(-1, 2)
            lengths = np.repeat(lengths, 3) * rng.uniform(0.55, 0.9, len(starts))
    shadows = 0.15 * layer.values(0.008) + 0.10 * hila.values(0.035)
    return shadows * np.float32(anatomy.vessels)


def _step(headings: NDArray[np.float64], lengths: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    return np.stack([sign * np.cos(headings), np.sin(headings)], axis=1) * lengths[:, None]


def _arcs(starts: NDArray[np.float64], middles: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quadratic curves through three points each: three (K, 2) -> (K, 5, 2)."""
    t = np.linspace(0, 1, 5)[None, :, None]
    a = starts[:, None]
    b = middles[:, None]
    c = ends[:, None]
    return a * (1 - t) * (1 - 2 * t) + 4 * b * t * (1 - t) + c * t * (2 * t - 1)
