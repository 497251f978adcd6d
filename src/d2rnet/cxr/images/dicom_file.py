"""One DICOM radiograph: header check without decoding, and decoding to 8-bit grey.

Only the attributes listed here are read from a data set; names, dates and the rest never enter memory as values. A message
repeats an attribute's text only where it is a term that the standard defines: in a damaged file it may be anybody's name.

Source: DICOM PS3.5 (transfer syntaxes, A.4 encapsulation), PS3.3 C.7.6.3 (image pixel), C.7.5.1.1.2 (padding).
"""

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    RLELossless,
)

from d2rnet.cxr.images.codestreams import check_codestream, check_deflated
from d2rnet.cxr.images.dicom_values import whole_number, without_padding
from d2rnet.cxr.images.fragments import first_bytes, read_items, whole_items
from d2rnet.cxr.images.gate import (
    described_body_part,
    stated_body_part,
    stated_modality,
    stated_orientation,
    stated_species,
    stated_view,
)
from d2rnet.cxr.images.grayscale import read_grayscale
from d2rnet.cxr.images.jpeg2000 import decode_reduced, levels_to_skip, parse_codestream
from d2rnet.cxr.images.radiograph import Radiograph, RadiographHeader, check_pixel_count, reduced_hw, resize_area, unreadable
from d2rnet.cxr.images.views import UNKNOWN, position_of
from d2rnet.errors import DatasetError
from d2rnet.files.dicom import has_decoder, silent_pydicom

log = logging.getLogger(__name__)
LARGEST_OVERSHOOT = 1.25  # of a low-pass image over the largest value: 5/3 and 9/7 wavelets stay below
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_YCBCR = ("YBR_FULL", "YBR_FULL_422")
_OTHER_PHOTOMETRICS = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
_REQUIRED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
)  # fmt: skip
_GRAYSCALE_ATTRIBUTES = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter",
    "WindowWidth",
)  # fmt: skip
_HEADER_ATTRIBUTES = (
    *_REQUIRED, "NumberOfFrames", "ViewPosition", "ViewCodeSequence", "SOPClassUID", "SOPInstanceUID", "Modality",
    "BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "ProtocolName", "StudyDescription",
    "RequestedProcedureDescription", "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientOrientation",
    *_GRAYSCALE_ATTRIBUTES,
)  # fmt: skip
_PIXEL_ATTRIBUTES = (
    *_REQUIRED, "NumberOfFrames", "HighBit", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit",
    *_GRAYSCALE_ATTRIBUTES, "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
_FASTEST_DECODER = {RLELossless: "pylibjpeg", JPEGBaseline8Bit: "pillow"}  # where pydicom tries another one first
_PIXEL_DATA = Tag("PixelData")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_GLANCED_BYTES = 1 << 16  # of a codestream; its size stands in the first hundred, behind a thumbnail in the first ten thousand
_PIXEL_DATA_KINDS = (_PIXEL_DATA, Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))
_CONVERT = "Convert the file, for instance with gdcmconv --raw or dcmdjpeg; if they refuse it too, leave the image out."
_REMEDY = "Fetch the file again; if the original is the same, leave the image out."
_NOT_A_RADIOGRAPH = "This is not a plain radiograph; leave it out."


@dataclass
class _PixelElement:
    """Where the pixel data of an open file begin; offset is -1 where there are none."""

    tag: BaseTag | None = None
    length: int = 0
    offset: int = -1

    def stop(self, tag: BaseTag, length: int, stream: BinaryIO) -> bool:
        """Note the pixel data element and stop there; other elements are read on."""
        if tag not in _PIXEL_DATA_KINDS:
            return False
        self.tag = tag
        self.length = length
        self.offset = stream.tell()
        return True


def read_dicom_header(path: Path) -> RadiographHeader:
    """Read geometry and view, and check that whole pixel data are there; nothing is decoded.

    Raises:
        DatasetError: not parsable, no transfer syntax or one without a decoder here, no pixel data, fewer or twice as
            many as the header says, several frames, or a photometric interpretation, bit depth or size that no radiograph has.
    """
    element = _PixelElement()
    with path.open("rb") as stream:
        try:
            with silent_pydicom():
                check_deflated(stream, path)
                dataset = read_partial(
                    stream,
                    force=True,  # the caller has looked at the first bytes
                    stop_when=lambda tag, vr, length: element.stop(tag, length, stream),
                    specific_tags=[Tag(name) for name in _HEADER_ATTRIBUTES],
                )
                _complete(dataset)
                header = _describe(dataset, path)
                read_grayscale(dataset, path)
        except DatasetError:
            raise
        except Exception as error:  # damaged files make pydicom raise almost anything; its texts may quote values
            got = f"a damaged DICOM header ({type(error).__name__})"
            raise unreadable(path, got=got, expected="a DICOM file", remedy=_REMEDY) from error
        _check_pixel_data(dataset, element, stream, path)
    return header


