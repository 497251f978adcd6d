"""True masks of structures on the patches of converted volumes; for evaluation only.

Two layouts. Label volumes: a folder with ``<volume>.nii.gz`` or ``<study>.nii.gz``, a code per voxel, and a table of codes,
structure -> its codes; the demo cohort writes such a folder, and labels of TotalSegmentator become one by a table of their
numbers. Region folders, as RadGenome-ChestCT has them: a folder of each volume with ``<region>.nii.gz``, 0 outside a region;
names of regions are those of its region reports.

A mask must lie on the grid of its scan: shape and spacing. Any other is left out, and counted by reason.

Shapes: Z x Y x X voxels, P patches in raster order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.structures.table import StructureTable
from d2rnet.ct.volumes.orientation import STRAIGHT_DEGREES, canonical_order, canonical_spacing
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json

CODES = "structures.json"
SPACING_TOLERANCE = 0.01  # of a spacing: headers round, and 1 % of a chest is less than a patch
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Shares = dict[str, NDArray[np.float32]]


class UnfitMaskError(ValueError):
    """A volume whose mask cannot be compared with it; the text is the reason, alike for all such volumes."""


class Masks(Protocol):
    """True masks of scans; ``structures`` names those that may have one."""

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the table's structures."""

    def shares(self, volume: Mapping[str, Any], grid_zyx: tuple[int, int, int]) -> Shares:
        """Return what share of each patch of a converted volume each structure fills, (P,), of the structures that are known.

        Args:
            volume: line of convert-ct's volumes.jsonl, which says where the converted volume lies in the scan.
            grid_zyx: patches along each axis; a divisor of the converted volume's voxels.

        Raises:
            UnfitMaskError: there is no mask, or it is of another grid.
            DatasetError: not a NIfTI file of three axes.
        """


