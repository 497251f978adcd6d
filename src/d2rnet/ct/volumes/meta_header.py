"""Headers of MetaImage (.mha, .mhd).

Source: MetaIO (NDims, DimSize, ElementType, ElementSpacing, TransformMatrix, ElementDataFile, HeaderSize, CompressedData,
ElementToIntensityFunction). Names are written as there; of equal names the last counts.
"""

import re
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.header_text import (
    HEADER_BYTES,
    ONE_FILE,
    HeaderText,
    StatedHeader,
    Voxels,
    beside,
    damaged,
    no_orientation,
    numbers,
    shape_of,
)
from d2rnet.ct.volumes.volume import LEAVE_OUT, Rescale, unreadable

_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")  # three words for the same
_OTHER_MODALITIES = {"MET_MOD_MR": "MR", "MET_MOD_NM": "nuclear medicine", "MET_MOD_US": "ultrasound"}
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def is_meta_image(start: bytes) -> bool:
    """Whether the first bytes are those of a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def read_meta_text(path: Path) -> HeaderText:
    """Read the text up to the line that ends it.

    Raises:
        DatasetError: there is no such line.
    """
    with path.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    end = re.search(rb"(?m)^ElementDataFile *= *[^\r\n]*\r?\n?", start)
    if end is None:
        raise damaged(path, "MetaImage")
    lines = start[: end.end()].decode("latin-1")
    found = re.findall(r"(?m)^[ \t]*(\w+)[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?$", lines)
    return HeaderText(path, dict(found), end.end())


def meta_voxels(text: HeaderText) -> Voxels:
    """Find the voxels.

    Raises:
        DatasetError: they are text, in several files, in another folder, or not there.
    """
    fields, path = text.fields, text.path
    name = fields["ElementDataFile"]
    is_local = name.upper() == "LOCAL"
    if fields.get("BinaryData", "").lower() in ("false", "0"):
        raise unreadable(path, got="voxels written as text", expected="binary ones", remedy=ONE_FILE)
    is_packed, *orders = (
        fields.get(key, "").lower() in ("true", "1")
        for key in ("CompressedData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    )
    skip = fields.get("HeaderSize") or "0"
    if not re.fullmatch(r"-1|\d{1,9}", skip) or (is_local and skip not in ("0", "-1")):
        raise unreadable(path, got=f"HeaderSize {skip[:20]!a}", expected="-1 or a number of bytes")
    offset = -1 if skip == "-1" and not is_packed else text.length if is_local else max(0, int(skip))
    return Voxels(path if is_local else beside(path, name), offset, "zlib" if is_packed else "", any(orders))


def stated_by_meta(text: HeaderText) -> StatedHeader:
    """Return what the header states.

    Raises:
        DatasetError: no volume of three dimensions, colour, no orientation, another modality, or fields that are no numbers.
    """
    fields, path = text.fields, text.path
    shape = shape_of(path, fields.get("NDims", ""), fields.get("DimSize", ""))
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        got = f"{channels[:20]!a} numbers a voxel (colour or vectors)"
        raise unreadable(path, got=got, expected="one", remedy=LEAVE_OUT)
    kind = _TYPES.get(fields.get("ElementType", ""))
    if kind is None:
        got = f"voxels of type {fields.get('ElementType', '')[:20]!a}"
        raise unreadable(path, got=got, expected="real numbers", remedy=LEAVE_OUT)
    modality = fields.get("Modality", "")
    if modality in _OTHER_MODALITIES:
        got = f"the modality {_OTHER_MODALITIES[modality]} in the header"
        raise unreadable(path, got=got, expected="CT", remedy=LEAVE_OUT)
    matrix = next((fields[name] for name in _DIRECTIONS if name in fields), None)
    if matrix is None:
        raise no_orientation(path, "TransformMatrix")
    directions = numbers(path, matrix, 9, "TransformMatrix").reshape(3, 3).T  # rows of the file are the axes: columns here
    words = fields.get("ElementSpacing") or fields.get("ElementSize") or "0 0 0"
    spacing = np.nan_to_num(numbers(path, words, 3, "ElementSpacing"), nan=0.0)
    return StatedHeader(shape, np.dtype(kind), _scale(text), spacing, directions)


def _scale(text: HeaderText) -> Rescale | None:
    """Return the scaling of the header; None where it has none."""
    words = (text.fields.get(f"ElementToIntensityFunction{part}") for part in ("Slope", "Offset"))
    slope, intercept = (word or default for word, default in zip(words, ("1", "0"), strict=True))
    scale = Rescale(*map(float, numbers(text.path, f"{slope} {intercept}", 2, "ElementToIntensityFunction")))
    if not np.isfinite(scale).all() or scale.slope == 0:
        got = f"slope {scale.slope:g} and intercept {scale.intercept:g}"
        raise unreadable(text.path, got=got, expected="two numbers, the slope other than 0")
    return None if scale.is_identity else scale
