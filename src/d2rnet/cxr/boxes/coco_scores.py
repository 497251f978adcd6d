"""COCO average precision of detections, with IoU 0.4 (VinBigData's) beside the usual ones; equal to pycocotools (tested).

Sizes: COCO's limits of 32 x 32 and 96 x 96 px hold in an image scaled to a longer side of 640 px, the size of a usual COCO
image. So a class of size is a share of the radiograph and does not change with the resolution of the conversion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.average_precision import Ranking, coco_ap
from d2rnet.cxr.boxes.matching import BoxTable, CocoMatches, detection_table, match_coco, truth_table
from d2rnet.cxr.boxes.records import Record
from d2rnet.findings.classes import CATEGORY_NAMES

IOU_THRESHOLDS = (0.4, *np.linspace(0.5, 0.95, 10).tolist())
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
REPORTED = {"AP40": 0, "AP50": 1, "AP75": 6}
COCO_RANGE = range(1, len(IOU_THRESHOLDS))
DECIMALS = 6


@dataclass(frozen=True)
class Scored:
    """Detections of one network matched with the truth: all that any of its scores needs.

    Attributes:
        images: number of images looked at.
        truth: M truth boxes.
        found: N detections.
        matches: outcome of COCO's rule, areas in the order of AREA_RANGES, IoUs in that of IOU_THRESHOLDS.
    """

    images: int
    truth: BoxTable
    found: BoxTable
    matches: CocoMatches

    def ranking(self, category: int, thresholds: list[int], area: int = 0) -> Ranking:
        """Detections of a class, best first; ties in the order of the images.

        Args:
            category: 0-based class.
            thresholds: indices into IOU_THRESHOLDS; several of them for the area range "all" only, as detections that do
                not count because of their area depend on the threshold.
            area: index into AREA_RANGES.
        """
        counted = (self.found.classes == category) & ~self.matches.ignored[area, thresholds[0]]
        places = np.flatnonzero(counted)
        places = places[np.argsort(-self.found.scores[places], kind="stable")]
        truth = (self.truth.classes == category) & ~self.matches.truth_ignored[area]
        hits = self.matches.hit[area, thresholds][:, places]
        return Ranking(self.found.rows[places], hits, self.truth.rows[truth])

    @property
    def present(self) -> NDArray[np.int64]:
        """Classes (0-based) with a truth box."""
        return np.unique(self.truth.classes)

    def per_class(self, thresholds: Sequence[int], weights: NDArray[np.float32], area: int = 0) -> NDArray[np.float64]:
        """(C, T, S) AP of the present classes at each threshold; NaN where a weighting leaves a class no truth."""
        groups = [list(thresholds)] if area == 0 else [[threshold] for threshold in thresholds]
        values = [
            np.concatenate([coco_ap(self.ranking(category, group, area), weights) for group in groups])
            for category in self.present
        ]
        return np.array(values).reshape(len(self.present), len(thresholds), weights.shape[1])


def match_results(
    records: Sequence[Record], results: Sequence[dict[str, Any]], areas: Sequence[str] = tuple(AREA_RANGES)
) -> Scored:
    """Match COCO results with the boxes of the records.

    Args:
        records: every image that was looked at, those without boxes too.
        results: COCO results in the frame of the records.
        areas: names of the area ranges that are needed, "all" first.

    Raises:
        DatasetError: a result of an image that is not among the records.
    """
    truth = truth_table(records)
    found = detection_table(records, results)
    matches = match_coco(truth, found, IOU_THRESHOLDS, [AREA_RANGES[name] for name in areas])
    return Scored(len(records), truth, found, matches)


def unweighted(images: int) -> NDArray[np.float32]:
    """(n, 1) the weighting in which each image counts once."""
    return np.ones((images, 1), dtype=np.float32)


def mean_over_classes(per_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...) mean of (C, ...) values over the classes that have one; NaN where none has."""
    known = np.isfinite(per_class)
    total = np.where(known, per_class, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(per_class.shape[1:], np.nan), where=known.any(axis=0))


def as_figure(value: float | np.floating | NDArray[np.float64]) -> float | None:
    """Round a value for a file; None where there is none."""
    return round(float(value), DECIMALS) if np.isfinite(value) else None


def coco_scores(records: Sequence[Record], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Score detections on images; see :func:`scores_of`."""
    return scores_of(match_results(records, results))


def scores_of(scored: Scored) -> dict[str, Any]:
    """Compute all COCO figures of matched detections.

    Returns:
        ``AP`` (mean over IoU 0.50:0.05:0.95), ``AP50``, ``AP75``, ``AP40``, ``AP_small``, ``AP_medium``, ``AP_large``, each a
        mean over the classes that have such a box, in [0, 1], None if none has; ``per_class_AP``, ``per_class_AP50``,
        ``per_class_AP75``, ``per_class_AP40`` (class name -> value); ``boxes_per_class``; ``boxes_per_size``;
        ``classes_without_boxes``, which enter no mean.
    """
    once = unweighted(scored.images)
    by_iou = scored.per_class(range(len(IOU_THRESHOLDS)), once)[:, :, 0]  # (C, T)
    per_class = {"AP": by_iou[:, COCO_RANGE].mean(axis=1), **{name: by_iou[:, row] for name, row in REPORTED.items()}}
    sizes = {f"AP_{name}": scored.per_class(COCO_RANGE, once, area).mean(axis=(1, 2)) for area, name in _sizes()}
    boxes = np.bincount(scored.truth.classes, minlength=len(CATEGORY_NAMES))
    names = [CATEGORY_NAMES[index] for index in scored.present]
    return {
        **{name: as_figure(mean_over_classes(values)) for name, values in {**per_class, **sizes}.items()},
        **{f"per_class_{name}": _by_name(names, values) for name, values in per_class.items()},
        "boxes_per_class": {name: int(boxes[index]) for name, index in zip(names, scored.present, strict=True)},
        "boxes_per_size": {name: int((~scored.matches.truth_ignored[area]).sum()) for area, name in _sizes()},
        "classes_without_boxes": [name for index, name in enumerate(CATEGORY_NAMES) if boxes[index] == 0],
    }


def _sizes() -> Iterator[tuple[int, str]]:
    """Index and name of the area ranges other than "all"."""
    return ((area, name) for area, name in enumerate(AREA_RANGES) if name != "all")


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: as_figure(value) for name, value in zip(names, values, strict=True)}
