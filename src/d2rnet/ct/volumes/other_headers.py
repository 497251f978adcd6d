"""Headers of MetaImage and NRRD: where the voxels are, and where they lie in the patient.

SimpleITK reads size, type and geometry (LPS, as here). It takes a spacing or an orientation that is not there for 1 mm or for
the patient's axes, without a word; what a header really says is therefore looked up in its text.

Source: MetaIO (ObjectType, DimSize, ElementSpacing, TransformMatrix, ElementDataFile, HeaderSize, ElementToIntensityFunction),
NRRD0005 (space, space directions, space units, spacings, encoding, data file, byte skip, line skip).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.volumes.orientation import along_axes
from d2rnet.ct.volumes.stored_values import check_held
from d2rnet.ct.volumes.volume import (
    FROM_TABLE,
    LEAVE_OUT,
    Millimetres,
    Rescale,
    check_shape,
    check_spacing,
    unreadable,
)

_HEADER_BYTES = 1 << 20
_READERS = {"MetaImage": "MetaImageIO", "NRRD": "NrrdImageIO"}
_ONE_FILE = "Store header and voxels as one file (.mha, .nrrd), binary."
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")  # three words of MetaIO for the same
_OTHER_MODALITIES = {"MET_MOD_MR": "MR", "MET_MOD_NM": "nuclear medicine", "MET_MOD_US": "ultrasound"}
_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
_MM = {"mm", "millimeter", "millimeters", ""}


@dataclass(frozen=True)
class Voxels:
    """Where the voxels of a file are.

    Attributes:
        path: file that holds them.
        offset: first byte; -1: they end the file.
        packing: "", "zlib" or "gzip".
        is_big_endian: byte order.
    """

    path: Path
    offset: int
    packing: str
    is_big_endian: bool


@dataclass(frozen=True)
class OtherHeader:
    """A header after all checks.

    Attributes:
        shape_ijk: voxels along the axes of the file, the fastest first.
        dtype: type of the stored numbers, with byte order.
        scale: to apply to them; None for none.
        affine_lps: (4, 4), index (k, j, i) to millimetres (left, posterior, superior).
        voxels: where they are.
        notes: what is odd and was mended.
    """

    shape_ijk: tuple[int, int, int]
    dtype: np.dtype
    scale: Rescale | None
    affine_lps: np.ndarray
    voxels: Voxels
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Text:
    """The text of a header.

    Attributes:
        fields: what it says by name; names of NRRD in small letters without spaces.
        length: bytes up to the voxels.
    """

    fields: Mapping[str, str]
    length: int


def is_meta_image(start: bytes) -> bool:
    """Whether the first bytes are those of a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def is_nrrd(start: bytes) -> bool:
    """Whether the first bytes are those of an NRRD header."""
    return start.startswith(b"NRRD000")


def find_voxels(path: Path, file_format: str) -> Voxels:
    """Find the voxels by the header's text.

    Raises:
        DatasetError: a header that does not tell, voxels as text, in several files, in another folder, or not there.
    """
    return _find_voxels(path, file_format, _text(path, file_format))


def checked_header(path: Path, file_format: str, stated_spacing_mm: Millimetres | None) -> OtherHeader:
    """Read and check everything but the voxels.

    Args:
        path: file.
        file_format: "MetaImage" or "NRRD".
        stated_spacing_mm: (z, y, x) of a table, used only where the header has no spacing.

    Raises:
        DatasetError: see :func:`d2rnet.ct.volumes.other_formats.read_other`.
    """
    text = _text(path, file_format)
    voxels = _find_voxels(path, file_format, text)
    reader = _parsed_by_simpleitk(path, file_format)
    size = reader.GetSize()
    dtype = _dtype(path, reader).newbyteorder(">" if voxels.is_big_endian else "<")
    needed = int(np.prod(size, dtype=object)) * dtype.itemsize
    check_held(path, needed, voxels.path.stat().st_size - max(0, voxels.offset), is_packed=bool(voxels.packing))
    is_meta = file_format == "MetaImage"
    spacing = _meta_spacing(path, text.fields) if is_meta else _nrrd_spacing(path, text.fields, reader)
    directions = np.array(reader.GetDirection()).reshape(3, 3)
    if not np.isfinite(directions).all() or np.abs(directions.T @ directions - np.eye(3)).max() > 0.01:
        raise unreadable(path, got="directions that are not at right angles", expected="a rotation")
    notes: tuple[str, ...] = ()
    if not spacing.all():
        if stated_spacing_mm is None:
            raise unreadable(
                path,
                got="no spacing",
                expected="the size of a voxel in mm",
                remedy="Write the true spacing into the header, or give it in the metadata table.",
            )
        spacing = np.where(spacing == 0, along_axes(directions, stated_spacing_mm), spacing)
        notes = (FROM_TABLE,)
    check_spacing(path, spacing[::-1].tolist(), where="the header")
    affine = np.eye(4)
    affine[:3, :3] = (directions * spacing)[:, ::-1]  # columns i, j, k to k, j, i
    affine[:3, 3] = reader.GetOrigin()
    scale = _meta_scale(path, text.fields) if is_meta else None
    return OtherHeader((size[0], size[1], size[2]), dtype, scale, affine, voxels, notes)


