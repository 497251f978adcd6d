"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): the voxels, by our own strict reading.

SimpleITK fills a file that is cut off with zeros and drops NaN. Here voxels are read raw or inflated in pieces, and must be
there to the last one. What the headers say: :mod:`d2rnet.ct.volumes.meta_header`, :mod:`d2rnet.ct.volumes.nrrd_header`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, isal_zlib

from d2rnet.ct.volumes.header_text import HeaderText, Voxels
from d2rnet.ct.volumes.meta_header import meta_voxels, read_meta_text, stated_by_meta
from d2rnet.ct.volumes.nifti import GZIP_ERRORS
from d2rnet.ct.volumes.nrrd_header import nrrd_voxels, read_nrrd_text, stated_by_nrrd
from d2rnet.ct.volumes.orientation import along_axes, canonical_order, canonical_spacing
from d2rnet.ct.volumes.stored_values import check_held, exact_filler, read_values
from d2rnet.ct.volumes.volume import (
    FROM_TABLE,
    Millimetres,
    Rescale,
    StoredVolume,
    VolumeHeader,
    check_spacing,
    unreadable,
)

_SQUARE = 0.01  # of products of directions


@dataclass(frozen=True)
class _Header:
    """A header after all checks.

    Attributes:
        shape_ijk: voxels along the axes of the file, the fastest first.
        dtype: type of the stored numbers, with byte order.
        scale: to apply to them; None for none.
        affine_lps: (4, 4), index (k, j, i) to millimetres (left, posterior, superior) from the first voxel.
        voxels: where they are.
        notes: what is odd and was mended.
    """

    shape_ijk: tuple[int, int, int]
    dtype: np.dtype
    scale: Rescale | None
    affine_lps: np.ndarray
    voxels: Voxels
    notes: tuple[str, ...]


def other_files(path: Path, file_format: str) -> list[Path]:
    """Return the file, and the file of its voxels where that is another.

    Raises:
        DatasetError: a header that does not tell, voxels in several files, in another folder, or not there.
    """
    voxels = _parsed(path, file_format)[1].path
    return [path] if voxels == path else [path, voxels]


def read_other_header(path: Path, file_format: str, stated_spacing_mm: Millimetres | None = None) -> VolumeHeader:
    """Read and check the header of a MetaImage or NRRD file.

    Args:
        path: file.
        file_format: "MetaImage" or "NRRD".
        stated_spacing_mm: (z, y, x) of a table, used only where the header has no spacing.

    Raises:
        DatasetError: as :func:`read_other`, as far as the header tells.
    """
    header = _checked(path, file_format, stated_spacing_mm)
    order, _, _ = canonical_order(header.affine_lps)
    shape_kji = header.shape_ijk[::-1]
    shape_zyx = (shape_kji[order[0]], shape_kji[order[1]], shape_kji[order[2]])
    spacing = canonical_spacing(header.affine_lps)
    return VolumeHeader(shape_zyx, spacing, file_format, header.dtype.newbyteorder("=").name, header.notes)


def read_other(path: Path, file_format: str, stated_spacing_mm: Millimetres | None = None) -> StoredVolume:
    """Read a MetaImage or NRRD file; its array has the axes (k, j, i) of the file.

    Args:
        path: file.
        file_format: "MetaImage" or "NRRD".
        stated_spacing_mm: (z, y, x) of a table, used only where the header has no spacing.

    Raises:
        DatasetError: not readable, cut off, no volume of three dimensions, colour, no spacing or orientation, a sheared or
            impossible geometry, a size that no chest CT has, voxels written as text or spread over several files, NaN.
    """
    header = _checked(path, file_format, stated_spacing_mm)
    count = int(np.prod(header.shape_ijk))
    with _opened(path, header.voxels, count * header.dtype.itemsize) as stream:
        fill = exact_filler(path, stream, count * header.dtype.itemsize)
        values, changes = read_values(path, fill, count, header.dtype, header.scale)
        if stream.read(1):
            raise unreadable(path, got="bytes behind the voxels", expected="none; the header tells fewer than the file holds")
    return StoredVolume(
        values.reshape(header.shape_ijk[::-1]), header.affine_lps, header.scale, file_format, (*header.notes, *changes)
    )


def _parsed(path: Path, file_format: str) -> tuple[HeaderText, Voxels]:
    """Return the header's text and where it says that the voxels are."""
    if file_format == "MetaImage":
        text = read_meta_text(path)
        return text, meta_voxels(text)
    text = read_nrrd_text(path)
    return text, nrrd_voxels(text)


def _checked(path: Path, file_format: str, stated_spacing_mm: Millimetres | None) -> _Header:
    """Read and check everything but the voxels."""
    text, voxels = _parsed(path, file_format)
    stated = stated_by_meta(text) if file_format == "MetaImage" else stated_by_nrrd(text)
    needed = int(np.prod(stated.shape_ijk, dtype=object)) * stated.dtype.itemsize
    check_held(path, needed, voxels.path.stat().st_size - max(0, voxels.offset), is_packed=bool(voxels.packing))
    directions, spacing = stated.directions, stated.spacing_mm
    if not np.isfinite(directions).all() or np.abs(directions.T @ directions - np.eye(3)).max() > _SQUARE:
        raise unreadable(path, got="directions that are not at right angles", expected="a rotation")
    notes: tuple[str, ...] = ()
    if not spacing.all():
        if stated_spacing_mm is None:
            remedy = "Write the true spacing into the header, or give it in the metadata table."
            raise unreadable(path, got="no spacing", expected="the size of a voxel in mm", remedy=remedy)
        spacing = np.where(spacing == 0, along_axes(directions, stated_spacing_mm), spacing)
        notes = (FROM_TABLE,)
    check_spacing(path, spacing[::-1].tolist(), where="the header")
    affine = np.eye(4)
    affine[:3, :3] = (directions * spacing)[:, ::-1]  # columns i, j, k to k, j, i
    dtype = stated.dtype.newbyteorder(">" if voxels.is_big_endian else "<")
    return _Header(stated.shape_ijk, dtype, stated.scale, affine, voxels, notes)


@contextmanager
def _opened(path: Path, voxels: Voxels, needed: int) -> Iterator[BinaryIO]:
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
