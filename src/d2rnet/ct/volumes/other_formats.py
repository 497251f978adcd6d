"""MetaImage (.mha, .mhd) and NRRD (.nrrd): the header through SimpleITK, the voxels by our own strict reading.

SimpleITK fills a file that is cut off with zeros and drops NaN, so it is trusted with geometry only (LPS, as here). Where the
voxels begin is found in the header's text; they are read raw or inflated in pieces, and must be there to the last one.

Source: MetaIO (ObjectType, DimSize, ElementDataFile, HeaderSize), NRRD0005 (encoding, data file, byte skip, line skip).
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, isal_zlib

from d2rnet.ct.volumes.nifti import GZIP_ERRORS
from d2rnet.ct.volumes.orientation import canonical_order, canonical_spacing
from d2rnet.ct.volumes.stored_values import check_held, exact_filler, read_values
from d2rnet.ct.volumes.volume import LEAVE_OUT, StoredVolume, VolumeHeader, check_shape, check_spacing, unreadable

_HEADER_BYTES = 1 << 20
_READERS = {"MetaImage": "MetaImageIO", "NRRD": "NrrdImageIO"}
_ONE_FILE = "Store header and voxels as one file (.mha, .nrrd), binary."


@dataclass(frozen=True)
class _Voxels:
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
class _Header:
    """A header after all checks."""

    shape_ijk: tuple[int, int, int]
    dtype: np.dtype
    affine_lps: np.ndarray  # index (k, j, i)
    voxels: _Voxels


def is_meta_image(start: bytes) -> bool:
    """Whether the first bytes are those of a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def is_nrrd(start: bytes) -> bool:
    """Whether the first bytes are those of an NRRD header."""
    return start.startswith(b"NRRD000")


def other_files(path: Path, file_format: str) -> list[Path]:
    """Return the file, and the file of its voxels where that is another.

    Raises:
        DatasetError: a header that does not tell, voxels in several files, in another folder, or not there.
    """
    voxels = _voxels(path, file_format).path
    return [path] if voxels == path else [path, voxels]


def read_other_header(path: Path, file_format: str) -> VolumeHeader:
    """Read and check the header of a MetaImage or NRRD file.

    Raises:
        DatasetError: as :func:`read_other`, as far as the header tells.
    """
    header = _checked(path, file_format)
    order, _, _ = canonical_order(header.affine_lps)
    shape_kji = header.shape_ijk[::-1]
    shape_zyx = (shape_kji[order[0]], shape_kji[order[1]], shape_kji[order[2]])
    return VolumeHeader(shape_zyx, canonical_spacing(header.affine_lps), file_format, header.dtype.newbyteorder("=").name)


def read_other(path: Path, file_format: str) -> StoredVolume:
    """Read a MetaImage or NRRD file; its array has the axes (k, j, i) of the file.

    Raises:
        DatasetError: not readable, cut off, no volume of three dimensions, colour, a sheared or impossible geometry, a size
            that no chest CT has, voxels written as text or spread over several files, NaN.
    """
    header = _checked(path, file_format)
    count = int(np.prod(header.shape_ijk))
    with _opened(path, header.voxels, count * header.dtype.itemsize) as stream:
        fill = exact_filler(path, stream, count * header.dtype.itemsize)
        values, changes = read_values(path, fill, count, header.dtype, None)
        if stream.read(1):
            raise unreadable(path, got="bytes behind the voxels", expected="none; the header tells fewer than the file holds")
    return StoredVolume(values.reshape(header.shape_ijk[::-1]), header.affine_lps, None, file_format, changes)


@contextmanager
def _opened(path: Path, voxels: _Voxels, needed: int) -> Iterator[BinaryIO]:
    """Open a file where its voxels begin, inflated."""
    with voxels.path.open("rb") as plain:
        plain.seek(voxels.offset if voxels.offset >= 0 else max(0, voxels.path.stat().st_size - needed))
        try:
            if voxels.packing == "gzip":
                with igzip.open(plain, "rb") as stream:
                    yield stream  # type: ignore[misc]
            elif voxels.packing == "zlib":
                yield io.BufferedReader(_Inflated(plain))
            else:
                yield plain
        except GZIP_ERRORS as error:
            raise unreadable(path, got="compressed voxels that are damaged or cut off", expected="whole ones") from error


class _Inflated(io.RawIOBase):
    """The bytes of a zlib stream; one that is cut off raises EOFError."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._unpacker = isal_zlib.decompressobj()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one piece of the file goes; 0 at the end of the stream."""
        while not self._unpacker.eof:
            piece = self._unpacker.unconsumed_tail or self._packed.read(1 << 18)
            if not piece:
                raise EOFError("cut off")
            inflated = self._unpacker.decompress(piece, len(buffer))
            if inflated:
                buffer[: len(inflated)] = inflated
                return len(inflated)
        return 0


