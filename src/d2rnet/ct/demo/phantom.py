"""A synthetic chest CT: a patient, what they have, and the volume as a scanner would show it.

Reads and writes: nothing. Volumes are (Z, Y, X), LPS+: slices from the feet up, rows from the front, columns from the
patient's right.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.demo.anatomy import BONE_HU, draw_body
from d2rnet.ct.demo.canvas import FloatVolume
from d2rnet.ct.demo.chest_findings import CHEST_FINDINGS, LARGE_HEART
from d2rnet.ct.demo.drawn import Body, Drawn, Mask
from d2rnet.ct.demo.lung_findings import LUNG_FINDINGS
from d2rnet.ct.demo.other_findings import OTHER_FINDINGS
from d2rnet.ct.demo.patient import Patient, Scan, make_canvas, sample_patient, sample_scan
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.demo.trees import draw_trees

FINDINGS = {**OTHER_FINDINGS, **CHEST_FINDINGS, **LUNG_FINDINGS}
PREVALENCE = {
    "Medical material": 0.14,
    "Arterial wall calcification": 0.24,
    "Cardiomegaly": 0.14,
    "Pericardial effusion": 0.10,
    "Coronary artery wall calcification": 0.2,
    "Hiatal hernia": 0.16,
    "Lymphadenopathy": 0.24,
    "Emphysema": 0.18,
    "Atelectasis": 0.2,
    "Lung nodule": 0.32,
    "Lung opacity": 0.24,
    "Pulmonary fibrotic sequela": 0.18,
    "Pleural effusion": 0.16,
    "Mosaic attenuation pattern": 0.1,
    "Peribronchial thickening": 0.13,
    "Consolidation": 0.16,
    "Bronchiectasis": 0.13,
    "Interlobular septal thickening": 0.11,
}
OTHER_PREVALENCE = {
    "Fatty liver": 0.2,
    "Liver lesion": 0.2,
    "Low bone density": 0.2,
    "Bone metastases": 0.16,
    "Goitre": 0.2,
    "Chest wall mass": 0.18,
    "Tracheal secretion": 0.14,
}
WITHOUT_ABNORMALITY = 0.14
_OF_THE_OLD = ("Arterial wall calcification", "Coronary artery wall calcification")
LOWEST_HU = -1024
HIGHEST_HU = 3071


@dataclass
class Phantom:
    """A drawn body.

    Attributes:
        hu: (Z, Y, X) float32, without noise.
        patient: whose.
        scan: how it was taken.
        structures: structure -> voxels.
        masks: label -> voxels of its abnormalities.
        drawn: the abnormalities.
    """

    hu: FloatVolume
    patient: Patient
    scan: Scan
    structures: dict[str, Mask]
    masks: dict[str, Mask] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)


def draw_phantom(
    patient_rng: np.random.Generator,
    rng: np.random.Generator,
    settings: CtDemoSettings,
    *,
    labels: tuple[str, ...] | None = None,
) -> Phantom:
    """Draw a patient's chest.

    Args:
        patient_rng: what all scans of a patient share.
        rng: what differs between them: position, breathing, findings.
        settings: size.
        labels: of FINDINGS, what to draw; None draws by PREVALENCE and OTHER_PREVALENCE.
    """
    patient = sample_patient(patient_rng)
    scan = sample_scan(rng, patient, settings)
    chosen = _sample_labels(patient, rng) if labels is None else labels
    canvas = make_canvas(patient, scan)
    anatomy = draw_body(canvas, patient, scan, LARGE_HEART if "Cardiomegaly" in chosen else 1.0, rng)
    body = Body(anatomy, draw_trees(anatomy, scan.contrast_hu, rng), rng)
    for label, finding in FINDINGS.items():  # in this order: what replaces tissue first, what lies in it last
        if label in chosen:
            finding(body)
    return Phantom(canvas.hu, patient, scan, anatomy.structures, body.masks, body.drawn)


def _sample_labels(patient: Patient, rng: np.random.Generator) -> tuple[str, ...]:
    if rng.random() < WITHOUT_ABNORMALITY:
        return ()
    shares = {
        label: share * (1.5 if patient.age > 55 else 0.4) if label in _OF_THE_OLD else share
        for label, share in (PREVALENCE | OTHER_PREVALENCE).items()
    }
    draws = rng.random(len(shares))
    return tuple(label for (label, share), draw in zip(shares.items(), draws, strict=True) if draw < share)


def draw_head(rng: np.random.Generator, settings: CtDemoSettings) -> Phantom:
    """Draw a head, which a list of volumes without a chest names."""
    patient = sample_patient(rng)
    scan = sample_scan(rng, patient, settings)
    canvas = make_canvas(patient, scan)
    for radius, hu in ((1.0, 40.0), (0.95, BONE_HU + 700), (0.88, 36.0)):
        canvas.paint(canvas.ellipsoid((0.0, 0.0, 20.0), (78 * radius, 96 * radius, 110 * radius)), hu)
    return Phantom(canvas.hu, patient, scan, {})


def expose(phantom: Phantom, rng: np.random.Generator, *, sharp: bool) -> NDArray[np.int16]:
    """Return the voxels of a reconstruction: noise, the round field of view, whole Hounsfield units.

    Args:
        phantom: the body.
        rng: noise.
        sharp: kernel; a soft one smooths the noise in plane.

    Returns:
        (Z, Y, X) int16 HU.
    """
    noise = rng.standard_normal(phantom.hu.shape, dtype=np.float32)
    if not sharp:
        for axis in (1, 2):
            noise = 0.5 * noise + 0.25 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
        noise *= 1.4
    voxels = phantom.hu + np.float32(phantom.scan.noise_hu) * noise
    rows, columns = voxels.shape[1:]
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] / (rows / 2)
    x = (np.arange(columns) - (columns - 1) / 2)[None] / (columns / 2)
    voxels[:, x * x + y * y > 1.08] = LOWEST_HU
    return np.clip(np.rint(voxels), LOWEST_HU, HIGHEST_HU).astype(np.int16)
