"""NIfTI-1 and NIfTI-2, one file each, plain or gzip: strict where the usual readers guess.

nibabel parses the header; the numbers are read in pieces, gzip with ISA-L (measured in docs/reference/ct-volumes.md), to the
end of the file, so that its checksum is proven. What the header says twice is compared; the s-form wins over the pixel sizes.

Source: NIfTI-1.1 (nifti1.h: dim, pixdim, datatype, scl_slope, qform, sform, xyzt_units) and NIfTI-2 (nifti2.h).
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from d2rnet.ct.volumes.orientation import along_axes, canonical_order, canonical_spacing
from d2rnet.ct.volumes.stored_values import check_held, exact_filler, read_values
from d2rnet.ct.volumes.volume import (
    FETCH_AGAIN,
    FROM_TABLE,
    LEAVE_OUT,
    MAX_SPACING_MM,
    MIN_SPACING_MM,
    Millimetres,
    Rescale,
    StoredVolume,
    VolumeHeader,
    check_shape,
    check_spacing,
    unreadable,
)

GZIP_MAGIC = b"\x1f\x8b"
GZIP_ERRORS: tuple[type[Exception], ...] = (gzip.BadGzipFile, isal_zlib.error, zlib.error, EOFError)  # type: ignore[assignment]
_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # bytes of a header -> how it is parsed
_COLOURS = {128: "RGB", 2304: "RGBA"}
_NOT_REAL = {32: "complex", 1792: "complex", 2048: "complex", 1536: "128-bit float", 1: "1-bit"}
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's x grows to the right, y to the front
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: unknown, metre, millimetre, micrometre
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_SAME = 0.01  # relative, of lengths; of direction cosines 0.02


@dataclass(frozen=True)
class _Parsed:
    """A header after all checks: what reading the numbers needs, and what it says."""

    header: nib.Nifti1Header
    shape: tuple[int, int, int]  # i, j, k
    dtype: np.dtype
    scale: Rescale | None
    affine_lps: np.ndarray  # index (k, j, i), as the array is laid out
    offset: int
    notes: tuple[str, ...]

    @property
    def file_format(self) -> str:
        """ "NIfTI-1" or "NIfTI-2"."""
        return "NIfTI-2" if isinstance(self.header, nib.Nifti2Header) else "NIfTI-1"


def is_nifti(start: bytes) -> bool:
    """Whether the first (inflated) bytes of a file are the size of a NIfTI header, in either byte order."""
    return any(start[:4] == size.to_bytes(4, order) for size in _SIZES for order in ("little", "big"))


def read_nifti_header(path: Path, stated_spacing_mm: Millimetres | None = None) -> VolumeHeader:
    """Read and check a header; of a compressed file only its first block is inflated.

    Args:
        path: NIfTI file.
        stated_spacing_mm: (z, y, x) of a table, used only where the header has no spacing.

    Raises:
        DatasetError: as :func:`read_nifti`, as far as the header tells.
    """
    with _opened(path) as stream:
        parsed = _parse(path, stream, stated_spacing_mm)
    order, _, _ = canonical_order(parsed.affine_lps)
    shape_kji = parsed.shape[::-1]
    shape_zyx = (shape_kji[order[0]], shape_kji[order[1]], shape_kji[order[2]])
    spacing = canonical_spacing(parsed.affine_lps)
    return VolumeHeader(shape_zyx, spacing, parsed.file_format, parsed.dtype.newbyteorder("=").name, parsed.notes)


def read_nifti(path: Path, stated_spacing_mm: Millimetres | None = None) -> StoredVolume:
    """Read a volume; its array has the axes (k, j, i) of the file.

    Args:
        path: NIfTI file.
        stated_spacing_mm: (z, y, x) of a table, used only where the header has no spacing.

    Raises:
        DatasetError: no NIfTI, cut off, damaged (gzip checksum), two or four dimensions, colour, a size that the file cannot
            hold, no orientation, contradictions between s-form and q-form, a sheared s-form, a spacing that no CT has, NaN.
    """
    with _opened(path) as stream:
        parsed = _parse(path, stream, stated_spacing_mm)
        count = int(np.prod(parsed.shape))
        needed = count * parsed.dtype.itemsize
        fill = exact_filler(path, stream, needed)
        values, changes = read_values(path, fill, count, parsed.dtype, parsed.scale)
        more = _rest(stream)
    if more >= parsed.shape[0] * parsed.shape[1] * parsed.dtype.itemsize:
        got = f"{more} bytes behind the voxels"
        raise unreadable(path, got=got, expected="none; the header tells fewer slices than the file holds")
    notes = (*parsed.notes, *changes, *([f"{more} bytes behind the voxels were ignored."] if more else []))
    array = values.reshape(parsed.shape[::-1])  # (k, j, i): i runs fastest in the file
    return StoredVolume(array, parsed.affine_lps, parsed.scale, parsed.file_format, notes)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file by its first bytes, whatever its name; turn what damaged gzip raises into the reader's error."""
    with path.open("rb") as plain:
        packed = plain.read(2) == GZIP_MAGIC
        plain.seek(0)
        try:
            if packed:
                with igzip.open(plain, "rb") as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield plain
        except GZIP_ERRORS as error:
            is_short = isinstance(error, EOFError)
            got = "a gzip file that is cut off" if is_short else f"damaged gzip data ({' '.join(str(error).split())[:80]})"
            raise unreadable(path, got=got, expected="a whole gzip file") from error


