"""Draw docs/figures/ct_demo.png: six patients of the CT demo cohort that together have all 18 abnormalities.

Run: ``python docs/ct_demo_figure.py``. Fixed seeds; drawn, converted and laid out as with the shipped configuration.
"""

from pathlib import Path

import cv2
import numpy as np

from d2rnet.ct.conversion.contact_sheet import ShownVolume, draw_contact_sheet
from d2rnet.ct.conversion.grid import convert_volume, to_hounsfield_units
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.demo.phantom import draw_phantom, expose
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.volumes.volume import Volume
from d2rnet.files.atomic import atomic_path
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

TARGET = Path(__file__).resolve().parent / "figures" / "ct_demo.png"
STEP = 4  # grey levels: 64 of them look the same here and take two thirds of the bytes
PATIENTS: tuple[tuple[str, ...], ...] = (
    (),
    ("Emphysema", "Lung nodule", "Arterial wall calcification"),
    ("Lung opacity", "Consolidation", "Atelectasis", "Pleural effusion"),
    ("Cardiomegaly", "Pericardial effusion", "Coronary artery wall calcification", "Medical material"),
    ("Hiatal hernia", "Lymphadenopathy", "Mosaic attenuation pattern", "Peribronchial thickening"),
    ("Bronchiectasis", "Interlobular septal thickening", "Pulmonary fibrotic sequela"),
)


def draw_patient(number: int, labels: tuple[str, ...]) -> ShownVolume:
    """Draw a patient with given abnormalities.

    Args:
        number: seed.
        labels: abnormalities; none draws a healthy chest.
    """
    patient_rng, scan_rng, noise_rng = (np.random.default_rng([number, word]) for word in range(3))
    phantom = draw_phantom(patient_rng, scan_rng, CtDemoSettings(), labels=labels)
    voxels = expose(phantom, noise_rng, sharp=phantom.scan.sharp)
    settings = CtConversionSettings()
    converted = convert_volume(Volume(voxels, phantom.scan.spacing_zyx, "NIfTI-1", "already"), settings)
    hu = to_hounsfield_units(converted.array, settings.window_hu)
    return ShownVolume(", ".join(labels) or "no abnormality", hu, converted.spacing_mm)


def main() -> None:
    """Write the figure."""
    assert set().union(*PATIENTS) == set(CT_ABNORMALITIES)
    draw_contact_sheet([draw_patient(number, labels) for number, labels in enumerate(PATIENTS, start=1)], TARGET)
    picture = cv2.imread(str(TARGET), cv2.IMREAD_GRAYSCALE)
    encoded = cv2.imencode(".png", picture // STEP * STEP, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    with atomic_path(TARGET) as temporary:
        temporary.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    main()
