"""Drawn radiographs as DICOM data sets and files."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"


def data_set(pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    """A radiograph with the given stored values; 12 of 16 bits unless they are 8-bit."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in (RLELossless, JPEG2000Lossless) else syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = COMPUTED_RADIOGRAPHY, generate_uid()
    dataset.PatientName = "Do^Not^Tell"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = 8 if pixels.dtype.itemsize == 1 else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    if syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def chest(height: int = 60, width: int = 50, bits: int = 12) -> np.ndarray:
    """A smooth picture with a bright disc, using the whole range of its bits."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    values = 0.5 + 0.3 * np.sin(5 * x) * np.cos(4 * y) + 0.2 * ((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.02)
    values = (values - values.min()) / np.ptp(values)
    return np.round(values * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


WINDOW: dict[str, object] = {"WindowCenter": 2048, "WindowWidth": 4096}
