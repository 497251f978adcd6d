"""Boxes as arrays: xywh, xyxy, and their overlap."""

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

Boxes = npt.NDArray[np.float64]


def xywh_to_xyxy(boxes_xywh: npt.ArrayLike) -> Boxes:
    """Convert (N, 4) boxes [left, top, width, height] to [left, top, right, bottom]; an empty list gives (0, 4)."""
    boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: npt.ArrayLike) -> Boxes:
    """Convert (N, 4) boxes [left, top, right, bottom] to [left, top, width, height]; an empty list gives (0, 4)."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _iou(a_xywh: NDArray[np.float64], b_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) IoU of boxes side by side, in the order of operations of pycocotools; 0 where both have no area."""
    ends = np.minimum(a_xywh[:, :2] + a_xywh[:, 2:], b_xywh[:, :2] + b_xywh[:, 2:])
    sides = np.maximum(ends - np.maximum(a_xywh[:, :2], b_xywh[:, :2]), 0.0)
    common = sides[:, 0] * sides[:, 1]
    union = a_xywh[:, 2] * a_xywh[:, 3] + b_xywh[:, 2] * b_xywh[:, 3] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