def _rest(stream: BinaryIO) -> int:
    """Read to the end, keeping nothing; return the number of bytes."""
    total = 0
    while piece := stream.read(1 << 20):
        total += len(piece)
    return total


def _parse(path: Path, stream: BinaryIO, stated_spacing_mm: Millimetres | None) -> _Parsed:
    """Read and check a header; the stream stands at the first voxel afterwards."""
    start = stream.read(4)
    if not is_nifti(start):
        got = f"a file that starts with {start.hex(' ')}" if start else "an empty file (0 bytes)"
        raise unreadable(path, got=got, expected="NIfTI, whose first number is 348 or 540")
    size = next(size for size in _SIZES if start in (size.to_bytes(4, "little"), size.to_bytes(4, "big")))
    block = start + stream.read(size - 4)
    if len(block) < size:
        raise unreadable(path, got=f"{len(block)} bytes of a header", expected=f"{size} bytes")
    order = "<" if start == size.to_bytes(4, "little") else ">"
    header = _SIZES[size](block, endianness=order, check=False)
    _check_magic(path, header)
    shape, notes = _shape(path, header)
    dtype = _dtype(path, header)
    scale, scale_notes = _scale(path, header)
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and size <= offset < 1 << 24 and offset == int(offset)):
        raise unreadable(path, got=f"voxels from byte {offset:g} on", expected=f"an integer of at least {size}")
    needed = int(np.prod([*shape], dtype=object)) * dtype.itemsize
    check_held(path, needed, path.stat().st_size, is_packed=not isinstance(stream, io.BufferedReader))
    affine, affine_notes = _affine(path, header, stated_spacing_mm)
    check_spacing(path, canonical_spacing(affine), where="the header")
    stream.seek(int(offset))
    return _Parsed(header, shape, dtype, scale, affine, int(offset), (*notes, *scale_notes, *affine_notes))


