"""What a CT volume is once read, what its header tells, and the limits that every reader keeps.

Axes of every array here: (z, y, x), of LPS+: z grows to the head, y to the back, x to the patient's left. ``hu[z]`` drawn with
row 0 on top is an axial slice as radiologists look at it: front on top, the patient's right on the left of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d2rnet.errors import DatasetError

Millimetres = tuple[float, float, float]  # (z, y, x)
MAX_VOXELS = 1 << 31  # 4 GiB of int16: 2048 slices of 1024 x 1024; the largest chest CTs have half of that
MAX_SIDE = 16384  # voxels
MIN_SPACING_MM = 0.1
MAX_SPACING_MM = 30.0
AIR_HU = -1024  # what scanners write outside their field of view
FETCH_AGAIN = "Fetch the file again; if the original is the same, leave the volume out."
FROM_TABLE = "the header has no spacing: it is taken from the metadata table."
LEAVE_OUT = "This is no chest CT volume; leave it out."


class Rescale(NamedTuple):
    """Hounsfield units = slope x stored value + intercept."""

    slope: float
    intercept: float

    @property
    def is_identity(self) -> bool:
        """Whether stored values are left as they are."""
        return self == (1.0, 0.0)


@dataclass(frozen=True)
class VolumeHeader:
    """What a header tells without a voxel being read.

    Attributes:
        shape_zyx: voxels along z, y, x once in the canonical orientation; of the grid as stored where the file is oblique.
        spacing_mm: (z, y, x).
        file_format: "NIfTI-1", "NIfTI-2", "DICOM series", "MetaImage" or "NRRD".
        stored_type: NumPy's name of the stored numbers.
        notes: what is odd about the file and was mended, one sentence each.
    """

    shape_zyx: tuple[int, int, int]
    spacing_mm: Millimetres
    file_format: str
    stored_type: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tissue:
    """Where body and lungs lie, in voxels of about 4 mm that fill the volume.

    Attributes:
        body: (Z, Y, X) uint8, 1 in what is dense and thicker than a table top.
        lungs: (Z, Y, X) uint8, 1 in lung.
        voxel_mm: size of the voxels.
    """

    body: np.ndarray
    lungs: np.ndarray
    voxel_mm: Millimetres


@dataclass(frozen=True)
class Volume:
    """A CT volume in Hounsfield units.

    Attributes:
        hu: (Z, Y, X) int16, z to the head, y to the back, x to the patient's left; may be a view with negative strides.
        spacing_mm: (z, y, x).
        file_format: as in :class:`VolumeHeader`.
        hu_source: how stored values became HU: "already", "raw: table slope 1, intercept -1024", ...
        notes: what is odd about the file and was mended, one sentence each.
        tissue: body and lungs of these values, once something has looked for them.
    """

    hu: np.ndarray
    spacing_mm: Millimetres
    file_format: str
    hu_source: str
    notes: tuple[str, ...] = ()
    tissue: Tissue | None = None


@dataclass(frozen=True)
class StoredVolume:
    """A volume as a format's reader hands it on: in some orientation, values after the header's own scaling.

    Attributes:
        values: three axes in any order, int16.
        affine_lps: (4, 4) float64, index along the three axes of ``values`` to millimetres (left, posterior, superior).
        header_scale: the header's own scaling, applied already; None where the format or the file has none.
        file_format: as in :class:`VolumeHeader`.
        notes: as in :class:`VolumeHeader`.
    """

    values: np.ndarray
    affine_lps: np.ndarray
    header_scale: Rescale | None
    file_format: str
    notes: tuple[str, ...] = ()


def unreadable(path: Path, *, got: str, expected: str, remedy: str = FETCH_AGAIN) -> DatasetError:
    """Build the error for a volume that cannot be used; the caller raises it."""
    return DatasetError(f"{path}: got {got}; expected {expected}. {remedy}")


def check_shape(path: Path, shape: Sequence[int], *, where: str = "the header") -> None:
    """Refuse a volume without voxels, or with more than any chest CT, before memory is taken.

    Raises:
        DatasetError: a side below 1 or above MAX_SIDE, or more than MAX_VOXELS in all.
    """
    count = int(np.prod([int(side) for side in shape], dtype=object))
    if min(shape) < 1 or max(shape) > MAX_SIDE or count > MAX_VOXELS:
        shown = " x ".join(str(int(side)) for side in shape)
        raise unreadable(
            path,
            got=f"{shown} voxels in {where}",
            expected=f"sides of 1 to {MAX_SIDE} and at most {MAX_VOXELS:,} voxels",
            remedy="A header that was damaged or made up, or no chest CT: leave the volume out.",
        )


def check_spacing(path: Path, spacing_mm: Sequence[float], *, where: str) -> None:
    """Refuse a spacing that no CT has.

    Raises:
        DatasetError: not finite, or outside MIN_SPACING_MM to MAX_SPACING_MM.
    """
    if not all(MIN_SPACING_MM <= side <= MAX_SPACING_MM for side in spacing_mm):
        shown = " x ".join(f"{side:.6g}" for side in spacing_mm)
        raise unreadable(
            path,
            got=f"a spacing of {shown} mm in {where}",
            expected=f"{MIN_SPACING_MM} to {MAX_SPACING_MM} mm along each axis",
            remedy="Write the true spacing into the header, or leave the volume out.",
        )
