"""Radiograph reader: DICOM, PNG and JPG files to 8-bit grey, and a fast check of their headers.

The format is told by the first bytes, not by the file's name (VinDr-CXR's are called ``.dicom``). Nothing of a header beyond
geometry and view leaves the reader. Reads: image files. Writes: nothing.
"""

import logging
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from d2rnet.cxr.images.dicom_file import read_dicom_header, read_dicom_pixels
from d2rnet.cxr.images.image_files import is_coloured, read_image_header, read_image_pixels
from d2rnet.cxr.images.radiograph import Radiograph, RadiographHeader, unreadable
from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track

__all__ = ["Radiograph", "RadiographHeader", "Reader", "check_headers", "read_header", "read_radiograph", "read_radiograph_at"]
log = logging.getLogger(__name__)
Reader = Callable[..., Radiograph]  # called as read_radiograph is
Checked = tuple[Path, RadiographHeader | None, str | None]
MOST_GLANCES = 200  # where none of them is coloured, fewer than 1.5 % of all are (rule of three, 95 %)
_DICOM_PREFIX_END = 132
_HEADERS_A_CHUNK = 32
# A picture of one grey level takes at most this many bytes a pixel. JPG: 6 bits a block and 4 for each colour; in DICOM, JPEG
# Lossless has one bit a pixel.
_BYTES_OF_ONE_LEVEL = {"PNG": 0.03, "JPEG": 0.03}
_BYTES_OF_ONE_LEVEL_IN_DICOM = 0.15
_BYTES_OF_HEADERS = 8192
_SAMPLED_BYTES = 1 << 14
_EARLY_REPRESENTATIONS = (b"UI", b"UL", b"CS", b"DA", b"TM", b"OB", b"LO", b"SH", b"DT")
_LONGEST_EARLY_VALUE = 128  # bytes


def read_header(path: str | Path) -> RadiographHeader:
    """Read geometry and view of a radiograph and check that the file is whole; no pixel is decoded.

    Args:
        path: DICOM, PNG or JPG file of any name.

    Raises:
        DatasetError: missing, empty, of another format, damaged, cut off, without pixel data, with several frames, or in a
            DICOM transfer syntax that no installed decoder reads.
    """
    path = Path(path)
    kind = file_format(path)
    return read_dicom_header(path) if kind == "DICOM" else read_image_header(path, kind)


def read_radiograph(path: str | Path, *, max_side_px: int | None = None) -> Radiograph:
    """Read a radiograph as 8-bit grey, bright where the body absorbs.

    Modality LUT or rescale, VOI LUT or window and the inversion of MONOCHROME1 are applied once each, in this order
    (:mod:`d2rnet.cxr.images.grayscale`). Without VOI LUT or window, up to 8 stored bits are shown as they are, more over the
    range of the data. Colour becomes luma, alpha is dropped, EXIF orientation is not applied.

    Args:
        path: DICOM, PNG or JPG file of any name.
        max_side_px: longer side wanted, pixels; smaller images are not enlarged. None: full resolution.

    Raises:
        DatasetError: as :func:`read_header`, or the pixels cannot be decoded.
    """
    return read_radiograph_at(path, [max_side_px])[1][0]


def read_radiograph_at(path: str | Path, sides_px: Sequence[int | None]) -> tuple[RadiographHeader, list[Radiograph]]:
    """Read a radiograph in several sizes, decoding it once unless a size allows a coarser, quicker decoding of its own.

    Args:
        path: DICOM, PNG or JPG file of any name.
        sides_px: longer sides wanted, as ``max_side_px`` of :func:`read_radiograph`.

    Returns:
        Its header, and the radiograph in each size, as :func:`read_header` and :func:`read_radiograph` give them.

    Raises:
        DatasetError: as :func:`read_radiograph`.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "DICOM":
        header = read_dicom_header(path)
        return header, read_dicom_pixels(path, header, sides_px)
    header = read_image_header(path, kind)
    return header, read_image_pixels(path, header, sides_px)


def file_format(path: Path) -> str:
    """Return "DICOM", "PNG" or "JPEG" by the file's first bytes.

    Raises:
        DatasetError: the file cannot be opened, is empty or is of another format.
    """
    try:
        check_regular_file(path)
        with path.open("rb") as stream:
            start = stream.read(_DICOM_PREFIX_END)
    except OSError as error:
        remedy = "Check the path, the permissions and that the download is complete."
        raise unreadable(path, got=f"'{error.strerror}'", expected="an image file", remedy=remedy) from error
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start[128:] == b"DICM" or _is_bare_dicom(start):
        return "DICOM"
    raise unreadable(path, got=_described(start), expected="DICOM, PNG or JPG", remedy="Fetch the file again.")


def _is_bare_dicom(start: bytes) -> bool:
    """Say whether a file without preamble begins as a DICOM data set does: an early element of plausible length.

    Group 2 (file meta information) or 8 (identification), an even length, and, where a value representation is written, one
    that such elements have. DICOM PS3.5 7.1.
    """
    if len(start) < _DICOM_PREFIX_END:
        return False
    group, element = struct.unpack("<HH", start[:4])
    if group not in (2, 8) or element > 0x100:
        return False
    if start[4:6] in _EARLY_REPRESENTATIONS:
        return int.from_bytes(start[6:8], "little") <= _LONGEST_EARLY_VALUE
    length = int.from_bytes(start[4:8], "little")
    return group == 8 and 0 < length <= _LONGEST_EARLY_VALUE and length % 2 == 0


def _described(start: bytes) -> str:
    """Say what a file that is no image begins with; its text is not repeated, which may be anybody's."""
    if not start:
        return "an empty file (0 bytes)"
    try:
        is_text = start[: _DICOM_PREFIX_END - 4].decode("utf-8").isprintable() or b"\n" in start
    except UnicodeDecodeError:
        is_text = False
    return "a text file" if is_text and b"\0" not in start else f"a file that starts with {start[:8].hex(' ')}"


