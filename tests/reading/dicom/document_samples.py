"""DICOM radiographs of a study, a reading of them made without models, its documents, and outside programs that judge them."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_series_samples import write_ct_series
from pydicom import Dataset
from pydicom.uid import generate_uid
from radiograph_samples import draw_chest, write_dicom

from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.reading.content import Box, Sentence, View
from d2rnet.reading.dicom.documents import DicomExport
from d2rnet.reading.result import Reading

WEIGHTS = "a" * 64
ORIGIN = {
    "models": {
        "detector": {"model_final.pth": WEIGHTS, "config.yaml": "c" * 64},
        "report_model": {"model.safetensors": "b" * 64},
    },
    "settings": {},
    "code": {"d2rnet": "0.1.0", "commit": "0123456789abcdef0123", "dirty": True},
    "device": "cpu: test",
}
STUDY = generate_uid()
PATIENT = {
    "PatientName": "Müller^Jürgen",
    "PatientID": "P-17",
    "PatientBirthDate": "19500101",
    "PatientSex": "M",
    "StudyInstanceUID": STUDY,
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "S7",
    "StudyDescription": "Thorax p.a.",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Arzt^Ä",
}
BOXES = (
    Box(0, "Cardiomegaly", 0.91, (200.0, 500.0, 400.0, 300.0)),
    Box(0, "Nodule/Mass", 0.55, (100.5, 100.25, 80.0, 60.0)),
)
SENTENCES = (Sentence("The heart is enlarged.", (0,), 0), Sentence("No effusion.", (), 1))
# Of an X-ray image it cannot know whether the body part is one of a pair; a chest is not, so the attribute is rightly absent.
NOT_MEANT = re.compile(r"Error - Missing attribute Type 2C Conditional Element=<Laterality> Module=<GeneralSeries>")


def write_image(path: Path, pixels: np.ndarray | None = None, **attributes: Any) -> Path:
    """Write a radiograph of the study of PATIENT, 1000 x 800 pixels unless others are given."""
    given = draw_chest((1000, 800), 3) if pixels is None else pixels
    stated = {"SpecificCharacterSet": "ISO_IR 100", "Modality": "CR", "SeriesInstanceUID": generate_uid(), **PATIENT}
    return write_dicom(path, given, **(stated | attributes))


def write_ct_slices(folder: Path, hu: np.ndarray) -> Path:
    """Write axial slices of the study of PATIENT, (Z, Y, X) int16 Hounsfield units."""
    return write_ct_series(folder, hu, lambda place: f"{place}.dcm", SpecificCharacterSet="ISO_IR 100", **PATIENT)


def make_reading(*paths: Path, **changes: Any) -> Reading:
    """A reading of radiographs with two boxes in the first."""
    fields: dict[str, Any] = {
        "name": "chest",
        "images": tuple(View(path, "PA", read_radiograph(path).pixels) for path in paths),
        "boxes": BOXES,
        "sentences": SENTENCES,
        "hypothesis": "the heart is enlarged . no effusion .",
        "log_prob": -1.5,
        "warnings": (),
        "origin": ORIGIN,
        "seconds": 0.25,
    }
    return Reading(**(fields | changes))


def documents_of(reading: Reading) -> dict[str, Dataset]:
    """The documents of a reading whose images are files."""
    export = DicomExport(Path())
    return export.documents(reading, export.sources([view.path for view in reading.images]))


def write(reading: Reading, folder: Path) -> dict[str, Path]:
    """Write the documents of a reading; return their files."""
    return DicomExport(folder).write(documents_of(reading), reading.name)


def run_program(words: Sequence[object], package: str, *, codes: Sequence[int] = (0,)) -> str:
    """Run a program that ends with one of these exit codes, and return all that it says; skip where it is absent."""
    program = str(words[0])
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine (apt-get install {package})")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace", timeout=600)
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout + done.stderr


def errors_of(file: Path) -> list[str]:
    """What dciodvfy finds wrong in a DICOM file."""
    said = run_program(["dciodvfy", file], "dicom3tools", codes=(0, 1))
    return [line for line in said.splitlines() if line.startswith(("Error", "Abort")) and not NOT_MEANT.match(line)]