def _parsed_by_simpleitk(path: Path, file_format: str) -> Any:
    """Return SimpleITK's reader, which has read the header of a volume of three dimensions with one number a voxel."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # its complaints would go to the screen besides our error
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_READERS[file_format])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, file_format) from error
    size = reader.GetSize()
    if reader.GetDimension() != 3:
        got = f"{reader.GetDimension()} dimensions ({' x '.join(map(str, size))})"
        raise unreadable(path, got=got, expected="a volume of three", remedy=LEAVE_OUT)
    if reader.GetNumberOfComponents() != 1:
        got = f"{reader.GetNumberOfComponents()} numbers a voxel (colour or vectors)"
        raise unreadable(path, got=got, expected="one", remedy=LEAVE_OUT)
    check_shape(path, size)
    return reader


def _meta_spacing(path: Path, fields: Mapping[str, str]) -> np.ndarray:
    """Return (i, j, k) mm, 0 where a MetaImage header says nothing; check what else it says of the volume."""
    if not any(name in fields for name in _DIRECTIONS):
        raise _no_orientation(path, "TransformMatrix")
    modality = fields.get("Modality", "")
    if modality in _OTHER_MODALITIES:
        got = f"the modality {_OTHER_MODALITIES[modality]} in the header"
        raise unreadable(path, got=got, expected="CT", remedy=LEAVE_OUT)
    return _lengths(path, (fields.get("ElementSpacing") or fields.get("ElementSize", "")).split())


def _nrrd_spacing(path: Path, fields: Mapping[str, str], reader: Any) -> np.ndarray:
    """Return (i, j, k) mm of the directions of an NRRD header, which must be those of the patient."""
    directions = fields.get("spacedirections", "none").lower()
    if fields.get("space", "").lower() not in _SPACES or "none" in directions:
        raise _no_orientation(path, "space and space directions")
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if not {unit.strip().lower() for unit in units} <= _MM:
        remedy = "Write the directions in millimetres."
        raise unreadable(path, got="another unit of space in the header", expected="mm", remedy=remedy)
    return np.array(reader.GetSpacing())


def _lengths(path: Path, words: list[str]) -> np.ndarray:
    """Return three lengths, 0 for those that are no numbers."""
    try:
        numbers = np.array([float(word) for word in words] or [0.0] * 3)
    except ValueError as error:
        raise _damaged(path, "MetaImage") from error
    if len(numbers) != 3:
        raise unreadable(path, got=f"{len(numbers)} numbers of spacing", expected="three")
    return np.nan_to_num(numbers, nan=0.0)


def _no_orientation(path: Path, fields: str) -> Exception:
    return unreadable(
        path,
        got="no orientation in the patient",
        expected=f"{fields} in the header: without, nobody can tell left from right",
        remedy="Convert the volume from DICOM again, or write them.",
    )


def _meta_scale(path: Path, fields: Mapping[str, str]) -> Rescale | None:
    """Return the scaling of a MetaImage header; None where it has none."""
    words = (fields.get("ElementToIntensityFunctionSlope", "1"), fields.get("ElementToIntensityFunctionOffset", "0"))
    try:
        scale = Rescale(float(words[0]), float(words[1]))
    except ValueError as error:
        raise _damaged(path, "MetaImage") from error
    if not np.isfinite(scale).all() or scale.slope == 0:
        got = f"slope {scale.slope:g} and intercept {scale.intercept:g}"
        raise unreadable(path, got=got, expected="two numbers, the slope other than 0")
    return None if scale.is_identity else scale


def _dtype(path: Path, reader: Any) -> np.dtype:
    import SimpleITK

    kinds = {
        SimpleITK.sitkInt8: "i1",
        SimpleITK.sitkUInt8: "u1",
        SimpleITK.sitkInt16: "i2",
        SimpleITK.sitkUInt16: "u2",
        SimpleITK.sitkInt32: "i4",
        SimpleITK.sitkUInt32: "u4",
        SimpleITK.sitkInt64: "i8",
        SimpleITK.sitkUInt64: "u8",
        SimpleITK.sitkFloat32: "f4",
        SimpleITK.sitkFloat64: "f8",
    }
    kind = kinds.get(reader.GetPixelID())
    if kind is None:
        got = f"voxels of type {reader.GetPixelIDTypeAsString()!r}"
        raise unreadable(path, got=got, expected="real numbers", remedy=LEAVE_OUT)
    return np.dtype(kind)


def _damaged(path: Path, file_format: str) -> Exception:
    return unreadable(path, got=f"a damaged {file_format} header", expected="a whole file")


def _text(path: Path, file_format: str) -> _Text:
    """Read the header's text up to the line that ends it."""
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    is_meta = file_format == "MetaImage"
    end = re.search(rb"(?m)^ElementDataFile *= *[^\r\n]*\r?\n?" if is_meta else rb"\r?\n\r?\n|\Z", start)
    if end is None:
        raise _damaged(path, file_format)
    lines = start[: end.end()].decode("latin-1")
    # key/value pairs of NRRD (key:=value) and its comments (#) are no fields; in MetaIO the last of equal names counts
    pattern = r"(?m)^ *(\w+) *[=:] *([^\r\n]*?)\s*$" if is_meta else r"(?m)^([A-Za-z][\w ]*): ([^\r\n]*?)\s*$"
    fields = dict(re.findall(pattern, lines))
    if not is_meta:
        fields = {name.replace(" ", "").lower(): said for name, said in fields.items()}
    return _Text(fields, end.end())


