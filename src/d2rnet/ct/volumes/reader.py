"""Volume reader: one file or folder in, Hounsfield units in one orientation out.

The format is told by the content, not by the name. Axes of every result: (z, y, x) of LPS+ (:mod:`d2rnet.ct.volumes.volume`).
Reads: NIfTI, DICOM series, MetaImage, NRRD. Writes: nothing.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from isal import igzip

from d2rnet.ct.volumes.chest import check_chest
from d2rnet.ct.volumes.dicom_series import read_series, read_series_header, series_files
from d2rnet.ct.volumes.hounsfield import HounsfieldChoice, to_hounsfield
from d2rnet.ct.volumes.meta_header import is_meta_image
from d2rnet.ct.volumes.nifti import GZIP_ERRORS, GZIP_MAGIC, is_nifti, read_nifti, read_nifti_header
from d2rnet.ct.volumes.nrrd_header import is_nrrd
from d2rnet.ct.volumes.orientation import to_canonical
from d2rnet.ct.volumes.other_formats import other_files, read_other, read_other_header
from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.ct.volumes.volume import Millimetres, Rescale, StoredVolume, Volume, VolumeHeader, unreadable
from d2rnet.files.documents import check_regular_file

__all__ = ["Rescale", "Volume", "VolumeHeader", "read_chest_volume", "read_volume", "read_volume_header", "volume_files"]
_START_BYTES = 348
_SAME_SPACING = 0.01  # relative: tables round


def read_volume(
    path: str | Path,
    *,
    hu: HounsfieldChoice = "auto",
    rescale: Rescale | None = None,
    stated_spacing_mm: Millimetres | None = None,
) -> Volume:
    """Read a CT volume.

    Args:
        path: NIfTI, MetaImage or NRRD file, or the folder of a DICOM series.
        hu: whether the values are Hounsfield units; auto decides from values and header and refuses a contradiction.
        rescale: slope and intercept of a metadata table, for values as stored; NaN where the table says nothing.
        stated_spacing_mm: (z, y, x) of a metadata table, used only where a header has no spacing; where it has
            another one, that is noted.

    Returns:
        The volume, with what was decided and mended in its notes. Nothing is said about what it shows: see
        :func:`read_chest_volume`.

    Raises:
        DatasetError: missing, of another format, damaged, cut off, ambiguous, or no Hounsfield units.
    """
    path = Path(path)
    stored = _read_stored(path, stated_spacing_mm)
    values, source, notes = to_hounsfield(path, stored.values, choice=hu, table=rescale, header=stored.header_scale)
    canonical, spacing, moved = to_canonical(path, values, stored.affine_lps)
    said = _contradiction(spacing, stated_spacing_mm)
    return Volume(canonical, spacing, stored.file_format, source, (*stored.notes, *said, *notes, *moved))


def read_chest_volume(
    path: str | Path,
    settings: VolumeSettings,
    *,
    rescale: Rescale | None = None,
    stated_spacing_mm: Millimetres | None = None,
) -> Volume:
    """Read a CT volume and refuse one that is no chest; what is doubtful is added to its notes.

    Raises:
        DatasetError: as :func:`read_volume`, or the volume shows no chest, has too few slices, ...; the kind of the problem
            is in the message (:func:`d2rnet.ct.volumes.chest.chest_problems`).
    """
    volume = read_volume(path, hu=settings.hu, rescale=rescale, stated_spacing_mm=stated_spacing_mm)
    return check_chest(Path(path), volume, settings)


def read_volume_header(path: str | Path, *, stated_spacing_mm: Millimetres | None = None) -> VolumeHeader:
    """Read what a header tells, without voxels; checks what can be checked without them.

    Args:
        path: as for :func:`read_volume`.
        stated_spacing_mm: as for :func:`read_volume`.

    Raises:
        DatasetError: as :func:`read_volume`, as far as headers tell.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "DICOM series":
        header = read_series_header(path)
    elif kind == "NIfTI":
        header = read_nifti_header(path, stated_spacing_mm)
    else:
        header = read_other_header(path, kind, stated_spacing_mm)
    return replace(header, notes=(*header.notes, *_contradiction(header.spacing_mm, stated_spacing_mm)))


def volume_files(path: str | Path) -> list[Path]:
    """Return the files that a volume is made of: while none of them changes, it reads the same.

    Args:
        path: as for :func:`read_volume`.

    Returns:
        The file; header and file of voxels of a MetaImage or NRRD; all files below the folder of a series, sorted.

    Raises:
        DatasetError: no volume by its first bytes, or its voxels are not there.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "DICOM series":
        return [file for file in series_files(path) if file.is_file()]
    return [path] if kind == "NIfTI" else other_files(path, kind)


def file_format(path: Path) -> str:
    """Return "DICOM series", "NIfTI", "MetaImage" or "NRRD" by the first bytes; a folder is a DICOM series.

    Raises:
        DatasetError: nothing of that name, empty, a single DICOM file, or another format.
    """
    if path.is_dir():
        return "DICOM series"
    try:
        check_regular_file(path)
        with path.open("rb") as stream:
            start = stream.read(_START_BYTES)
    except OSError as error:
        remedy = "Check the path, the permissions and that the download is complete."
        raise unreadable(path, got=f"'{error.strerror or error}'", expected="a CT volume", remedy=remedy) from error
    if start[128:132] == b"DICM":
        got = "a single DICOM file"
        raise unreadable(path, got=got, expected="the folder of the series", remedy="Name the folder, with all its slices.")
    if start.startswith(GZIP_MAGIC):
        start = _inflated_start(path)
    if is_nifti(start):
        return "NIfTI"
    if is_nrrd(start):
        return "NRRD"
    if is_meta_image(start):
        return "MetaImage"
    got = f"a file that starts with {start[:8].hex(' ')}" if start else "an empty file (0 bytes)"
    raise unreadable(path, got=got, expected="NIfTI, MetaImage, NRRD or the folder of a DICOM series")


def _inflated_start(path: Path) -> bytes:
    try:
        with igzip.open(path, "rb") as stream:
            return stream.read(_START_BYTES)
    except GZIP_ERRORS as error:
        raise unreadable(path, got="damaged gzip data", expected="a whole gzip file") from error


def _contradiction(spacing_mm: Millimetres, stated_mm: Millimetres | None) -> tuple[str, ...]:
    """Say that a table has another spacing than the header, which is taken."""
    if stated_mm is None or np.allclose(spacing_mm, stated_mm, rtol=_SAME_SPACING, atol=0):
        return ()
    table, header = (" x ".join(f"{side:.4g}" for side in sides) for sides in (stated_mm, spacing_mm))
    return (f"spacing of the metadata table is not the header's: {table} mm against {header} mm, which is taken.",)


def _read_stored(path: Path, stated_spacing_mm: Millimetres | None) -> StoredVolume:
    kind = file_format(path)
    if kind == "DICOM series":
        return read_series(path)
    if kind == "NIfTI":
        return read_nifti(path, stated_spacing_mm)
    return read_other(path, kind, stated_spacing_mm)
