"""A DICOM series of axial CT slices; nothing here imports torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SPACING_MM = (5.0, 4.0, 4.0)


def write_ct_series(folder: Path, hu: np.ndarray, file_name: Callable[[int], str], **attributes: Any) -> Path:
    """Write slices (Z, Y, X) of int16 Hounsfield units, SPACING_MM apart, each with the attributes."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for place, plane in enumerate(hu):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
        dataset.Modality, dataset.SeriesInstanceUID = "CT", series
        for name, value in attributes.items():
            setattr(dataset, name, value)
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelSpacing, dataset.ImageOrientationPatient = [SPACING_MM[1], SPACING_MM[2]], [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, place * SPACING_MM[0]]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
        dcmwrite(folder / file_name(place), dataset, enforce_file_format=True)
    return folder
