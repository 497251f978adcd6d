"""The gate: whether a volume in Hounsfield units shows a chest, by measured rules.

Looks at the volume in steps of about 4 mm. The body is what is dense and thicker than a table top; lung is what is empty, but
not quite as empty as gas, and has body on at least three of its four sides in the slice. The share of lung in the body
decides: it does not depend on the patient's size. Numbers of the rules: docs/reference/ct-volumes.md.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.ct.volumes.volume import LEAVE_OUT, Millimetres, Tissue, Volume, unreadable

LUNG_HU = (-985, -500)  # gas in the bowel is emptier, also in the mean of its noise
BODY_ABOVE_HU = -300
TABLE_MM = 12.0  # a table top is thinner than this; arms, breasts and neck are not
_STEP_MM = 4.0
_SIDES = 3  # of four, on which body lies; one may be cut off by the field of view
_LITTLE_LUNG = 3.0  # times min_lung_fraction: below it is doubtful
_HEAD_CM2 = 300.0  # a head has about 220 cm2, the chest of a small adult 450
_SHORT_MM = 150.0
_THICK_MM = 6.0


@dataclass(frozen=True)
class ChestProblem:
    """One reason against a volume.

    Attributes:
        kind: few_slices, topogram, no_body, head, abdomen, little_lung, short_volume, thick_slices.
        is_certain: the volume must not be used; else a warning.
        got: what was found.
        expected: what a chest has.
    """

    kind: str
    is_certain: bool
    got: str
    expected: str


@dataclass(frozen=True)
class ChestMeasures:
    """What the rules look at.

    Attributes:
        lung_fraction: share of the body's volume, lungs included, that is lung.
        lung_ml: volume of lung, millilitres.
        body_cm2: median area of the body in an axial slice that has any, square centimetres.
        height_mm: extent along z.
    """

    lung_fraction: float
    lung_ml: float
    body_cm2: float
    height_mm: float


def coarse_volume(volume: Volume) -> tuple[np.ndarray, Millimetres]:
    """Return a volume in voxels of about 4 mm, averaged in the slice so that noise does not look like lung.

    Returns:
        (Z, Y, X) float32 HU, and the size of its voxels in mm (z, y, x), which fill the volume; slices are left
        out, not mixed.
    """
    depth, height, width = volume.hu.shape
    step = max(1, round(_STEP_MM / volume.spacing_mm[0]))
    rows, columns = (
        max(1, round(side * mm / max(mm, _STEP_MM))) for side, mm in zip((height, width), volume.spacing_mm[1:], strict=True)
    )
    chosen = np.arange(step // 2 if depth > step // 2 else 0, depth, step)
    coarse = np.empty((len(chosen), rows, columns), np.float32)
    for index, z in enumerate(chosen):
        coarse[index] = cv2.resize(np.ascontiguousarray(volume.hu[z]), (columns, rows), interpolation=cv2.INTER_AREA)
    voxel_mm = (
        depth * volume.spacing_mm[0] / len(chosen),
        height * volume.spacing_mm[1] / rows,
        width * volume.spacing_mm[2] / columns,
    )
    return coarse, voxel_mm


def body_mask(coarse_hu: np.ndarray, voxel_mm: Millimetres) -> np.ndarray:
    """Return (Z, Y, X) uint8, 1 in what is dense and thicker than a table top.

    Args:
        coarse_hu: (Z, Y, X) HU of :func:`coarse_volume`.
        voxel_mm: size of its voxels.
    """
    height, width = (max(1, round(TABLE_MM / side)) for side in voxel_mm[1:])
    kernel = np.ones((height, width), np.uint8)
    dense = (coarse_hu > BODY_ABOVE_HU).astype(np.uint8)
    # beyond the picture's edge the body goes on: a crop is not eaten from its border
    return np.stack([cv2.morphologyEx(part, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE) for part in dense])


def lung_mask(coarse_hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Return (Z, Y, X) uint8, 1 in lung: patches of its HU of at least 3 x 3 voxels, within the body.

    Args:
        coarse_hu: (Z, Y, X) HU of :func:`coarse_volume`.
        body: of :func:`body_mask`.
    """
    sides = np.zeros(body.shape, np.uint8)
    there = body.astype(bool)  # on a side of a voxel there is body from the first, or to the last, of its row
    for axis in (1, 2):
        count = body.shape[axis]
        places = np.arange(count, dtype=np.int32).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        is_any = there.any(axis, keepdims=True)
        first = np.where(is_any, there.argmax(axis, keepdims=True), count)
        last = np.where(is_any, count - 1 - np.flip(there, axis).argmax(axis, keepdims=True), -1)
        sides += places >= first
        sides += places <= last
    empty = ((coarse_hu >= LUNG_HU[0]) & (coarse_hu <= LUNG_HU[1]) & (sides >= _SIDES)).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([cv2.morphologyEx(part, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE) for part in empty])