def _check_magic(path: Path, header: nib.Nifti1Header) -> None:
    magic = bytes(header["magic"])[:4].rstrip(b"\0")
    if magic in (b"ni1", b"ni2"):
        remedy = "Store header and image as one .nii file."
        raise unreadable(path, got="the header of a NIfTI pair", expected="a single .nii or .nii.gz file", remedy=remedy)
    if magic not in (b"n+1", b"n+2"):
        raise unreadable(path, got=f"the magic word {magic!r}", expected="n+1 or n+2 of NIfTI")


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return i, j, k; dimensions of one beyond the third are dropped and said."""
    dims = [int(number) for number in header["dim"]]
    rank = dims[0]
    if not 1 <= rank <= 7:
        raise unreadable(path, got=f"{rank} dimensions", expected="3")
    if any(side < 1 for side in dims[1 : rank + 1]):
        raise unreadable(path, got=f"dimensions {dims[1 : rank + 1]}", expected="three positive numbers")
    if rank < 3:
        got = f"{rank} dimension(s): {dims[1 : rank + 1]}"
        raise unreadable(path, got=got, expected="a volume of three", remedy=LEAVE_OUT)
    more = dims[4 : rank + 1]
    check_shape(path, dims[1:4])
    if any(side > 1 for side in more):
        remedy = "Store the volumes of a time series or of several echoes one by one."
        raise unreadable(path, got=f"{rank} dimensions: {dims[1 : rank + 1]}", expected="a volume of three", remedy=remedy)
    notes = (f"{rank} dimensions, those beyond the third of one.",) if more else ()
    return (dims[1], dims[2], dims[3]), notes


def _dtype(path: Path, header: nib.Nifti1Header) -> np.dtype:
    code = int(header["datatype"])
    if code in _COLOURS:
        raise unreadable(path, got=f"{_COLOURS[code]} colour", expected="one number a voxel", remedy=LEAVE_OUT)
    if code in _NOT_REAL:
        raise unreadable(path, got=f"{_NOT_REAL[code]} numbers", expected="8- to 64-bit real numbers", remedy=LEAVE_OUT)
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (nib.spatialimages.HeaderDataError, KeyError) as error:
        raise unreadable(path, got=f"datatype {code}", expected="a type of NIfTI") from error
    if dtype.itemsize == 0 or int(header["bitpix"]) != 8 * dtype.itemsize:
        got = f"datatype {code} ({dtype.name}) with {int(header['bitpix'])} bits a voxel"
        raise unreadable(path, got=got, expected=f"{8 * dtype.itemsize} bits")
    return dtype


def _scale(path: Path, header: nib.Nifti1Header) -> tuple[Rescale | None, tuple[str, ...]]:
    """Return slope and intercept of the header; None where it has none, which it tells by a slope of 0 or by two NaN."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or (np.isnan(slope) and (np.isnan(intercept) or intercept == 0)):
        said = "" if slope == 0 else "slope and intercept of the header are no numbers: values taken as stored."
        return None, (said,) if said else ()
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise unreadable(path, got=f"slope {slope:g} and intercept {intercept:g}", expected="two numbers, or slope 0 for none")
    scale = Rescale(slope, intercept)
    return (None if scale.is_identity else scale), ()


