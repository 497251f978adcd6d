"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr): the voxels, by our own strict reading.

SimpleITK fills a file that is cut off with zeros and drops NaN. Here voxels are read raw or inflated in pieces, and must be
there to the last one. What the headers say: :mod:`d2rnet.ct.volumes.other_headers`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, isal_zlib

from d2rnet.ct.volumes.nifti import GZIP_ERRORS
from d2rnet.ct.volumes.orientation import canonical_order, canonical_spacing
from d2rnet.ct.volumes.other_headers import Voxels, checked_header, find_voxels
from d2rnet.ct.volumes.stored_values import exact_filler, read_values
from d2rnet.ct.volumes.volume import Millimetres, StoredVolume, VolumeHeader, unreadable


def other_files(path: Path, file_format: str) -> list[Path]:
    """Return the file, and the file of its voxels where that is another.

    Raises:
        DatasetError: a header that does not tell, voxels in several files, in another folder, or not there.
    """
    voxels = find_voxels(path, file_format).path
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
    header = checked_header(path, file_format, stated_spacing_mm)
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
    header = checked_header(path, file_format, stated_spacing_mm)
    count = int(np.prod(header.shape_ijk))
    with _opened(path, header.voxels, count * header.dtype.itemsize) as stream:
        fill = exact_filler(path, stream, count * header.dtype.itemsize)
        values, changes = read_values(path, fill, count, header.dtype, header.scale)
        if stream.read(1):
            raise unreadable(path, got="bytes behind the voxels", expected="none; the header tells fewer than the file holds")
    return StoredVolume(
        values.reshape(header.shape_ijk[::-1]), header.affine_lps, header.scale, file_format, (*header.notes, *changes)
    )


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