def _damaged(path: Path, file_format: str) -> Exception:
    return unreadable(path, got=f"a damaged {file_format} header", expected="a whole file")


def _checked(path: Path, file_format: str) -> _Header:
    """Read and check everything but the voxels."""
    import SimpleITK

    voxels = _voxels(path, file_format)
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
    check_spacing(path, reader.GetSpacing(), where="the header")
    directions = np.array(reader.GetDirection()).reshape(3, 3)
    if not np.isfinite(directions).all() or np.abs(directions.T @ directions - np.eye(3)).max() > 0.01:
        raise unreadable(path, got="directions that are not at right angles", expected="a rotation")
    dtype = _dtype(path, reader).newbyteorder(">" if voxels.is_big_endian else "<")
    needed = int(np.prod(size, dtype=object)) * dtype.itemsize
    check_held(path, needed, voxels.path.stat().st_size - max(0, voxels.offset), is_packed=bool(voxels.packing))
    affine = np.eye(4)
    affine[:3, :3] = (directions * np.array(reader.GetSpacing()))[:, ::-1]  # columns i, j, k to k, j, i
    affine[:3, 3] = reader.GetOrigin()
    return _Header((size[0], size[1], size[2]), dtype, affine, voxels)


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


def _voxels(path: Path, file_format: str) -> _Voxels:
    """Find the voxels by the header's text."""
    text = _header_text(path, file_format)
    return _meta_voxels(path, text) if file_format == "MetaImage" else _nrrd_voxels(path, text)


def _header_text(path: Path, file_format: str) -> str:
    """Return the header up to the line that ends it, line ends as they are."""
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    end = rb"(?m)^ElementDataFile *= *[^\r\n]*\r?\n?" if file_format == "MetaImage" else rb"\r?\n\r?\n|\Z"
    found = re.search(end, start)
    if found is None:
        raise _damaged(path, file_format)
    return start[: found.end()].decode("latin-1")


def _field(text: str, pattern: str) -> str:
    """Return what a field says, "" where it is not there; the last one counts, as in MetaIO."""
    found = re.findall(rf"(?im)^{pattern} *[:=] *([^\r\n]*?)\s*$", text)
    return found[-1] if found else ""


def _beside(path: Path, name: str) -> Path:
    """Return the file of voxels that a header names.

    Raises:
        DatasetError: it is elsewhere, several, or not there.
    """
    if Path(name).name != name or "%" in name or " " in name or name.startswith("LIST") or "\0" in name:
        got = "voxels in several files or in another folder"
        raise unreadable(path, got=got, expected="one file beside the header", remedy=_ONE_FILE)
    data = path.with_name(name)
    if data.is_symlink() or not data.is_file():
        raise unreadable(
            path, got="a header whose file of voxels is not there", expected="both", remedy="Fetch the other file."
        )
    return data


def _meta_voxels(path: Path, text: str) -> _Voxels:
    name = _field(text, "ElementDataFile")
    is_local = name.upper() == "LOCAL"
    if _field(text, "BinaryData").lower() in ("false", "0"):
        raise unreadable(path, got="voxels written as text", expected="binary ones", remedy=_ONE_FILE)
    is_packed = _field(text, "CompressedData").lower() in ("true", "1")
    is_big_endian = any(
        _field(text, key).lower() in ("true", "1") for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    )
    skip = _field(text, "HeaderSize") or "0"
    if not re.fullmatch(r"-1|\d{1,9}", skip) or (is_local and skip not in ("0", "-1")):
        raise unreadable(path, got=f"HeaderSize {skip[:20]!a}", expected="-1 or a number of bytes")
    offset = -1 if skip == "-1" and not is_packed else len(text) if is_local else max(0, int(skip))
    return _Voxels(path if is_local else _beside(path, name), offset, "zlib" if is_packed else "", is_big_endian)


def _nrrd_voxels(path: Path, text: str) -> _Voxels:
    encoding = _field(text, "encoding").lower()
    packing = {"raw": "", "gz": "gzip", "gzip": "gzip"}.get(encoding)
    if packing is None:
        raise unreadable(path, got=f"the encoding {encoding[:20]!a}", expected="raw or gzip", remedy=_ONE_FILE)
    if any(_field(text, key) not in ("", "0") for key in ("byte ?skip", "line ?skip")):
        raise unreadable(path, got="bytes or lines to skip before the voxels", expected="none", remedy=_ONE_FILE)
    name = _field(text, "data ?file")
    is_big_endian = _field(text, "endian").lower() == "big"
    return _Voxels(_beside(path, name) if name else path, 0 if name else len(text), packing, is_big_endian)