def _affine(path: Path, header: nib.Nifti1Header, stated_spacing_mm: Millimetres | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return index (k, j, i) to millimetres (left, posterior, superior) by the s-form, else by the q-form."""
    notes: list[str] = []
    pixdim = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        shown = ", ".join(f"{side:g}" for side in pixdim)
        notes.append(f"pixel sizes {shown} in the header are no lengths.")
        pixdim = np.abs(np.nan_to_num(pixdim, posinf=0, neginf=0))
    sform = _usable(header.get_sform()) if int(header["sform_code"]) > 0 else None
    qform = _unit_qform(header, notes) if int(header["qform_code"]) > 0 else None
    if sform is not None and qform is not None:
        _compare_forms(path, sform, qform)
    affine = sform
    if sform is None and qform is not None:
        affine = _scaled(qform, pixdim, stated_spacing_mm, _MM_PER_UNIT.get(_unit(header), 1.0), notes)
    if int(header["sform_code"]) > 0 and sform is None:
        notes.append("the s-form is no geometry (zeros or no numbers): the q-form is taken.")
    if affine is None:
        got = "neither a usable s-form nor a q-form with pixel sizes"
        expected = "one of them: without, nobody can tell left from right"
        raise unreadable(path, got=got, expected=expected, remedy="Convert the volume from DICOM again, or write the s-form.")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if sform is not None and not np.allclose(lengths, pixdim, rtol=_SAME):
        shown = " x ".join(f"{side:g}" for side in pixdim)
        notes.append(
            f"pixel sizes {shown} disagree with the s-form, {' x '.join(f'{side:g}' for side in lengths)}: it is taken."
        )
    _check_right_angles(path, affine)
    affine = affine.copy()
    affine[:3] *= _unit_mm(path, header, lengths, notes)
    kji = _TO_LPS @ affine @ np.eye(4)[:, [2, 1, 0, 3]]  # index (k, j, i): the columns in the array's order
    return kji, tuple(notes)


def _usable(affine: np.ndarray) -> np.ndarray | None:
    """Return an affine of finite numbers whose columns span the space; None for any other."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        return None
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        return None
    return affine


def _unit_qform(header: nib.Nifti1Header, notes: list[str]) -> np.ndarray | None:
    """Return the q-form with columns of length one; None where it is no rotation."""
    copy = header.copy()
    copy["pixdim"][1:4] = 1
    if copy["pixdim"][0] not in (-1, 1):
        copy["pixdim"][0] = 1  # nifti1.h: any other value means 1
    try:
        qform = _usable(copy.get_qform())
    except (nib.spatialimages.HeaderDataError, ValueError):
        qform = None
    if qform is None:
        notes.append("the q-form is no rotation.")
    return qform


def _scaled(
    unit_qform: np.ndarray, pixdim: np.ndarray, stated_spacing_mm: Millimetres | None, mm_per_unit: float, notes: list[str]
) -> np.ndarray | None:
    """Return the q-form with its lengths, which are the pixel sizes, or a table's where these are zero; None without."""
    if (pixdim == 0).any():
        if stated_spacing_mm is None:
            return None
        stated = along_axes(unit_qform[:3, :3], stated_spacing_mm) / mm_per_unit
        pixdim = np.where(pixdim == 0, stated, pixdim)
        notes.append(FROM_TABLE)
    affine = unit_qform.copy()
    affine[:3, :3] *= pixdim  # columns i, j, k
    return affine


def _compare_forms(path: Path, sform: np.ndarray, qform: np.ndarray) -> None:
    """Refuse a header whose two forms point to different sides; different lengths are told elsewhere."""
    directions = [form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform)]
    if np.allclose(directions[0], directions[1], atol=0.02):
        return
    codes = ["".join(nib.aff2axcodes(form)) for form in (sform, qform)]
    got = f"an s-form ({codes[0]}) and a q-form ({codes[1]}) of different directions"
    remedy = "Find out which one is true and remove the other, or convert the volume from DICOM again."
    raise unreadable(path, got=got, expected="one geometry", remedy=remedy)


def _check_right_angles(path: Path, affine: np.ndarray) -> None:
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    largest = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if largest > _SAME:
        degrees = float(np.degrees(np.arcsin(min(largest, 1.0))))
        got = f"a sheared s-form (axes {degrees:.1f} degrees off the right angle)"
        remedy = "Convert the DICOM series again and correct the gantry tilt; a series of DICOM files is corrected here."
        raise unreadable(path, got=got, expected="axes at right angles", remedy=remedy)


def _unit(header: nib.Nifti1Header) -> int:
    return int(header["xyzt_units"]) & 7


def _unit_mm(path: Path, header: nib.Nifti1Header, lengths: np.ndarray, notes: list[str]) -> float:
    """Return the millimetres of the header's unit.

    Raises:
        DatasetError: metres or micrometres that are a CT's spacing in millimetres alone.
    """
    unit = _unit(header)
    if unit not in _MM_PER_UNIT:
        raise unreadable(path, got=f"unit {unit} of space", expected="millimetres", remedy=FETCH_AGAIN)
    factor = _MM_PER_UNIT[unit]
    if factor == 1.0:
        return factor
    plausible = ((lengths * factor >= MIN_SPACING_MM) & (lengths * factor <= MAX_SPACING_MM)).all()
    if not plausible:
        shown = " x ".join(f"{side:g}" for side in lengths)
        remedy = "Write the true unit into the header."
        raise unreadable(path, got=f"a spacing of {shown} {_UNIT_NAMES[unit]}", expected="a CT's", remedy=remedy)
    notes.append(f"the header's unit is {_UNIT_NAMES[unit]}: turned into millimetres.")
    return factor