def _complete(dataset: FileDataset) -> None:
    """Give a data set without file meta information the transfer syntax that it was found to be written in.

    And whole numbers in place of the attributes that decoding depends on, whatever they are written as; blank ones that have a
    usual value get that.
    """
    if not dataset.file_meta.get("TransferSyntaxUID"):
        is_implicit, is_little = dataset.original_encoding
        if is_little:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        elif is_implicit is False:
            dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    for name in _REQUIRED:
        if name != "PhotometricInterpretation" and (value := whole_number(dataset, name)) is not None:
            setattr(dataset, name, value)
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = whole_number(dataset, "NumberOfFrames") or 1
    if "PlanarConfiguration" in dataset or (whole_number(dataset, "SamplesPerPixel") or 1) > 1:
        dataset.PlanarConfiguration = whole_number(dataset, "PlanarConfiguration") or 0


def _read_with_pixels(path: Path) -> FileDataset:
    """Read what decoding needs; compressed pixel data that pydicom drops for want of a delimiter are read item by item."""
    tags: list[BaseTag | int] = [Tag(name) for name in _PIXEL_ATTRIBUTES]
    dataset = dcmread(path, force=True, specific_tags=tags)
    if _PIXEL_DATA not in dataset:
        element = _PixelElement()
        with path.open("rb") as stream:
            stop = partial(element.stop, stream=stream)
            dataset = read_partial(stream, force=True, stop_when=lambda tag, vr, length: stop(tag, length), specific_tags=tags)
            end = whole_items(stream, element.offset, stream.seek(0, io.SEEK_END))
            if end is not None:
                dataset.add_new(_PIXEL_DATA, "OB", read_items(stream, element.offset, end))
                dataset[_PIXEL_DATA].is_undefined_length = True
    _complete(dataset)
    return dataset


def _describe(dataset: FileDataset, path: Path) -> RadiographHeader:
    """Check the attributes that decoding depends on and return those that may leave the reader."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise unreadable(path, got="no transfer syntax", expected="(0002,0010) in the header", remedy=_REMEDY)
    if not has_decoder(syntax):
        raise unreadable(
            path,
            got=f"{_name_of(syntax)}, which no installed decoder reads",
            expected="uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000",
            remedy="Check 'd2rnet doctor' for missing decoders, or convert the file, for instance with gdcmconv --raw.",
        )
    missing = [name for name in _REQUIRED if dataset.get(name) in (None, "")]
    if missing:
        kind = dataset.get("SOPClassUID")
        is_known = isinstance(kind, UID) and kind.name != str(kind) and "Image" not in kind.name
        got = f"a {kind.name} without an image" if is_known else f"no {', '.join(missing)}"
        remedy = _NOT_A_RADIOGRAPH if is_known else _REMEDY
        raise unreadable(path, got=got, expected="the attributes of an image", remedy=remedy)
    frames = whole_number(dataset, "NumberOfFrames") or 1
    if frames > 1:
        raise unreadable(path, got=f"{frames} frames", expected="a single radiograph", remedy=_NOT_A_RADIOGRAPH)
    if dataset.PhotometricInterpretation not in PHOTOMETRICS:
        known = dataset.PhotometricInterpretation in _OTHER_PHOTOMETRICS
        named = str(dataset.PhotometricInterpretation) if known else "unknown to the standard"
        got = f"photometric interpretation {named}"
        expected = f"one of {', '.join(PHOTOMETRICS)}"
        raise unreadable(path, got=got, expected=expected, remedy=_NOT_A_RADIOGRAPH)
    if dataset.BitsAllocated not in (8, 16) or not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        got = f"{int(dataset.BitsStored)} bits stored in {int(dataset.BitsAllocated)}"
        raise unreadable(path, got=got, expected="1 to 16 bits stored in 8 or 16", remedy=_NOT_A_RADIOGRAPH)
    if dataset.PixelRepresentation not in (0, 1):
        got = f"pixel representation {int(dataset.PixelRepresentation)}"
        raise unreadable(path, got=got, expected="0 (unsigned) or 1 (signed)", remedy=_REMEDY)
    check_pixel_count(path, int(dataset.Rows), int(dataset.Columns), where="the header")
    if int(dataset.SamplesPerPixel) not in (1, 3):
        got = f"{int(dataset.SamplesPerPixel)} samples a pixel"
        raise unreadable(path, got=got, expected="1 (grey) or 3 (colour)", remedy=_NOT_A_RADIOGRAPH)
    is_in_cells = not syntax.is_encapsulated or syntax == RLELossless
    cells = (int(dataset.SamplesPerPixel), int(dataset.BitsAllocated))
    if is_in_cells and dataset.PhotometricInterpretation in _YCBCR and cells != (3, 8):
        got = f"{dataset.PhotometricInterpretation} of {cells[0]} sample(s) of {cells[1]} bits"
        raise unreadable(path, got=got, expected="3 samples of 8 bits", remedy=_NOT_A_RADIOGRAPH)
    view = _view(dataset)
    return RadiographHeader(
        height=int(dataset.Rows),
        width=int(dataset.Columns),
        view=view,
        photometric=str(dataset.PhotometricInterpretation),
        transfer_syntax=syntax.name,
        bits_stored=int(dataset.BitsStored),
        modality=stated_modality(dataset),
        body_part=stated_body_part(dataset),
        described_part=described_body_part(dataset),
        species=stated_species(dataset),
        other_view="" if view else stated_view(dataset),
        orientation=stated_orientation(dataset),
        uid_hash=_uid_hash(dataset),
        is_coloured=int(dataset.SamplesPerPixel) == 3,
    )


def _uid_hash(dataset: FileDataset) -> str:
    """Return 16 hex digits for the SOPInstanceUID, or for that of the file meta information; "" for neither."""
    stated = (
        part.get(name) for part, name in ((dataset, "SOPInstanceUID"), (dataset.file_meta, "MediaStorageSOPInstanceUID"))
    )
    uid = next((text for value in stated if (text := str(value or "").strip(" \0"))), "")
    return hashlib.sha256(uid.encode()).hexdigest()[:16] if uid else ""


def _name_of(syntax: UID) -> str:
    return f"transfer syntax {syntax} ({syntax.name})" if syntax.is_transfer_syntax else "an unknown transfer syntax"


def _view(dataset: Dataset) -> str:
    """Return PA, AP or LATERAL from ViewPosition, else from the view code's meaning; "" for any other and for none."""
    position = str(dataset.get("ViewPosition") or "").strip()
    codes = dataset.get("ViewCodeSequence")
    known = position_of(position or (str(codes[0].get("CodeMeaning", "")) if codes else ""))
    return "" if known == UNKNOWN else known


