"""One DICOM radiograph: header check without decoding, and decoding to 8-bit grey.

Only the attributes listed here are read from a data set; names, dates and the rest never enter memory as values. A message
repeats an attribute's text only where it is a term that the standard defines: in a damaged file it may be anybody's name.

Source: DICOM PS3.5 (transfer syntaxes, A.4 encapsulation), PS3.3 C.7.6.3 (image pixel), C.7.5.1.1.2 (padding).
"""

import io
import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGBaseline8Bit, RLELossless

from d2rnet.cxr.images.codestreams import check_codestream, check_deflated
from d2rnet.cxr.images.gate import stated_body_part, stated_modality, stated_orientation, stated_view
from d2rnet.cxr.images.grayscale import read_grayscale
from d2rnet.cxr.images.jpeg2000 import decode_reduced, levels_to_skip, parse_codestream
from d2rnet.cxr.images.radiograph import Radiograph, RadiographHeader, check_pixel_count, reduced_hw, resize_area, unreadable
from d2rnet.errors import DatasetError

log = logging.getLogger(__name__)
LARGEST_OVERSHOOT = 1.25  # of a low-pass image over the largest value: 5/3 and 9/7 wavelets stay below
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_OTHER_PHOTOMETRICS = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
_REQUIRED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
)  # fmt: skip
_HEADER_ATTRIBUTES = (
    *_REQUIRED, "NumberOfFrames", "ViewPosition", "ViewCodeSequence", "SOPClassUID", "Modality", "BodyPartExamined",
    "PatientOrientation",
)  # fmt: skip
_PIXEL_ATTRIBUTES = (
    *_REQUIRED, "NumberOfFrames", "HighBit", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter",
    "WindowWidth", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL"}
_VIEW_MEANINGS = {"postero-anterior": "PA", "antero-posterior": "AP", "lateral": "LATERAL"}
_FASTEST_DECODER = {RLELossless: "pylibjpeg", JPEGBaseline8Bit: "pillow"}  # where pydicom tries another one first
_PIXEL_DATA = Tag("PixelData")
_PIXEL_DATA_KINDS = (_PIXEL_DATA, Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))
_ITEM = (0xFFFE, 0xE000)
_SEQUENCE_DELIMITER = (0xFFFE, 0xE0DD)
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
        DatasetError: not parsable, no transfer syntax or one without a decoder here, no pixel data, pixel data cut off,
            several frames, or a photometric interpretation, bit depth or size that no radiograph has.
    """
    element = _PixelElement()
    with path.open("rb") as stream:
        try:
            with _silent_pydicom():
                check_deflated(stream, path)
                dataset = read_partial(
                    stream,
                    stop_when=lambda tag, vr, length: element.stop(tag, length, stream),
                    specific_tags=[Tag(name) for name in _HEADER_ATTRIBUTES],
                )
                header = _describe(dataset, path)
        except DatasetError:
            raise
        except Exception as error:  # damaged files make pydicom raise almost anything; its texts may quote values
            got = f"a damaged DICOM header ({type(error).__name__})"
            raise unreadable(path, got=got, expected="a DICOM file", remedy=_REMEDY) from error
        _check_pixel_data(dataset, element, stream, path)
    return header


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings and log lines to itself: they quote the offending values, whoever's they are."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _describe(dataset: FileDataset, path: Path) -> RadiographHeader:
    """Check the attributes that decoding depends on and return those that may leave the reader."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise unreadable(path, got="no transfer syntax", expected="(0002,0010) in the header", remedy=_REMEDY)
    if not _has_decoder(syntax):
        raise unreadable(
            path,
            got=f"{_name_of(syntax)}, which no installed decoder reads",
            expected="uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000",
            remedy="Check 'd2rnet doctor' for missing decoders, or convert the file, for instance with gdcmconv --raw.",
        )
    missing = [name for name in _REQUIRED if dataset.get(name) in (None, "")]
    if missing:
        got = f"no {', '.join(missing)}"
        raise unreadable(path, got=got, expected="the attributes of an image", remedy=_REMEDY)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise unreadable(
            path, got=f"{int(dataset.NumberOfFrames)} frames", expected="a single radiograph", remedy=_NOT_A_RADIOGRAPH
        )
    if dataset.PhotometricInterpretation not in PHOTOMETRICS:
        known = dataset.PhotometricInterpretation in _OTHER_PHOTOMETRICS
        named = str(dataset.PhotometricInterpretation) if known else "unknown to the standard"
        got = f"photometric interpretation {named}"
        expected = f"one of {', '.join(PHOTOMETRICS)}"
        raise unreadable(path, got=got, expected=expected, remedy=_NOT_A_RADIOGRAPH)
    if dataset.BitsAllocated not in (8, 16) or not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        got = f"{int(dataset.BitsStored)} bits stored in {int(dataset.BitsAllocated)}"
        raise unreadable(path, got=got, expected="1 to 16 bits stored in 8 or 16", remedy=_NOT_A_RADIOGRAPH)
    check_pixel_count(path, int(dataset.Rows), int(dataset.Columns), where="the header")
    if int(dataset.SamplesPerPixel) not in (1, 3):
        got = f"{int(dataset.SamplesPerPixel)} samples a pixel"
        raise unreadable(path, got=got, expected="1 (grey) or 3 (colour)", remedy=_NOT_A_RADIOGRAPH)
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
        other_view="" if view else stated_view(dataset),
        orientation=stated_orientation(dataset),
        is_coloured=int(dataset.SamplesPerPixel) == 3,
    )


