"""DICOM slices: what their headers say of place and kind, and their pixels in Hounsfield units.

Only the attributes listed here are read; names and dates never enter memory as values, and no message repeats an attribute's
text: in a damaged file it may be anybody's name.

Source: DICOM PS3.3 C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.6.1.1.2 (image type), C.7.5.1.1.2 (padding),
PS3.5 A.4 (encapsulation).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import libjpeg.utils
import numpy as np
import openjpeg
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000TransferSyntaxes, RLELossless

from d2rnet.ct.volumes.stored_values import Counts, to_int16
from d2rnet.ct.volumes.volume import AIR_HU, FETCH_AGAIN, LEAVE_OUT, Rescale, check_shape, unreadable
from d2rnet.errors import DatasetError
from d2rnet.files.dicom import has_decoder, silent_pydicom

_PREFIX_END = 132
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_HEADER = (
    *_GEOMETRY, "Modality", "SOPClassUID", "SeriesInstanceUID", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "RescaleType",
)  # fmt: skip
_PIXELS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData",
)  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds below it
_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"  # CT images, and the multi-frame kinds below it
_HU_TYPES = {"", "HU", "HU_MOD", "US"}  # US: unspecified
_SCOUT_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW", "SCANOSCOPE"}
_PARALLEL = 1e-3
_LIKE_AIR_HU = -900  # padding below it is no tissue, whatever is done with it


@dataclass(frozen=True)
class Plane:
    """Where an image lies in the patient: millimetres (left, posterior, superior).

    Attributes:
        position: (3,) centre of the first pixel.
        row: (3,) direction along a row, unit length.
        column: (3,) direction down a column, unit length.
        spacing: between rows and between columns, mm.
    """

    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        """(3,) direction off the image."""
        return np.cross(self.row, self.column)


@dataclass(frozen=True)
class Slice:
    """One image of a series, as its header describes it.

    Attributes:
        path: file.
        series: SeriesInstanceUID, "" where there is none; never shown.
        left_out: why it belongs to no volume, "" where it does.
        shape: rows and columns.
        plane: where it lies; None where the header lacks position, orientation or spacing.
        rescale: to Hounsfield units; None where the header has none.
        syntax: name of the transfer syntax.
    """

    path: Path
    series: str
    left_out: str
    shape: tuple[int, int]
    plane: Plane | None
    rescale: Rescale | None
    syntax: str

    @property
    def placed(self) -> Plane:
        """Where it lies; only for slices that were found to have a place."""
        assert self.plane is not None
        return self.plane


def is_dicom(path: Path) -> bool:
    """Whether a file has the DICOM prefix.

    Raises:
        DatasetError: it cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(_PREFIX_END)[128:] == b"DICM"
    except OSError as error:
        remedy = "Check the permissions and that the download is complete."
        raise unreadable(path, got=f"'{error.strerror}'", expected="a DICOM file", remedy=remedy) from error


def is_ct_object(path: Path) -> bool:
    """Say whether a file is DICOM and says that it is of a CT scanner; of a damaged one nothing is said."""
    try:
        if not is_dicom(path):
            return False
        with silent_pydicom():
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "SOPClassUID"])
            modality, kind = (str(dataset.get(name) or "") for name in ("Modality", "SOPClassUID"))
    except Exception:  # damaged files make pydicom raise almost anything; who reads the file says what is wrong
        return False
    return modality.upper() == "CT" or kind == _CT_CLASS or kind.startswith(f"{_CT_CLASS}.")


def read_slice(path: Path) -> Slice:
    """Read the header of one DICOM file; no pixel is read.

    Raises:
        DatasetError: the header cannot be parsed, or describes an image that no CT scanner makes.
    """
    try:
        with silent_pydicom():
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
            return _describe(path, dataset)
    except DatasetError:
        raise
    except Exception as error:  # damaged files make pydicom raise almost anything; its texts may quote values
        raise _damaged(path, error) from error


