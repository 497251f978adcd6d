"""MetaImage (.mha, .mhd) and NRRD (.nrrd) through SimpleITK, after what it would pass over in silence is checked.

SimpleITK reads these headers without the voxels; sizes are checked before memory is taken, and the directions are in its own
(LPS) system already. It fills a file that is cut off with zeros, so the bytes are counted here first.
"""

import re
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.orientation import canonical_order, canonical_spacing
from d2rnet.ct.volumes.stored_values import read_values
from d2rnet.ct.volumes.volume import LEAVE_OUT, StoredVolume, VolumeHeader, check_shape, check_spacing, unreadable

SUFFIXES = {".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD"}
_HEADER_BYTES = 1 << 16
_READERS = {"MetaImage": "MetaImageIO", "NRRD": "NrrdImageIO"}
_MAX_INFLATION = 1032  # deflate packs at most so many bytes into one


def is_meta_image(start: bytes) -> bool:
    """Whether the first bytes are those of a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) is not None


def is_nrrd(start: bytes) -> bool:
    """Whether the first bytes are those of an NRRD header."""
    return start.startswith(b"NRRD000")


def read_other_header(path: Path, file_format: str) -> VolumeHeader:
    """Read and check the header of a MetaImage or NRRD file.

    Raises:
        DatasetError: as :func:`read_other`, as far as the header tells.
    """
    reader = _checked(path, file_format)
    affine = _affine(reader)
    order, _, _ = canonical_order(affine)
    shape_kji = reader.GetSize()[::-1]
    shape_zyx = (shape_kji[order[0]], shape_kji[order[1]], shape_kji[order[2]])
    return VolumeHeader(shape_zyx, canonical_spacing(affine), file_format, _dtype(reader).name)


def read_other(path: Path, file_format: str) -> StoredVolume:
    """Read a MetaImage or NRRD file; its array has the axes (k, j, i) of the file.

    Raises:
        DatasetError: not readable, cut off, no volume of three dimensions, colour, a sheared or impossible geometry, a size
            that no chest CT has, NaN.
    """
    import SimpleITK

    reader = _checked(path, file_format)
    affine = _affine(reader)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(path, file_format) from error
    numbers = np.ravel(SimpleITK.GetArrayViewFromImage(image))
    if numbers.dtype == np.int16:
        return StoredVolume(SimpleITK.GetArrayFromImage(image), affine, None, file_format)
    position = 0

    def fill(view: memoryview) -> None:
        nonlocal position
        count = len(view) // numbers.itemsize
        view[:] = np.ascontiguousarray(numbers[position : position + count]).data.cast("B")
        position += count

    values, changes = read_values(path, fill, numbers.size, numbers.dtype, None)
    return StoredVolume(values.reshape(image.GetSize()[::-1]), affine, None, file_format, changes)


def _damaged(path: Path, file_format: str) -> Exception:
    return unreadable(path, got=f"a damaged {file_format} file", expected="a whole one")


def _checked(path: Path, file_format: str):  # type: ignore[no-untyped-def]
    """Return SimpleITK's reader after it has read the header, which is checked."""
    import SimpleITK

    text = _header_text(path)
    data = _data_file(path, text, file_format)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_READERS[file_format])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, file_format) from error
    size = reader.GetSize()
    if reader.GetDimension() != 3:
        shown = " x ".join(map(str, size))
        got = f"{reader.GetDimension()} dimensions ({shown})"
        raise unreadable(path, got=got, expected="a volume of three", remedy=LEAVE_OUT)
    if reader.GetNumberOfComponents() != 1:
        got = f"{reader.GetNumberOfComponents()} numbers a voxel (colour or vectors)"
        raise unreadable(path, got=got, expected="one", remedy=LEAVE_OUT)
    check_shape(path, size)
    spacing = reader.GetSpacing()
    check_spacing(path, spacing, where="the header")
    directions = np.array(reader.GetDirection()).reshape(3, 3)
    if not np.isfinite(directions).all() or np.abs(directions.T @ directions - np.eye(3)).max() > 0.01:
        raise unreadable(path, got="directions that are not at right angles", expected="a rotation")
    _check_bytes(path, data, text, int(np.prod(size, dtype=object)) * _dtype(reader).itemsize)
    return reader


def _dtype(reader) -> np.dtype:  # type: ignore[no-untyped-def]
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
        raise unreadable(Path(reader.GetFileName()), got=got, expected="real numbers", remedy=LEAVE_OUT)
    return np.dtype(kind)


def _affine(reader) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return index (k, j, i) to millimetres (left, posterior, superior)."""
    linear = np.array(reader.GetDirection()).reshape(3, 3) * np.array(reader.GetSpacing())  # columns i, j, k
    affine = np.eye(4)
    affine[:3, :3] = linear[:, ::-1]
    affine[:3, 3] = reader.GetOrigin()
    return affine


def _header_text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_HEADER_BYTES).decode("latin-1")


def _data_file(path: Path, text: str, file_format: str) -> Path:
    """Return the file that holds the voxels: this one, or the one beside it that the header names.

    Raises:
        DatasetError: the header names a file elsewhere, several files, or one that is not there.
    """
    pattern = r"(?im)^\s*ElementDataFile\s*=\s*(.*?)\s*$" if file_format == "MetaImage" else r"(?im)^data ?file:\s*(.*?)\s*$"
    named = re.search(pattern, text)
    if named is None or named[1] == "LOCAL":
        return path
    name = named[1]
    if Path(name).name != name or "%" in name or name.startswith("LIST") or not name:
        remedy = "Store header and voxels as one file (.mha, .nrrd)."
        raise unreadable(
            path, got="voxels in several files or in another folder", expected="one file beside it", remedy=remedy
        )
    data = path.with_name(name)
    if data.is_symlink() or not data.is_file():
        raise unreadable(
            path, got="a header whose file of voxels is not there", expected="both", remedy="Fetch the other file."
        )
    return data


def _check_bytes(path: Path, data: Path, text: str, needed: int) -> None:
    """Refuse a file that cannot hold its voxels: SimpleITK would fill them with zeros."""
    size = data.stat().st_size
    packed = re.search(r"(?im)^\s*CompressedData\s*=\s*true|^encoding:\s*(gz|gzip|bz2|bzip2)", text) is not None
    as_text = re.search(r"(?im)^\s*BinaryData\s*=\s*false|^encoding:\s*(txt|text|ascii|hex)", text) is not None
    if as_text:
        raise unreadable(path, got="voxels written as text", expected="binary ones", remedy="Store the file again, binary.")
    held = size * _MAX_INFLATION if packed else size
    if held < needed:
        raise unreadable(path, got=f"{size} bytes for {needed} bytes of voxels", expected="no more than the file can hold")