def _find_voxels(path: Path, file_format: str, text: _Text) -> Voxels:
    return _meta_voxels(path, text) if file_format == "MetaImage" else _nrrd_voxels(path, text)


def _beside(path: Path, name: str) -> Path:
    """Return the file of voxels that a header names.

    Raises:
        DatasetError: it is elsewhere, several, or not there.
    """
    name = name.removeprefix("./")
    if not name or Path(name).name != name or "%" in name or name.startswith("LIST") or "\0" in name:
        got = "voxels in several files or in another folder"
        raise unreadable(path, got=got, expected="one file beside the header", remedy=_ONE_FILE)
    data = path.with_name(name)
    if data.is_symlink() or not data.is_file():
        raise unreadable(
            path, got="a header whose file of voxels is not there", expected="both", remedy="Fetch the other file."
        )
    return data


def _meta_voxels(path: Path, text: _Text) -> Voxels:
    def is_true(name: str) -> bool:
        return text.fields.get(name, "").lower() in ("true", "1")

    name = text.fields["ElementDataFile"]
    is_local = name.upper() == "LOCAL"
    if text.fields.get("BinaryData", "").lower() in ("false", "0"):
        raise unreadable(path, got="voxels written as text", expected="binary ones", remedy=_ONE_FILE)
    is_packed = is_true("CompressedData")
    is_big_endian = is_true("BinaryDataByteOrderMSB") or is_true("ElementByteOrderMSB")
    skip = text.fields.get("HeaderSize") or "0"
    if not re.fullmatch(r"-1|\d{1,9}", skip) or (is_local and skip not in ("0", "-1")):
        raise unreadable(path, got=f"HeaderSize {skip[:20]!a}", expected="-1 or a number of bytes")
    offset = -1 if skip == "-1" and not is_packed else text.length if is_local else max(0, int(skip))
    return Voxels(path if is_local else _beside(path, name), offset, "zlib" if is_packed else "", is_big_endian)


def _nrrd_voxels(path: Path, text: _Text) -> Voxels:
    encoding = text.fields.get("encoding", "").lower()
    packing = {"raw": "", "gz": "gzip", "gzip": "gzip"}.get(encoding)
    if packing is None:
        raise unreadable(path, got=f"the encoding {encoding[:20]!a}", expected="raw or gzip", remedy=_ONE_FILE)
    if any(text.fields.get(key, "0") != "0" for key in ("byteskip", "lineskip")):
        raise unreadable(path, got="bytes or lines to skip before the voxels", expected="none", remedy=_ONE_FILE)
    name = text.fields.get("datafile")
    is_big_endian = text.fields.get("endian", "").lower() == "big"
    return Voxels(_beside(path, name) if name else path, 0 if name else text.length, packing, is_big_endian)