def _name_of(syntax: UID) -> str:
    return f"transfer syntax {syntax} ({syntax.name})" if syntax.is_transfer_syntax else "an unknown transfer syntax"


def _has_decoder(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _view(dataset: Dataset) -> str:
    """Return PA, AP or LATERAL from ViewPosition, else from the view code's meaning; "" for any other and for none."""
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    codes = dataset.get("ViewCodeSequence")
    if position or not codes:
        return _VIEWS.get(position, "")
    meaning = str(codes[0].get("CodeMeaning", "")).strip().lower()
    return _VIEW_MEANINGS.get(meaning.removeprefix("left ").removeprefix("right "), "")


def _check_pixel_data(dataset: FileDataset, element: _PixelElement, stream: BinaryIO, path: Path) -> None:
    """Raise unless the file holds as many bytes of pixel data as its header promises."""
    size = stream.seek(0, io.SEEK_END)
    if element.tag != _PIXEL_DATA or element.length == 0:
        got = f"no pixel data ({size} bytes in all)" if element.tag in (None, _PIXEL_DATA) else "floating-point pixel data"
        raise unreadable(path, got=got, expected="a radiograph with integer pixel data", remedy=_REMEDY)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        if not _fragments_are_whole(stream, element.offset, size):
            got = f"compressed pixel data cut off ({size} bytes in all)"
            raise unreadable(path, got=got, expected="all fragments and their delimiter", remedy=_REMEDY)
        return
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    needed = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) // 8
    present = element.length if syntax.is_deflated else min(element.length, size - element.offset)
    if present < needed:
        raise unreadable(path, got=f"pixel data cut off at {present} bytes", expected=f"{needed} bytes", remedy=_REMEDY)


def _fragments_are_whole(stream: BinaryIO, offset: int, size: int) -> bool:
    """Walk the items of encapsulated pixel data; a missing delimiter after a whole last fragment is forgiven."""
    position = offset
    compressed_bytes = 0
    is_offset_table = True
    while position < size:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            return False
        group, number, length = struct.unpack("<HHI", head)
        if (group, number) == _SEQUENCE_DELIMITER:
            break
        if (group, number) != _ITEM or position + 8 + length > size:
            return False
        compressed_bytes += 0 if is_offset_table else length
        is_offset_table = False
        position += 8 + length
    return compressed_bytes > 0


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
        with _silent_pydicom():
            dataset = dcmread(path, specific_tags=list(_PIXEL_ATTRIBUTES))
            grayscale = read_grayscale(dataset, path)
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                check_codestream(get_frame(dataset.PixelData, 0, number_of_frames=1), path)
            full = cache(lambda: _without_padding(_decode(dataset), dataset, is_inverted=grayscale.is_inverted))
            coarse = [_decode_coarse(dataset, side) for side in sides_px]
            stored = [full() if values is None else values for values in coarse]
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # each decoder raises its own
        # a RuntimeError is a decoder's and tells of the codestream; other texts may quote values of the header
        reason = ": " + " ".join(str(error).split())[:300] if isinstance(error, RuntimeError) else ""
        got = f"{header.transfer_syntax} data that cannot be decoded ({type(error).__name__}{reason})"
        raise unreadable(path, got=got, expected="valid pixel data", remedy=_REMEDY) from error
    reduced = [
        grayscale.to_8_bit(resize_area(values, reduced_hw(*source_hw, side)), values)
        for side, values in zip(sides_px, stored, strict=True)
    ]
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
    high_bit = int(dataset.get("HighBit", bits_stored - 1)) if is_in_cells else bits_stored - 1
    pixels = _meaningful_bits(pixels, bits_stored, high_bit)
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


def _without_padding(stored: np.ndarray, dataset: Dataset, *, is_inverted: bool) -> np.ndarray:
    """Replace padding (outside the collimator) by the value shown darkest, before any averaging mixes it in."""
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return stored
    ends = sorted((int(padding), int(dataset.get("PixelPaddingRangeLimit", padding))))
    is_padding = (stored >= ends[0]) & (stored <= ends[1])
    if not is_padding.any() or is_padding.all():
        return stored
    image = stored[~is_padding]
    return np.where(is_padding, image.max() if is_inverted else image.min(), stored)