def _check_pixel_data(dataset: FileDataset, element: _PixelElement, stream: BinaryIO, path: Path) -> None:
    """Raise unless the file holds as many bytes of pixel data as its header promises, and not twice as many."""
    size = stream.seek(0, io.SEEK_END)
    if element.tag != _PIXEL_DATA or element.length == 0:
        got = f"no pixel data ({size} bytes in all)" if element.tag in (None, _PIXEL_DATA) else "floating-point pixel data"
        raise unreadable(path, got=got, expected="a radiograph with integer pixel data", remedy=_REMEDY)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        if whole_items(stream, element.offset, size) is None:
            got = f"compressed pixel data cut off ({size} bytes in all)"
            raise unreadable(path, got=got, expected="all fragments and their delimiter", remedy=_REMEDY)
        check_codestream(first_bytes(stream, element.offset, _GLANCED_BYTES), path, (int(dataset.Rows), int(dataset.Columns)))
        return
    if element.length == _UNDEFINED_LENGTH:
        got = f"compressed pixel data in {_name_of(syntax)}"
        raise unreadable(path, got=got, expected="the transfer syntax that they are in", remedy=_CONVERT)
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    needed = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) // 8
    present = element.length if syntax.is_deflated else min(element.length, size - element.offset)
    if present < needed:
        raise unreadable(path, got=f"pixel data cut off at {present} bytes", expected=f"{needed} bytes", remedy=_REMEDY)
    # A little padding is common, to an even number always; this is more frames than are named, or wider cells.
    if element.length >= 2 * (needed + needed % 2):
        got = f"{element.length} bytes of pixel data"
        raise unreadable(path, got=got, expected=f"{needed} bytes, by rows, columns and bits of the header", remedy=_REMEDY)