def find_tissue(volume: Volume) -> Tissue:
    """Return body and lungs of a volume, those it was given where it has them."""
    if volume.tissue is not None:
        return volume.tissue
    coarse, voxel_mm = coarse_volume(volume)
    body = body_mask(coarse, voxel_mm)
    return Tissue(body, lung_mask(coarse, body), voxel_mm)


def measure_chest(volume: Volume) -> ChestMeasures:
    """Measure what tells a chest from other parts of the body."""
    tissue = find_tissue(volume)
    voxel_mm = tissue.voxel_mm
    lung_voxels = int(tissue.lungs.sum())
    areas = tissue.body.sum(axis=(1, 2)) * voxel_mm[1] * voxel_mm[2] / 100
    return ChestMeasures(
        lung_fraction=lung_voxels / max(1, lung_voxels + int(tissue.body.sum())),
        lung_ml=lung_voxels * float(np.prod(voxel_mm)) / 1000,
        body_cm2=float(np.median(areas[areas > 0])) if areas.any() else 0.0,
        height_mm=volume.hu.shape[0] * volume.spacing_mm[0],
    )


def chest_problems(volume: Volume, settings: VolumeSettings) -> list[ChestProblem]:
    """Return everything that speaks against a volume, certain reasons first."""
    slices = volume.hu.shape[0]
    measured = measure_chest(volume)
    found = []
    if slices < settings.min_slices:
        kind = "topogram" if slices == 1 else "few_slices"
        got = "one slice, a topogram or a picture" if slices == 1 else f"{slices} slices"
        found.append(ChestProblem(kind, True, got, f"at least {settings.min_slices} slices"))
    lung = f"{measured.lung_fraction:.1%} of the body is lung ({measured.lung_ml:.0f} ml)"
    enough = f"at least {settings.min_lung_fraction:.1%} lung"
    if measured.body_cm2 == 0:
        found.append(ChestProblem("no_body", True, f"nothing thick above {BODY_ABOVE_HU} HU", "a body"))
    elif measured.lung_fraction < settings.min_lung_fraction and slices >= settings.min_slices:
        small = measured.body_cm2 < _HEAD_CM2
        what = "a head or limb" if small else "an abdomen or another part of the body"
        got = f"{lung}, {measured.body_cm2:.0f} cm2 of body in a slice: {what}"
        found.append(ChestProblem("head" if small else "abdomen", True, got, enough))
    elif measured.lung_fraction < _LITTLE_LUNG * settings.min_lung_fraction:
        got = f"{lung}: a whole torso, or an abdomen with lung bases"
        found.append(ChestProblem("little_lung", False, got, f"at least {_LITTLE_LUNG * settings.min_lung_fraction:.1%}"))
    if measured.height_mm < _SHORT_MM:
        got = f"{measured.height_mm:.0f} mm along the body"
        found.append(ChestProblem("short_volume", False, got, f"at least {_SHORT_MM:.0f} mm"))
    if volume.spacing_mm[0] > _THICK_MM:
        got = f"slices {volume.spacing_mm[0]:.1f} mm apart"
        found.append(ChestProblem("thick_slices", False, got, f"at most {_THICK_MM:.0f} mm"))
    return found


def check_chest(path: Path, volume: Volume, settings: VolumeSettings) -> Volume:
    """Return the volume with the doubtful points in its notes, and with its body and lungs.

    Raises:
        DatasetError: there are certain reasons against it.
    """
    volume = replace(volume, tissue=find_tissue(volume))
    problems = chest_problems(volume, settings)
    certain = [problem for problem in problems if problem.is_certain]
    if certain:
        got = "; ".join(f"{problem.got} ({problem.kind})" for problem in certain)
        raise unreadable(path, got=got, expected=", ".join(problem.expected for problem in certain), remedy=LEAVE_OUT)
    notes = tuple(f"{problem.kind}: {problem.got}; expected {problem.expected}." for problem in problems)
    return replace(volume, notes=(*volume.notes, *notes))
