"""Boxes as arrays: corners and sides, areas, overlap, and what of them lies inside an image.

Shapes: N boxes, one a row; xyxy is left, top, right, bottom, xywh is left, top, width, height. An empty list is (0, 4). Boxes
of float32 stay so, all others become float64.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

Boxes = npt.NDArray[np.float64]


def xywh_to_xyxy(boxes_xywh: npt.ArrayLike) -> NDArray[Any]:
    """Convert (N, 4) boxes xywh to xyxy."""
    boxes = _rows(boxes_xywh)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: npt.ArrayLike) -> NDArray[Any]:
    """Convert (N, 4) boxes xyxy to xywh."""
    boxes = _rows(boxes_xyxy)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _rows(boxes: npt.ArrayLike) -> NDArray[Any]:
    array = np.asarray(boxes)
    return array.astype(array.dtype if array.dtype == np.float32 else np.float64, copy=False).reshape(-1, 4)  # (N, 4)


def areas(boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
    """Return the areas (...) of boxes (..., 4)."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(axis=-1)


def has_area(boxes_xyxy: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (N,) bool: which boxes (N, 4) have a width and a height above 0; those with NaN have not."""
    return np.all(boxes_xyxy[:, 2:] > boxes_xyxy[:, :2], axis=1)


def clip_to_image(boxes_xyxy: NDArray[Any], image_hw: npt.ArrayLike) -> NDArray[Any]:
    """Return boxes (N, 4) cut at the edges of their images; ``image_hw`` is (2,), height and width of all, or (N, 2)."""
    return np.clip(boxes_xyxy, 0.0, np.asarray(image_hw)[..., [1, 0, 1, 0]])


def iou(
    a_xyxy: NDArray[Any],
    b_xyxy: NDArray[Any],
    *,
    a_areas: NDArray[Any] | None = None,
    b_areas: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Intersection over union of boxes side by side, in the order of operations of pycocotools.

    Args:
        a_xyxy: (..., 4).
        b_xyxy: (..., 4), of a shape that broadcasts with that of ``a_xyxy``.
        a_areas: (...) areas, where boxes are stored as xywh and width times height is not quite that of the corners.
        b_areas: the same of b.

    Returns:
        (...) in [0, 1]; 0 where neither box has an area.
    """
    low = np.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = np.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    common = np.maximum(high - low, 0.0).prod(axis=-1)
    a_own = areas(a_xyxy) if a_areas is None else a_areas
    b_own = areas(b_xyxy) if b_areas is None else b_areas
    union = a_own + b_own - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