@dataclass(frozen=True)
class LabelVolumes:
    """Label volumes in a folder, with structure -> codes."""

    folder: Path
    codes: Mapping[str, Sequence[int]]

    @property
    def structures(self) -> tuple[str, ...]:
        """Structures that have codes."""
        return tuple(self.codes)

    def shares(self, volume: Mapping[str, Any], grid_zyx: tuple[int, int, int]) -> Shares:
        """See :class:`Masks`."""
        paths = [self.folder / f"{volume[key]}.nii.gz" for key in ("volume_id", "study_id")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise UnfitMaskError("no mask")
        labels = _of_converted(*_read(path), volume)
        return {name: _patch_shares(np.isin(labels, listed), grid_zyx) for name, listed in self.codes.items()}


@dataclass(frozen=True)
class RegionFolders:
    """A folder of each volume (``mask_folder``) with a file of each region; structure -> regions.

    A structure is known where each of its regions has a file that is not empty: segmentations that failed are all zero.
    """

    regions: Mapping[str, Sequence[str]]

    @property
    def structures(self) -> tuple[str, ...]:
        """Structures that have regions."""
        return tuple(self.regions)

    def shares(self, volume: Mapping[str, Any], grid_zyx: tuple[int, int, int]) -> Shares:
        """See :class:`Masks`."""
        if not volume["mask_folder"]:
            raise UnfitMaskError("no mask")
        found: Shares = {}
        for name, regions in self.regions.items():
            parts = [_region(Path(volume["mask_folder"]) / f"{region}.nii.gz", volume) for region in regions]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                found[name] = _patch_shares(np.logical_or.reduce(known), grid_zyx)
        if not found:
            raise UnfitMaskError("no region with a file that is not empty")
        return found


def find_masks(
    folder: Path | None, codes: Path | None, table: StructureTable, volumes: Sequence[Mapping[str, Any]]
) -> Masks | None:
    """Return where true masks are: in a folder of label volumes, else in the volumes' region folders, else nowhere.

    Args:
        folder: of label volumes, if any.
        codes: its table; None for structures.json in it.
        table: the structures.
        volumes: lines of convert-ct's volumes.jsonl.

    Raises:
        FileNotFoundError: there is no table of codes.
        DatasetError: it is no table of codes, or names an unknown structure.
    """
    if folder is not None:
        return LabelVolumes(folder, read_codes(codes or folder / CODES, tuple(table.structures)))
    if any(line["mask_folder"] for line in volumes):
        regions = {name: one.radgenome for name, one in table.structures.items() if one.radgenome and name != table.rest}
        return RegionFolders(regions)
    return None


def read_codes(path: Path, structures: Sequence[str]) -> dict[str, list[int]]:
    """Return structure -> codes, of the structures that have any.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is no table of codes, or names an unknown structure.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected structure -> list of codes in the masks.")
    codes = read_json(path)
    sound = isinstance(codes, dict) and all(
        isinstance(listed, list) and all(type(code) is int and code > 0 for code in listed) for listed in codes.values()
    )
    unknown = sorted(set(codes) - set(structures)) if sound else []
    if not sound or unknown:
        got = f"unknown structure '{unknown[0]}'" if unknown else "no object of structure -> list of whole numbers from 1"
        raise DatasetError(f"{path}: got {got}; expected codes of {', '.join(structures)}.")
    return dict(codes)


def _read(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the voxels of a mask as stored, and its affine to LPS+."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        stored = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: got no readable NIfTI file ({type(error).__name__}); expected a mask.") from error
    if stored.ndim != 3:
        raise DatasetError(f"{path}: got {stored.ndim} axes; expected a mask of three.")
    return stored, _RAS_TO_LPS @ np.asarray(image.affine)


def _region(path: Path, volume: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Return (Z, Y, X) where a region is, of a converted volume; None without a file, or where it is empty."""
    if not path.is_file():
        return None
    stored, affine = _read(path)
    inside = stored > 0
    return _of_converted(inside, affine, volume) if inside.any() else None


def _of_converted(stored: NDArray[Any], affine: NDArray[np.float64], volume: Mapping[str, Any]) -> NDArray[Any]:
    """Return (Z, Y, X) of what a converted volume holds of its scan; 0 beyond it.

    Raises:
        UnfitMaskError: the scan was resampled on straight axes, or the mask is of another shape or spacing.
    """
    if not np.linalg.norm(affine[:3, :3], axis=0).all():
        raise UnfitMaskError("a mask without directions")
    order, flips, degrees = canonical_order(affine)
    if degrees > STRAIGHT_DEGREES:
        raise UnfitMaskError("an oblique mask")
    turned = np.transpose(stored, order)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    if list(turned.shape) != volume["source_shape_zyx"]:
        raise UnfitMaskError("a mask of another shape than the scan")
    if not np.allclose(canonical_spacing(affine), volume["source_spacing_mm"], rtol=SPACING_TOLERANCE, atol=0):
        raise UnfitMaskError("a mask of another spacing than the scan")
    mask = turned[np.ix_(*_nearest(volume))]
    whole = np.zeros(volume["shape_zyx"], turned.dtype)
    first = [max(0, -start) for start in volume["start_in_grid_zyx"]]
    whole[tuple(slice(begin, begin + side) for begin, side in zip(first, mask.shape, strict=True))] = mask
    return whole


def _patch_shares(inside: NDArray[np.bool_], grid_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    gz, gy, gx = grid_zyx
    pz, py, px = (side // count for side, count in zip(inside.shape, grid_zyx, strict=True))
    blocks = inside.reshape(gz, pz, gy, py, gx, px)
    return blocks.mean(axis=(1, 3, 5)).ravel().astype(np.float32)


def _nearest(volume: Mapping[str, Any]) -> list[NDArray[np.int64]]:
    """Return, along each axis, the voxel of the scan nearest to each voxel of the converted volume that lies in its grid."""
    places = []
    for side, old, new, start, grid, wanted in zip(
        volume["source_shape_zyx"],
        volume["source_spacing_mm"],
        volume["spacing_mm"],
        volume["start_in_grid_zyx"],
        volume["grid_shape_zyx"],
        volume["shape_zyx"],
        strict=True,
    ):
        kept = np.arange(max(0, start), min(grid, start + wanted))
        place = (side - 1) / 2 + (kept - (grid - 1) / 2) * (new / old)  # as the conversion
        places.append(np.clip(np.rint(place), 0, side - 1).astype(np.int64))
    return places
