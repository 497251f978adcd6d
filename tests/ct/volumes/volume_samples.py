"""A drawn chest and ways to write it to files, for tests of the CT volumes."""

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SPACING_ZYX = (5.0, 4.0, 3.5)  # mm; three different numbers, so that a swapped axis shows


def drawn_chest(shape: tuple[int, int, int] = (40, 56, 80)) -> np.ndarray:
    """(Z, Y, X) int16 HU, LPS+: body, lungs, heart on the patient's left (large x), liver low on the right, spine."""
    z, y, x = (np.linspace(-1, 1, side).reshape([-1 if axis == i else 1 for i in range(3)]) for axis, side in enumerate(shape))
    hu = np.full(shape, -1000, np.int16)
    hu[np.broadcast_to((y / 0.85) ** 2 + (x / 0.92) ** 2 < 1, shape)] = -80  # fat
    hu[np.broadcast_to((y / 0.75) ** 2 + (x / 0.85) ** 2 < 1, shape)] = 50  # muscle
    for side in (-0.42, 0.42):
        hu[((z - 0.1) / 0.85) ** 2 + (y / 0.6) ** 2 + ((x - side) / 0.33) ** 2 < 1] = -820
    hu[((z + 0.1) / 0.35) ** 2 + ((y + 0.25) / 0.3) ** 2 + ((x - 0.2) / 0.25) ** 2 < 1] = 40
    hu[((z + 0.9) / 0.3) ** 2 + (y / 0.6) ** 2 + ((x + 0.35) / 0.4) ** 2 < 1] = 60
    hu[np.broadcast_to(((y - 0.6) / 0.1) ** 2 + (x / 0.08) ** 2 < 1, shape)] = 400
    return hu


def affine_of(codes: str, shape_zyx: tuple[int, int, int]) -> tuple[np.ndarray, list[int], list[bool]]:
    """Return a RAS affine for an array stored with these axis codes, the (z, y, x) axis of each, and whether it is turned."""
    axis_of = {"R": (2, True), "L": (2, False), "A": (1, True), "P": (1, False), "I": (0, True), "S": (0, False)}
    ras_row = {2: (0, -1), 1: (1, -1), 0: (2, 1)}  # canonical axis -> row of the affine, sign of growing
    affine = np.eye(4)
    affine[:3, :3] = 0
    order, turned = [], []
    for column, code in enumerate(codes):
        axis, turn = axis_of[code]
        row, sign = ras_row[axis]
        step = sign * SPACING_ZYX[axis]
        affine[row, column] = -step if turn else step
        affine[row, 3] += step * (shape_zyx[axis] - 1) if turn else 0.0
        order.append(axis)
        turned.append(turn)
    return affine, order, turned


def write_nifti(path: Path, hu: np.ndarray, *, codes: str = "LPS") -> Path:
    """Write canonical HU as NIfTI whose axes run as ``codes`` say."""
    affine, order, turned = affine_of(codes, hu.shape)
    stored = np.transpose(hu, order)[tuple(slice(None, None, -1) if turn else slice(None) for turn in turned)]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), affine), path)
    return path


def noisy_chest(seed: int = 0) -> np.ndarray:
    """A drawn chest with the noise of a scanner, so that gzip packs it as a real one."""
    hu = drawn_chest()
    noise = np.random.default_rng(seed).normal(0, 15, hu.shape)
    return np.clip(np.rint(hu + noise), -1024, 3071).astype(np.int16)  # as 12 bits of a scanner


def ct_slice(stored: np.ndarray, number: int, *, series: str = "1.2.3.1", step_mm: float | None = None) -> Dataset:
    """One slice of a CT series: (rows, columns) uint16 stored values, HU + 1024."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{series}.{number + 1}"
    dataset.SeriesInstanceUID, dataset.Modality = series, "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = number + 1
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.ImagePositionPatient = [-140.0, -112.0, (SPACING_ZYX[0] if step_mm is None else step_mm) * number - 100]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [SPACING_ZYX[1], SPACING_ZYX[2]]
    dataset.SliceThickness = "9"
    dataset.PixelData = stored.astype("<u2").tobytes()
    return dataset


def chest_slices(hu: np.ndarray | None = None, **changes: object) -> list[Dataset]:
    """The slices of a chest, feet first."""
    hu = noisy_chest() if hu is None else hu
    return [ct_slice(part + 1024, number, **changes) for number, part in enumerate(hu)]  # type: ignore[arg-type]


def write_series(folder: Path, slices: Iterable[Dataset], *, prefix: str = "") -> Path:
    """Write slices as files of a folder, named in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(slices):
        dcmwrite(folder / f"{prefix}{number:03}.dcm", dataset, enforce_file_format=True)
    return folder