def read_slice_hu(described: Slice, counts: Counts) -> np.ndarray:
    """Read the pixels of one slice: (rows, columns) int16 Hounsfield units by the slice's own rescale.

    Args:
        described: header of the slice.
        counts: what is met among the numbers is added here.

    Raises:
        DatasetError: pixels are missing, cut off or cannot be decoded, or ask for another size than the header.
    """
    path = described.path
    try:
        with silent_pydicom():
            dataset = dcmread(path, specific_tags=list(_PIXELS))
            _check_pixels(path, dataset)
            stored = pixel_array(dataset)
    except DatasetError:
        raise
    except BaseException as error:  # the panic of a decoder written in Rust is no Exception and would end the whole run
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        got = f"{described.syntax} pixels that cannot be decoded ({type(error).__name__})"
        raise unreadable(path, got=got, expected="whole pixel data") from error
    if stored.shape != described.shape:
        got = f"pixels of shape {stored.shape}"
        raise unreadable(path, got=got, expected=f"{described.shape}, as the header says")
    rescale = described.rescale or Rescale(1.0, 0.0)
    hu = to_int16(path, stored, None if rescale.is_identity else rescale, counts)
    padding = _padding(dataset, stored, rescale)
    if padding is not None:
        counts.padding += int(np.count_nonzero(padding))
        hu[padding] = AIR_HU
    return hu


