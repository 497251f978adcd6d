"""Brings a volume of any axis order and direction to (z, y, x) of LPS+.

A volume along the patient's axes is only seen from another side: a view, no voxel is moved. A turned (oblique) one, and one
whose slices are shifted against each other (gantry tilt: a shear), is resampled with SimpleITK, trilinear, on straight axes.
"""

from itertools import permutations
from pathlib import Path

import numpy as np

from d2rnet.ct.volumes.volume import AIR_HU, Millimetres, check_shape

STRAIGHT_DEGREES = 2.0  # a patient lies less straight than this
SQUARE_DEGREES = 0.3  # slices shifted against each other by 0.5 % of the height: 2 mm in a chest


def canonical_order(affine_lps: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], float]:
    """Find which axis of an array runs nearest to each of the patient's axes.

    Args:
        affine_lps: (4, 4), index to millimetres (left, posterior, superior); its three columns independent.

    Returns:
        For z, y, x in this order: the axis of the array, and whether its direction is turned round; then the largest angle
        in degrees between an axis of the array and the patient's.
    """
    columns = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    cosines = columns[::-1]  # (3, 3): rows z, y, x of the patient, columns axes of the array
    order = max(permutations(range(3)), key=lambda axes: sum(abs(cosines[row, axis]) for row, axis in enumerate(axes)))
    chosen = np.array([cosines[row, axis] for row, axis in enumerate(order)])
    degrees = float(np.degrees(np.arccos(np.clip(np.abs(chosen).min(), 0, 1))))
    flips = tuple(bool(cosine < 0) for cosine in chosen)
    return order, flips, degrees  # type: ignore[return-value]


def canonical_spacing(affine_lps: np.ndarray) -> Millimetres:
    """Return the spacing along z, y, x of a volume that lies straight."""
    order, _, _ = canonical_order(affine_lps)
    norms = np.linalg.norm(affine_lps[:3, :3], axis=0)
    return float(norms[order[0]]), float(norms[order[1]]), float(norms[order[2]])


def along_axes(directions: np.ndarray, spacing_mm: Millimetres) -> np.ndarray:
    """Return (3,) the spacing of the patient's axes along the axes of an array.

    Args:
        directions: (3, 3), its columns the directions of the array's axes (left or right, front or back, up or down), of any
            length.
        spacing_mm: (z, y, x) of the patient.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions
    order, _, _ = canonical_order(affine)
    lengths = np.empty(3)
    lengths[list(order)] = spacing_mm  # order says for z, y, x which axis of the array it is
    return lengths


def to_canonical(path: Path, hu: np.ndarray, affine_lps: np.ndarray) -> tuple[np.ndarray, Millimetres, tuple[str, ...]]:
    """Bring a volume to the canonical orientation.

    Args:
        path: file of the volume, for messages.
        hu: int16, three axes in any order.
        affine_lps: (4, 4), its index to millimetres (left, posterior, superior).

    Returns:
        (Z, Y, X) int16, a view where the volume lies straight; its spacing in mm; what was done, where it was resampled.

    Raises:
        DatasetError: the straight box round an oblique volume would have too many voxels.
    """
    order, flips, degrees = canonical_order(affine_lps)
    spacing = canonical_spacing(affine_lps)
    turned = np.transpose(hu, order)[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    cosines = affine_lps[:3, :3] / np.linalg.norm(affine_lps[:3, :3], axis=0)
    shear = float(np.degrees(np.arcsin(np.clip(np.abs(cosines.T @ cosines - np.eye(3)).max(), 0, 1))))
    if degrees <= STRAIGHT_DEGREES and shear <= SQUARE_DEGREES:
        return turned, spacing, ()
    inner = np.eye(4)  # index of ``turned`` to index of ``hu``
    inner[:3, :3] = 0
    for row, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        inner[axis, row] = -1 if flip else 1
        inner[axis, 3] = hu.shape[axis] - 1 if flip else 0
    straight = _straightened(path, turned, affine_lps @ inner, spacing)
    note = f"axes {degrees:.1f} degrees off the patient's: resampled on straight axes, air outside."
    return straight, spacing, (note,)


def _straightened(path: Path, hu: np.ndarray, affine_lps: np.ndarray, spacing: Millimetres) -> np.ndarray:
    """Resample (Z, Y, X) HU, whose axes run nearly as the patient's, on the smallest straight box that holds them."""
    import SimpleITK

    corners = np.array(np.meshgrid(*[(0, side - 1) for side in hu.shape], indexing="ij")).reshape(3, 8)
    placed = affine_lps[:3, :3] @ corners + affine_lps[:3, 3:]  # (3, 8) mm: left, posterior, superior
    low = placed.min(axis=1)
    step = np.array(spacing[::-1])  # x, y, z
    size = np.floor((placed.max(axis=1) - low) / step + 1e-6).astype(int) + 1
    check_shape(path, size, where="the straight box round the oblique volume")
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(hu))  # its place: index (x, y, z)
    linear = affine_lps[:3, [2, 1, 0]]  # index (x, y, z) to millimetres
    to_index = SimpleITK.AffineTransform(3)
    to_index.SetMatrix(np.linalg.inv(linear).ravel().tolist())
    to_index.SetTranslation((-np.linalg.inv(linear) @ affine_lps[:3, 3]).tolist())
    resampled = SimpleITK.Resample(
        image,
        [int(side) for side in size],
        to_index,
        SimpleITK.sitkLinear,
        [float(side) for side in low],
        [float(side) for side in step],
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        float(AIR_HU),
        SimpleITK.sitkInt16,
    )
    return SimpleITK.GetArrayFromImage(resampled)
