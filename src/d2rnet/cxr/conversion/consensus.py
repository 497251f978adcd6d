"""Consensus: boxes that several readers drew on one image become one set of boxes, each with the number of agreeing readers.

Boxes of one class join one lesion if they overlap the lesion's mean box with an IoU above ``consensus_iou``, as in weighted
boxes fusion (Solovyev et al., Image Vis Comput 2021; PyPI ``ensemble-boxes``). What becomes of a lesion depends on the method:

* ``none``: every reader's box as drawn;
* ``union``: the smallest box around all of them;
* ``majority``: their mean, if more than half of the readers who looked at the image drew it;
* ``weighted_boxes_fusion``: their mean, by ``ensemble-boxes``, whoever drew it.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from d2rnet.cxr.boxes.geometry import iou as iou_of
from d2rnet.cxr.sources.box_tables import CORNERS

FUSED_COLUMNS = ("source_id", "category_id", *CORNERS, "readers", "agreement")
Boxes = npt.NDArray[np.float64]
# Equal scores are a tie whose order numpy leaves open; steps this small fix the order and move no box (1e-9 of its size).
_SCORE_STEP = 1e-9


@dataclass(frozen=True)
class Lesion:
    """One lesion: what its boxes became, and how many distinct readers drew one."""

    boxes_xyxy: Boxes  # (1, 4), or (K, 4) for method none
    readers: int


def fuse_readers(
    boxes: pd.DataFrame, images: pd.DataFrame, *, method: str, iou: float, min_readers: int
) -> tuple[pd.DataFrame, Counter[str]]:
    """Fuse the boxes of each image and class.

    Args:
        boxes: columns BOX_COLUMNS, corners inside the image, in the frame of ``source_height`` and ``source_width``.
        images: columns ``source_id``, ``source_height``, ``source_width`` (pixels, > 0) and ``n_readers`` (0: the boxes are a
            consensus already and stay as they are).
        method: none, union, majority or weighted_boxes_fusion.
        iou: boxes that overlap by more are one lesion, 0..1.
        min_readers: lesions drawn by fewer readers are dropped.

    Returns:
        Boxes with columns FUSED_COLUMNS, sorted by image, class and corners whatever the order of the input; ``readers`` is
        the number of distinct readers and ``agreement`` its share of the image's readers (0 and NaN for a given consensus).
        And counts: ``boxes_in``, ``boxes_given_as_consensus``, ``lesions``, ``lesions_below_min_readers``,
        ``lesions_without_majority``, ``boxes_out``.
    """
    ordered = boxes.sort_values(["source_id", "category_id", "reader_id", *CORNERS], ignore_index=True)
    ordered = ordered.merge(images[["source_id", "source_height", "source_width", "n_readers"]], on="source_id", how="left")
    counts = Counter(boxes_in=len(ordered), lesions=0, lesions_below_min_readers=0, lesions_without_majority=0)
    given = ordered[ordered["n_readers"] == 0].assign(readers=0, agreement=np.nan)[list(FUSED_COLUMNS)]
    counts["boxes_given_as_consensus"] = len(given)
    rows = _fuse_groups(ordered[ordered["n_readers"] > 0], method, iou, min_readers, counts)
    fused = pd.DataFrame(rows, columns=list(FUSED_COLUMNS)).astype(given.dtypes.to_dict())
    fused = pd.concat([part for part in (given, fused) if len(part)] or [given])
    counts["boxes_out"] = len(fused)
    return fused.sort_values(["source_id", "category_id", *CORNERS], ignore_index=True), counts


def _fuse_groups(
    ordered: pd.DataFrame, method: str, iou: float, min_readers: int, counts: Counter[str]
) -> list[tuple[object, ...]]:
    """Fuse runs of rows of one image and class; ``ordered`` is sorted by them."""
    if ordered.empty:
        return []
    source_ids = ordered["source_id"].tolist()
    categories = ordered["category_id"].to_numpy()
    corners = ordered[CORNERS].to_numpy()
    reader_ids = ordered["reader_id"].to_numpy()
    image_whwh = ordered[["source_width", "source_height"] * 2].to_numpy(dtype=np.float64)
    n_readers = ordered["n_readers"].to_numpy()
    new_group = (ordered[["source_id", "category_id"]] != ordered[["source_id", "category_id"]].shift()).any(axis=1)
    starts = np.flatnonzero(new_group)
    rows: list[tuple[object, ...]] = []
    for start, stop in zip(starts, [*starts[1:], len(ordered)], strict=True):
        group = slice(start, stop)
        for lesion in fuse_one_class(corners[group], reader_ids[group], image_whwh[start], method=method, iou=iou):
            counts["lesions"] += 1
            if lesion.readers < min_readers:
                counts["lesions_below_min_readers"] += 1
            elif method == "majority" and 2 * lesion.readers <= n_readers[start]:
                counts["lesions_without_majority"] += 1
            else:
                agreement = lesion.readers / int(n_readers[start])
                key = (source_ids[start], int(categories[start]))
                rows.extend((*key, *box, lesion.readers, agreement) for box in lesion.boxes_xyxy.tolist())
    return rows


def fuse_one_class(
    boxes_xyxy: Boxes, reader_ids: npt.NDArray[np.object_], image_whwh: Boxes, *, method: str, iou: float
) -> list[Lesion]:
    """Fuse the boxes of one class on one image; see :func:`fuse_readers`.

    Args:
        boxes_xyxy: (N, 4) pixels, N >= 1, in an order that does not depend on the input file.
        reader_ids: (N,) who drew each.
        image_whwh: (4,) width, height, width, height of the image in the same pixels.
        method: none, union, majority or weighted_boxes_fusion.
        iou: overlap above which boxes are one lesion.
    """
    if len(boxes_xyxy) == 1:
        return [Lesion(boxes_xyxy, 1)]
    if method == "weighted_boxes_fusion":
        return _weighted_boxes_fusion(boxes_xyxy, reader_ids, image_whwh, iou)
    lesions = []
    for members in _cluster(boxes_xyxy, iou):
        drawn = boxes_xyxy[members]
        if method == "union":
            kept = np.concatenate([drawn[:, :2].min(axis=0), drawn[:, 2:].max(axis=0)])[None]
        else:
            kept = drawn.mean(axis=0, keepdims=True) if method == "majority" else drawn
        lesions.append(Lesion(kept, len(set(reader_ids[members]))))
    return lesions


def _weighted_boxes_fusion(
    boxes_xyxy: Boxes, reader_ids: npt.NDArray[np.object_], image_whwh: Boxes, iou: float
) -> list[Lesion]:
    """Fuse by ``ensemble-boxes``; readers weigh the same, so that the score of a box is the share of readers who drew it."""
    from ensemble_boxes import weighted_boxes_fusion  # here: it loads numba, which takes a second

    names = sorted(set(reader_ids))
    by_reader = [np.flatnonzero(reader_ids == name) for name in names]
    scores = 1.0 - _SCORE_STEP * np.arange(len(boxes_xyxy))
    normalised = boxes_xyxy / image_whwh
    fused, shares, _ = weighted_boxes_fusion(
        [normalised[members] for members in by_reader],
        [scores[members] for members in by_reader],
        [np.zeros(len(members)) for members in by_reader],
        iou_thr=iou,
        conf_type="box_and_model_avg",  # the share of distinct readers, however many boxes each of them has in the lesion
    )
    return [Lesion(box[None] * image_whwh, round(share * len(names))) for box, share in zip(fused, shares, strict=True)]


def _cluster(boxes_xyxy: Boxes, iou: float) -> list[list[int]]:
    """Group boxes as weighted boxes fusion does: each joins the lesion whose mean box it overlaps most, if above ``iou``."""
    clusters: list[list[int]] = []
    means = np.empty((0, 4))
    for index, box in enumerate(boxes_xyxy):
        overlaps = iou_of(means, box)
        if len(means) and overlaps.max() > iou:
            best = int(overlaps.argmax())
            clusters[best].append(index)
            means[best] = boxes_xyxy[clusters[best]].mean(axis=0)
        else:
            clusters.append([index])
            means = np.vstack([means, box])
    return clusters