def _padding(dataset: Dataset, stored: np.ndarray, rescale: Rescale) -> np.ndarray | None:
    """Return (rows, columns) bool, True in padding that would be tissue; None where there is none.

    The header may name a value, or a range, that fills what is outside the field of view. The same number inside the body is
    left: only what reaches the border of the image is padding.
    """
    ends = [dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [_as_stored(int(end), stored.dtype) for end in ends if isinstance(end, int)]
    if ends[0] is None or not numbers:
        return None
    low, high = min(numbers), max(numbers)
    if max(low * rescale.slope, high * rescale.slope) + rescale.intercept <= _LIKE_AIR_HU:
        return None
    filled = ((stored >= low) & (stored <= high)).astype(np.uint8)
    _, regions = cv2.connectedComponents(filled, connectivity=4)
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    at_rim = np.unique(rim[rim > 0])
    return np.isin(regions, at_rim) if len(at_rim) else None


def _as_stored(number: int, dtype: np.dtype) -> int:
    """Return a number as a pixel holds it: headers write -2000 as 63536, too."""
    bits = 8 * dtype.itemsize
    if dtype.kind == "i" and number >= 1 << (bits - 1):
        return number - (1 << bits)
    return number + (1 << bits) if dtype.kind == "u" and number < 0 else number


def _damaged(path: Path, error: Exception) -> Exception:
    return unreadable(path, got=f"a damaged DICOM header ({type(error).__name__})", expected="a DICOM file")


def _describe(path: Path, dataset: Dataset) -> Slice:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not (syntax or dataset.get("SOPClassUID") or dataset.get("Modality") or dataset.get("Rows")):
        raise unreadable(path, got="a DICOM prefix and no attribute of an image", expected="a DICOM file")
    left_out = _left_out(dataset)
    shape = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    if not left_out:
        if not syntax:
            raise unreadable(path, got="no transfer syntax", expected="(0002,0010) in the header")
        _check_image(path, dataset, shape)
    return Slice(
        path=path,
        series=str(dataset.get("SeriesInstanceUID") or ""),
        left_out=left_out,
        shape=shape,
        plane=None if left_out else _plane(path, dataset),
        rescale=None if left_out else _rescale(path, dataset),
        syntax=str(syntax.name) if syntax and syntax.is_transfer_syntax else "unknown",
    )


def _left_out(dataset: Dataset) -> str:
    """Return why an object is no slice of a CT volume, "" where it may be one."""
    kind = str(dataset.get("SOPClassUID") or "")
    image_type = [str(word).upper() for word in dataset.get("ImageType") or []]
    modality = str(dataset.get("Modality") or "CT").upper()
    if kind.startswith(_SECONDARY_CAPTURE):
        return "secondary captures"
    if _SCOUT_WORDS & set(image_type):
        return "scouts"
    is_ct_class = not kind or kind == _CT_CLASS or kind.startswith(f"{_CT_CLASS}.")
    if modality != "CT" or not is_ct_class:
        return "objects of another modality"
    if str(dataset.get("RescaleType") or "").strip().upper() not in _HU_TYPES:
        return "maps of another quantity than HU"
    if len(image_type) > 1 and image_type[1] == "SECONDARY" and not set(_GEOMETRY[:2]) <= set(dataset.dir()):
        return "derived pictures without a place"
    if not dataset.get("Rows"):
        return "objects without an image"
    return ""


def _check_image(path: Path, dataset: Dataset, shape: tuple[int, int]) -> None:
    check_shape(path, shape)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        remedy = "Split it into single slices, for instance with dcm4che's emf2sf, or convert it to NIfTI."
        raise unreadable(path, got=f"{int(dataset.NumberOfFrames)} frames in one file", expected="one slice", remedy=remedy)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1:
        raise unreadable(path, got=f"{samples} samples a pixel (colour)", expected="1", remedy=LEAVE_OUT)
    if int(dataset.get("BitsAllocated") or 0) not in (8, 16, 32):
        raise unreadable(path, got=f"{int(dataset.get('BitsAllocated') or 0)} bits a pixel", expected="8, 16 or 32")
    stored, highest = dataset.get("BitsStored"), dataset.get("HighBit")
    if stored is not None and highest is not None and int(highest) != int(stored) - 1:
        got = f"pixels of {int(stored)} bits below bit {int(highest)}"
        remedy = "Export the series again: DICOM has no other place for them any more."
        raise unreadable(path, got=got, expected=f"bit {int(stored) - 1} as the highest", remedy=remedy)


def _plane(path: Path, dataset: Dataset) -> Plane | None:
    """Return where an image lies; None where the header lacks position, orientation or spacing."""
    position, orientation, spacing = (_numbers(dataset.get(name)) for name in _GEOMETRY)
    if position is None or orientation is None or spacing is None:
        return None
    sizes = (len(position), len(orientation), len(spacing))
    if sizes != (3, 6, 2) or not np.isfinite(np.concatenate([position, orientation, spacing])).all():
        raise unreadable(path, got="a position, orientation or spacing of odd numbers", expected="3, 6 and 2 finite numbers")
    if (spacing <= 0).any():
        raise unreadable(path, got="a pixel spacing that is no length", expected="two positive numbers")
    row, column = orientation[:3], orientation[3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 10 * _PARALLEL:
        raise unreadable(path, got="an orientation that is no right angle", expected="two unit vectors at right angles")
    unit_row = row / np.linalg.norm(row)
    unit_column = column / np.linalg.norm(column)
    return Plane(position, unit_row, unit_column, (float(spacing[0]), float(spacing[1])))


def _numbers(value: Any) -> np.ndarray | None:
    if value is None or value == "":
        return None
    return np.array([float(number) for number in value], dtype=np.float64)


def _rescale(path: Path, dataset: Dataset) -> Rescale | None:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope in (None, "") and intercept in (None, ""):
        return None
    if slope in (None, "") or intercept in (None, ""):
        raise unreadable(path, got="only one of rescale slope and intercept", expected="both or neither")
    rescale = Rescale(float(slope), float(intercept))
    if not np.isfinite(rescale).all() or rescale.slope == 0:
        got = f"rescale slope {rescale.slope:g}, intercept {rescale.intercept:g}"
        raise unreadable(path, got=got, expected="two numbers, the slope other than 0")
    return rescale


def _check_pixels(path: Path, dataset: Dataset) -> None:
    """Refuse pixel data that are cut off, have no decoder, or ask for another size than the header, before decoding."""
    data = dataset.get("PixelData")
    if not data:
        raise unreadable(path, got="no pixel data", expected="a slice")
    syntax = dataset.file_meta.TransferSyntaxUID
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not syntax.is_encapsulated:
        needed = rows * columns * int(dataset.BitsAllocated) // 8
        if len(data) < needed:
            raise unreadable(path, got=f"pixel data cut off at {len(data)} bytes", expected=f"{needed} bytes")
        return
    if not has_decoder(syntax):
        remedy = "Check 'd2rnet doctor' for missing decoders, or decompress the series, for instance with gdcmconv --raw."
        raise unreadable(path, got="a transfer syntax that no installed decoder reads", expected="DICOM's", remedy=remedy)
    declared = _declared_size(
        get_frame(data, 0, number_of_frames=1), is_jpeg2000=syntax in JPEG2000TransferSyntaxes, is_rle=syntax == RLELossless
    )
    if declared is not None and declared != (rows, columns):
        got = f"compressed pixels of {declared[0]} x {declared[1]}"
        raise unreadable(path, got=got, expected=f"{rows} x {columns}, as the header says", remedy=FETCH_AGAIN)


def _declared_size(frame: bytes, *, is_jpeg2000: bool, is_rle: bool) -> tuple[int, int] | None:
    """Return rows and columns that a codestream says itself; None for run lengths, which have none."""
    if is_rle:
        return None
    said = openjpeg.get_parameters(frame) if is_jpeg2000 else libjpeg.utils.get_parameters(frame)
    return int(said["rows"]), int(said["columns"])