def read_dicom_pixels(path: Path, header: RadiographHeader, sides_px: Sequence[int | None]) -> list[Radiograph]:
    """Decode a DICOM radiograph to 8-bit grey, in several sizes.

    Averages areas of stored values first and applies the grey-level chain afterwards, which is several times faster than the
    other order and differs by less than the choice of resampling filter does (benchmarks/conversion.py).

    Args:
        path: DICOM file that :func:`read_dicom_header` accepts.
        header: of ``path``.
        sides_px: longer side of each result, pixels; None for the file's own.

    Raises:
        DatasetError: the decoder refuses the data, or the header's grey-level chain is invalid.
    """
    source_hw = (header.height, header.width)
    try:
        with silent_pydicom():
            dataset = _read_with_pixels(path)
            grayscale = read_grayscale(dataset, path)
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                check_codestream(get_frame(dataset.PixelData, 0, number_of_frames=1), path, source_hw)
            full = cache(lambda: without_padding(_decode(dataset), dataset, is_inverted=grayscale.is_inverted))
            coarse = [_decode_coarse(dataset, side) for side in sides_px]
            stored = [full() if values is None else values for values in coarse]
            reduced = [
                grayscale.to_8_bit(resize_area(values, reduced_hw(*source_hw, side)), values)
                for side, values in zip(sides_px, stored, strict=True)
            ]
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # each decoder raises its own
        # a RuntimeError is a decoder's and tells of the codestream; other texts may quote values of the header
        reason = ": " + " ".join(str(error).split())[:300] if isinstance(error, RuntimeError) else ""
        got = f"{header.transfer_syntax} data that cannot be decoded ({type(error).__name__}{reason})"
        raise unreadable(path, got=got, expected="valid pixel data", remedy=_CONVERT) from error
    return [Radiograph(pixels, source_hw) for pixels in reduced]


def _decode(dataset: FileDataset) -> np.ndarray:
    """Return (h, w) stored values."""
    syntax = dataset.file_meta.TransferSyntaxUID
    bits_stored = int(dataset.BitsStored)
    is_in_cells = not syntax.is_encapsulated or syntax == RLELossless
    if is_in_cells:
        dataset.BitsStored = dataset.BitsAllocated  # pydicom would mask the low bits, wherever HighBit says they are
    pixels = _pixel_array(dataset, syntax)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)  # big-endian syntaxes come as they are
    stated = whole_number(dataset, "HighBit") if is_in_cells else None
    high_bit = bits_stored - 1 if stated is None or stated >= dataset.BitsAllocated else stated
    pixels = _meaningful_bits(pixels, bits_stored, high_bit)
    if pixels.dtype == np.int8:
        pixels = pixels.astype(np.int16)  # OpenCV averages no signed bytes
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels


def _pixel_array(dataset: FileDataset, syntax: UID) -> np.ndarray:
    """Decode with the fastest decoder; with any that pydicom knows if that one is absent or refuses."""
    plugin = _FASTEST_DECODER.get(syntax, "")
    if plugin in get_decoder(syntax).available_plugins:
        try:
            with _panics_as_errors():
                return pixel_array(dataset, decoding_plugin=plugin)
        except RuntimeError as error:
            log.debug("%s refuses a file: %s", plugin, error)
    with _panics_as_errors():
        return pixel_array(dataset)


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn the panic of a decoder written in Rust, which is no Exception and would end the whole run, into an error."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the decoder gave up ({error})") from error


def _decode_coarse(dataset: FileDataset, max_side_px: int | None) -> np.ndarray | None:
    """Decode JPEG 2000 without its finest levels, where that is sure to give the same picture; else None.

    (h, w) stored values; fewer pixels than the header says.
    """
    if dataset.file_meta.TransferSyntaxUID not in JPEG2000TransferSyntaxes:
        return None
    levels = levels_to_skip(dataset.Rows, dataset.Columns, max_side_px)
    if levels == 0 or dataset.PixelRepresentation or "PixelPaddingValue" in dataset:
        return None
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    codestream = parse_codestream(frame)
    if codestream is None or codestream.has_offset or codestream.is_signed or codestream.components != 1:
        return None
    shape = (codestream.height, codestream.width)
    if shape != (dataset.Rows, dataset.Columns):
        return None
    coarse = decode_reduced(frame, codestream, levels)
    # In real files the codestream's precision may lie above or below the bits stored (pydicom issue 2012). Filters overshoot a
    # little; more than that are bits to be masked, which only the full image allows.
    largest = 2 ** int(dataset.BitsStored) - 1
    if coarse is None or int(coarse.max()) > LARGEST_OVERSHOOT * largest:
        return None
    return np.minimum(coarse, largest, dtype=coarse.dtype, casting="unsafe")


def _meaningful_bits(pixels: np.ndarray, bits_stored: int, high_bit: int) -> np.ndarray:
    """Keep the bits stored, right-aligned, with their sign; the rest of a cell may hold overlays or noise."""
    unused = 8 * pixels.dtype.itemsize - bits_stored
    if unused <= 0:
        return pixels
    cells = pixels.view(f"u{pixels.dtype.itemsize}")
    shift = max(high_bit + 1 - bits_stored, 0)
    mask = 2**bits_stored - 1
    if shift > 0 or int(cells.max()) > mask:
        cells = (cells >> shift) & mask
    if pixels.dtype.kind == "u":
        return cells
    return (cells << unused).view(pixels.dtype) >> unused
