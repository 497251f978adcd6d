"""True masks of structures on the patches of converted volumes; for evaluation only.

A folder of masks holds ``<study>.nii.gz``, a code per voxel of the scan, and ``structures.json``: structure -> its codes. The
demo cohort writes such a folder; labels of TotalSegmentator become one by a structures.json of their numbers.

Shapes: Z x Y x X voxels, S structures, P patches in raster order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.volumes.orientation import STRAIGHT_DEGREES, canonical_order
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json

CODES = "structures.json"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_codes(folder: Path, structures: Sequence[str]) -> dict[str, list[int]]:
    """Return structure -> codes, of the structures that have any.

    Raises:
        FileNotFoundError: there is no structures.json.
        DatasetError: it is no table of codes, or names an unknown structure.
    """
    path = folder / CODES
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected structure -> list of codes in the masks beside it.")
    codes = read_json(path)
    sound = isinstance(codes, dict) and all(
        isinstance(listed, list) and all(type(code) is int and code > 0 for code in listed) for listed in codes.values()
    )
    unknown = sorted(set(codes) - set(structures)) if sound else []
    if not sound or unknown:
        got = f"unknown structure '{unknown[0]}'" if unknown else "no object of structure -> list of whole numbers from 1"
        raise DatasetError(f"{path}: got {got}; expected codes of {', '.join(structures)}.")
    return dict(codes)


def patch_shares(
    path: Path, volume: Mapping[str, Any], codes: Mapping[str, Sequence[int]], grid_zyx: tuple[int, int, int]
) -> NDArray[np.float32] | None:
    """Return what share of each patch of a converted volume each structure fills: (S', P), in the order of ``codes``.

    Args:
        path: mask of the scan.
        volume: line of convert-ct's volumes.jsonl, which says where the converted volume lies in the scan.
        codes: structure -> codes.
        grid_zyx: patches along each axis; a divisor of the converted volume's voxels.

    Returns:
        The shares; None where the scan was resampled on straight axes, or the mask has another shape.

    Raises:
        DatasetError: not a NIfTI file of three axes.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        stored = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: got no readable NIfTI file ({type(error).__name__}); expected a mask.") from error
    if stored.ndim != 3:
        raise DatasetError(f"{path}: got {stored.ndim} axes; expected a mask of three.")
    order, flips, degrees = canonical_order(_RAS_TO_LPS @ np.asarray(image.affine))
    turned = np.transpose(stored, order)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    if degrees > STRAIGHT_DEGREES or list(turned.shape) != volume["source_shape_zyx"]:
        return None
    mask = turned[np.ix_(*_nearest(volume))]  # (Z, Y, X) of what the converted volume holds of the scan
    whole = np.zeros(volume["shape_zyx"], turned.dtype)
    first = [max(0, -start) for start in volume["start_in_grid_zyx"]]
    whole[tuple(slice(begin, begin + side) for begin, side in zip(first, mask.shape, strict=True))] = mask
    gz, gy, gx = grid_zyx
    pz, py, px = (side // count for side, count in zip(whole.shape, grid_zyx, strict=True))
    blocks = whole.reshape(gz, pz, gy, py, gx, px)
    return np.stack([np.isin(blocks, listed).mean(axis=(1, 3, 5)).ravel() for listed in codes.values()]).astype(np.float32)


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
