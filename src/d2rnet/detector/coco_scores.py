"""COCO average precision of detections as pycocotools computes it, with IoU 0.4 (VinBigData's) beside the usual ones."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2rnet.data.categories import CATEGORY_IDS, CATEGORY_NAMES, coco_categories
from d2rnet.detector.data import Record

IOU_THRESHOLDS = (0.4, *np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = 100
REPORTED = {"AP40": 0, "AP50": 1, "AP75": 6}
COCO_RANGE = slice(1, None)


def coco_scores(records: Sequence[Record], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Score detections on images.

    Args:
        records: every image that was looked at, those without boxes too.
        results: COCO results in the frame of the records.

    Returns:
        ``AP`` (mean over IoU 0.50:0.05:0.95), ``AP50``, ``AP75``, ``AP40``, each a mean over the classes that have a box, in
        [0, 1], None if none has; ``per_class_AP``, ``per_class_AP50``, ``per_class_AP40`` (class name -> value);
        ``boxes_per_class``; ``classes_without_boxes``, which enter no mean.
    """
    truth = _coco(records)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its own progress
        found = truth.loadRes(list(results)) if results else _coco([])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.iouThrs = np.array(IOU_THRESHOLDS)
        evaluation.params.imgIds = [record.image_id for record in records]
        evaluation.params.catIds = list(CATEGORY_IDS.values())
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # (IoU, recall, class); -1 where a class has no box
    boxes = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *(record.classes for record in records)]), minlength=len(CATEGORY_NAMES)
    )
    present = np.flatnonzero(boxes)
    per_class = precision[:, :, present].mean(axis=1)  # (IoU, present class)
    names = [CATEGORY_NAMES[index] for index in present]

    def by_name(values: np.ndarray) -> dict[str, float]:
        return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}

    def mean(values: np.ndarray) -> float | None:
        return round(float(values.mean()), 6) if values.size else None

    return {
        "AP": mean(per_class[COCO_RANGE]),
        **{name: mean(per_class[row]) for name, row in REPORTED.items()},
        "per_class_AP": by_name(per_class[COCO_RANGE].mean(axis=0)),
        "per_class_AP50": by_name(per_class[REPORTED["AP50"]]),
        "per_class_AP40": by_name(per_class[REPORTED["AP40"]]),
        "boxes_per_class": {name: int(boxes[index]) for name, index in zip(names, present, strict=True)},
        "classes_without_boxes": [name for index, name in enumerate(CATEGORY_NAMES) if boxes[index] == 0],
    }


def _coco(records: Sequence[Record]) -> COCO:
    """Make pycocotools' index of records; its annotation ids start at 1, because it takes 0 for 'unmatched'."""
    annotations: list[dict[str, Any]] = []
    for record in records:
        for (x1, y1, x2, y2), category in zip(record.boxes_xyxy.tolist(), record.classes.tolist(), strict=True):
            width, height = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": category + 1,
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": record.image_id, "height": record.image_hw[0], "width": record.image_hw[1]} for record in records],
        "annotations": annotations,
        "categories": coco_categories(),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
