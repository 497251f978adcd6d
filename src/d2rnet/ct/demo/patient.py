"""What differs from one demo patient and scan to the next: size, sex, breathing, position, dose, contrast.

Reads and writes: nothing. Distances of the body are standard mm (:mod:`d2rnet.ct.demo.canvas`), those of the scan true mm.
"""

from dataclasses import dataclass

import numpy as np

from d2rnet.ct.demo.canvas import Canvas
from d2rnet.ct.demo.settings import CtDemoSettings

TOP_MM = 158.0  # standard mm of the uppermost and lowest slice of an average scan
BOTTOM_MM = -165.0
FIELD_MM = 370.0


@dataclass(frozen=True)
class Patient:
    """One body.

    Attributes:
        is_female: whether breasts are drawn.
        age: years; calcifications are likelier in the old.
        scale: true mm per standard mm.
        fat_mm: thickness of the fat below the skin.
        depth: factor of the front-to-back diameter.
        heart: factor of the heart's radii, before any cardiomegaly.
        aorta_mm: radius of the aorta.
    """

    is_female: bool
    age: int
    scale: float
    fat_mm: float
    depth: float
    heart: float
    aorta_mm: float


@dataclass(frozen=True)
class Scan:
    """One acquisition of a patient.

    Attributes:
        shape_zyx: voxels.
        spacing_zyx: true mm.
        shift_yx: position of the body's middle from the middle of the field of view, true mm.
        breath_mm: by how much the diaphragm stands higher than on deep inspiration.
        contrast_hu: Hounsfield units of blood.
        noise_hu: standard deviation of the noise.
        sharp: whether the kernel leaves the noise as it is; else it is smoothed in plane.
        top_mm: uppermost slice, standard mm.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    shift_yx: tuple[float, float]
    breath_mm: float
    contrast_hu: float
    noise_hu: float
    sharp: bool
    top_mm: float


def sample_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient."""
    is_female = bool(rng.random() < 0.45)
    return Patient(
        is_female=is_female,
        age=int(rng.integers(19, 90)),
        scale=float(np.clip(rng.normal(0.96 if is_female else 1.02, 0.05), 0.84, 1.14)),
        fat_mm=float(np.clip(rng.normal(20, 7), 7, 38)),
        depth=float(rng.uniform(0.92, 1.08)),
        heart=float(rng.uniform(0.92, 1.04)),
        aorta_mm=float(rng.uniform(12, 15)),
    )


def sample_scan(rng: np.random.Generator, patient: Patient, settings: CtDemoSettings) -> Scan:
    """Draw an acquisition; the field of view grows with the patient, so large ones are seen whole."""
    spacing = FIELD_MM * patient.scale * float(rng.uniform(0.96, 1.1)) / settings.in_plane_voxels
    slice_mm = settings.slice_mm * float(rng.choice([0.8, 1.0, 1.0, 1.2]))
    top = TOP_MM + float(rng.uniform(-8, 8))
    bottom = BOTTOM_MM + float(rng.uniform(-10, 15))
    slices = round((top - bottom) * patient.scale / slice_mm)
    return Scan(
        shape_zyx=(slices, settings.in_plane_voxels, settings.in_plane_voxels),
        spacing_zyx=(slice_mm, spacing, spacing),
        shift_yx=(float(rng.normal(0, 9)), float(rng.normal(0, 12))),
        breath_mm=float(np.clip(rng.normal(4, 8), -8, 26)),
        contrast_hu=float(rng.uniform(160, 280) if rng.random() < 0.3 else rng.uniform(36, 46)),
        noise_hu=float(rng.uniform(8, 26)),
        sharp=bool(rng.random() < 0.5),
        top_mm=top,
    )


def make_canvas(patient: Patient, scan: Scan) -> Canvas:
    """Return the empty volume of a scan: slices from the feet up, rows from the front, columns from the patient's right."""
    slices, rows, columns = scan.shape_zyx
    z = scan.top_mm - np.arange(slices)[::-1] * scan.spacing_zyx[0] / patient.scale
    y = ((np.arange(rows) - (rows - 1) / 2) * scan.spacing_zyx[1] - scan.shift_yx[0]) / patient.scale
    x = ((np.arange(columns) - (columns - 1) / 2) * scan.spacing_zyx[2] - scan.shift_yx[1]) / patient.scale
    return Canvas(z.astype(np.float32), y.astype(np.float32), x.astype(np.float32))