def look_at(path: Path, header: RadiographHeader) -> RadiographHeader:
    """Return the header with what only pixels tell: whether there are colours, and whether all pixels are alike.

    All pixels are decoded only where they may be alike: the file has few bytes a pixel, or its middle is of one value.

    Raises:
        DatasetError: pixels were to be decoded, and cannot be.
    """
    header = _with_levels(path, header)
    return replace(header, is_coloured=is_coloured(path, header.transfer_syntax)) if header.is_coloured is None else header


def _with_levels(path: Path, header: RadiographHeader) -> RadiographHeader:
    if not _may_be_of_one_level(path, header):
        return header
    pixels = read_radiograph(path).pixels
    return replace(header, one_grey_level=bool((pixels == pixels[0, 0]).all()))


def _may_be_of_one_level(path: Path, header: RadiographHeader) -> bool:
    size = os.stat(path).st_size  # noqa: PTH116 - called for each of 377,110 images
    a_pixel = _BYTES_OF_ONE_LEVEL.get(header.transfer_syntax, _BYTES_OF_ONE_LEVEL_IN_DICOM)
    if size < _BYTES_OF_HEADERS + a_pixel * header.height * header.width:
        return True
    if header.transfer_syntax == "JPEG":  # its size alone tells
        return False
    with path.open("rb") as stream:
        stream.seek(size // 2)
        part = stream.read(min(_SAMPLED_BYTES, size // 4) & ~3)
    return part[2:] == part[:-2]  # every 16-bit value is the one before it


def check_headers(paths: Sequence[Path], workers: int) -> list[Checked]:
    """Read many headers in parallel, with progress.

    Args:
        paths: image files.
        workers: processes.

    Returns:
        For each path, in order: the path, its header with what :func:`look_at` adds or None, and None or the reason why it
        cannot be read. Of more than MOST_GLANCES pictures stored in colour so many are looked at for colours; where none of
        these has any, ``is_coloured`` of the others is None.
    """
    checks = map_in_processes(_check_header, paths, workers=workers, what="check headers", chunk_size=_HEADERS_A_CHUNK)
    checked = list(track(checks, total=len(paths), what="check image headers"))
    turned = [path for path, header, _ in checked if header is not None and header.exif_orientation != 1]
    if turned:
        log.warning("%d image(s) carry an EXIF orientation; pixels are taken as stored. First: %s", len(turned), turned[0])
    _look_for_colours(checked, workers)
    return checked


def _look_for_colours(checked: list[Checked], workers: int) -> None:
    """Look at MOST_GLANCES pictures stored in colour, evenly spread; at all of them where one of these has colours.

    To tell a picture in colour from greys stored as colour it has to be decoded: twenty times as long as reading its header.
    """
    stored = [place for place, (_, header, _) in enumerate(checked) if header is not None and header.is_coloured is None]
    first = stored[:: -(-len(stored) // MOST_GLANCES)] if stored else []
    _glance(checked, first, workers)
    if any(header is not None and header.is_coloured for _, header, _ in (checked[place] for place in first)):
        seen = set(first)
        _glance(checked, [place for place in stored if place not in seen], workers)


def _glance(checked: list[Checked], places: Sequence[int], workers: int) -> None:
    asked = [(path, header) for path, header, _ in (checked[place] for place in places) if header is not None]
    found = map_in_processes(_check_colours, asked, workers=workers, what="look for colours", chunk_size=_HEADERS_A_CHUNK)
    for place, result in zip(places, found, strict=True):
        checked[place] = result


def _check_colours(asked: tuple[Path, RadiographHeader]) -> Checked:
    path, header = asked
    try:
        return path, replace(header, is_coloured=is_coloured(path, header.transfer_syntax)), None
    except DatasetError as error:
        return path, None, str(error)


def _check_header(path: Path) -> Checked:
    try:
        return path, _with_levels(path, read_header(path)), None
    except DatasetError as error:
        return path, None, str(error)
