"""Drawn radiographs, and DICOM files of them; nothing here takes long to import."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SECRET = "Do^Not^Tell"


def draw_chest(hw: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth random picture, (h, w) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(hw[::-1], Image.Resampling.BICUBIC))


def write_dicom(path: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """Write 8-bit pixels as a DICOM radiograph whose header holds what must not be told."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.InstitutionName = SECRET, f"{SECRET}ID", f"{SECRET}Clinic"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.ViewPosition = 7, 0, "PA"
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path
