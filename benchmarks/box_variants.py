"""Other pseudo boxes from one trained detector: drawn at several scales, by both networks, fused; other filters.

No training of a detector: a source draws boxes, a filter keeps some of them. Thresholds (of fit-thresholds) and gates are
chosen for the micro F1 between "the image has a box of the class" and "its report names the class". Weighted boxes fusion is
that of ``ensemble-boxes`` (Solovyev et al., Image Vis Comput 2021): a box that one of k sources draws has 1/k of its score.

Shapes: n images, C = 22 classes; ``best`` (n, C) is the highest score of a class in an image, 0 without a box.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ensemble_boxes import weighted_boxes_fusion
from numpy.typing import NDArray

from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector.config import STUDENT_NAME, TEACHER_NAME
from d2rnet.cxr.detector.predict import detect, load_detector, make_batches
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.evaluation.agreement import class_thresholds, micro_f1
from d2rnet.findings.classes import CATEGORY_NAMES

Result = dict[str, Any]
Values = NDArray[np.float64]
Named = NDArray[np.bool_]
CLASSES = len(CATEGORY_NAMES)
MIN_REPORTS = AnnotationSettings().min_reports
FUSION_IOU = 0.55  # the library's default
SCALES = (0.75, 1.0, 1.25)
ONE_SCALE, TWO_NETWORKS = (1.0,), (TEACHER_NAME, STUDENT_NAME)
TRUTH = "truth"
# Source -> the networks and the scales whose boxes are fused.
SOURCES: Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "teacher": ((TEACHER_NAME,), ONE_SCALE),
    "student": ((STUDENT_NAME,), ONE_SCALE),
    "scales": ((TEACHER_NAME,), SCALES),
    "both": (TWO_NETWORKS, ONE_SCALE),
    "both_scales": (TWO_NETWORKS, SCALES),
}


@dataclass(frozen=True)
class Variant:
    """One way to make pseudo boxes.

    Attributes:
        source: of SOURCES; ``truth``: the drawn lesions, with score 1.
        rule: ``all``, ``fixed`` (one threshold), ``classes`` (those of fit-thresholds), or ``levelled``: scores are moved so
            that each class's threshold lies at 0.5, and boxes are kept down to ``least``.
        least: score of ``fixed`` and ``levelled``.
        gate: whether an image needs a greatest score, chosen on training reports, for any box.
    """

    source: str
    rule: str
    least: float = 0.0
    gate: bool = False


VARIANTS: Mapping[str, Variant] = {
    "teacher_0.5": Variant("teacher", "fixed", 0.5),
    "teacher_0.3": Variant("teacher", "fixed", 0.3),
    "teacher_0.2": Variant("teacher", "fixed", 0.2),
    "teacher_classes": Variant("teacher", "classes"),
    "teacher_classes_gate": Variant("teacher", "classes", gate=True),
    "teacher_levelled_0.2": Variant("teacher", "levelled", 0.2),
    "student_classes": Variant("student", "classes"),
    "scales_classes": Variant("scales", "classes"),
    "both_0.5": Variant("both", "fixed", 0.5),
    "both_classes": Variant("both", "classes"),
    "both_classes_gate": Variant("both", "classes", gate=True),
    "both_levelled_0.2": Variant("both", "levelled", 0.2),
    "both_scales_classes": Variant("both_scales", "classes"),
    "oracle": Variant(TRUTH, "all"),
}
BASELINE = "teacher_0.5"


@dataclass(frozen=True)
class Reported:
    """The n images of one split that have a report, and (n, C) what their reports name, doubts too."""

    image_ids: list[int]
    named: Named


@dataclass(frozen=True)
class Filter:
    """Which boxes are kept.

    Attributes:
        least: (C,) score that a box of each class needs.
        gate: what the greatest score of an image must reach for any of its boxes to be kept.
    """

    least: Values
    gate: float = 0.0

    def kept(self, results: Sequence[Result]) -> list[Result]:
        """Return the boxes that pass."""
        highest: dict[int, float] = defaultdict(float)
        for result in results:
            highest[result["image_id"]] = max(highest[result["image_id"]], result["score"])
        return [
            result
            for result in results
            if result["score"] >= self.least[result["category_id"] - 1] and highest[result["image_id"]] >= self.gate
        ]


def fixed(score: float) -> Filter:
    """Return the filter of one threshold for all classes."""
    return Filter(np.full(CLASSES, score))


def draw(
    records: Sequence[Record], folder: Path, network: str, scale: float, prediction: PredictionSettings
) -> dict[int, list[Result]]:
    """Let one network look at images that are resized to ``scale`` times the usual size; return image id -> its boxes."""
    model, cfg = load_detector(folder, network, "cpu", prediction)
    cfg.INPUT.MIN_SIZE_TEST = round(cfg.INPUT.MIN_SIZE_TEST * scale)
    cfg.INPUT.MAX_SIZE_TEST = round(cfg.INPUT.MAX_SIZE_TEST * scale)
    batches = make_batches(records, cfg, prediction.batch_images)
    images = [record for batch in batches for record in batch]
    return {record.image_id: found for record, found in zip(images, detect(model, cfg, batches, prediction), strict=True)}


def fuse(records: Sequence[Record], drawn: Sequence[Mapping[int, list[Result]]], *, floor: float) -> list[Result]:
    """Fuse the boxes of several draws, class by class; boxes that end below ``floor`` are left out."""
    if len(drawn) == 1:
        return [result for record in records for result in drawn[0][record.image_id]]
    fused = []
    for record in records:
        height, width = record.image_hw
        sizes = np.array([width, height, width, height], dtype=np.float64)
        lists = [found[record.image_id] for found in drawn]
        boxes, scores, classes = weighted_boxes_fusion(
            [_corners(found) / sizes for found in lists],
            [[result["score"] for result in found] for found in lists],
            [[result["category_id"] for result in found] for found in lists],
            iou_thr=FUSION_IOU,
        )
        fused += [
            {
                "image_id": record.image_id,
                "category_id": int(category),
                "bbox": [round(float(value), 2) for value in (*box[:2], *(box[2:] - box[:2]))],
                "score": round(float(score), 5),
            }
            for box, score, category in zip(boxes * sizes, scores, classes, strict=True)
            if score >= floor
        ]
    return fused


def _corners(found: Sequence[Result]) -> Values:
    boxes = np.array([result["bbox"] for result in found], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def best_scores(results: Sequence[Result], image_ids: Sequence[int]) -> Values:
    """Return (n, C) the highest score of each class in each image, 0 without a box."""
    rows = {image: row for row, image in enumerate(image_ids)}
    best = np.zeros((len(rows), CLASSES))
    for result in results:
        row = rows.get(result["image_id"])
        if row is not None:
            place = row, result["category_id"] - 1
            best[place] = max(best[place], result["score"])
    return best


def filter_of(variant: Variant, results: Sequence[Result], training: Reported) -> Filter:
    """Choose what a variant keeps of its source's boxes on the training reports."""
    if variant.rule == "classes":
        best = best_scores(results, training.image_ids)
        chosen = Filter(class_thresholds(best, training.named, min_reports=MIN_REPORTS))
    else:
        chosen = fixed(variant.least)
    if not variant.gate:
        return chosen
    return Filter(chosen.least, gate_of(results, chosen, training.image_ids, training.named))


def levelled(results: Sequence[Result], least: Values) -> list[Result]:
    """Stretch the scores below and above each class's threshold ``least`` (C,) linearly, so that it lies at 0.5."""
    moved = []
    for result in results:
        score, middle = result["score"], min(float(least[result["category_id"] - 1]), 0.99)
        new = 0.5 * score / middle if score < middle else 0.5 + 0.5 * (score - middle) / (1 - middle)
        moved.append({**result, "score": round(new, 5)})
    return moved


def variant_boxes(variant: Variant, sources: Mapping[str, list[Result]], training: Reported) -> dict[str, list[Result]]:
    """Return cohort -> the boxes that a variant keeps, from cohort -> those of its source.

    Args:
        variant: which one.
        sources: ``run`` and whatever other cohorts there are.
        training: what the training reports of ``run`` name.
    """
    if variant.rule == "levelled":
        least = class_thresholds(best_scores(sources["run"], training.image_ids), training.named, min_reports=MIN_REPORTS)
        sources = {cohort: levelled(results, least) for cohort, results in sources.items()}
    chosen = filter_of(variant, sources["run"], training)
    return {cohort: chosen.kept(results) for cohort, results in sources.items()}


def gate_of(results: Sequence[Result], filtered: Filter, image_ids: Sequence[int], named: Named) -> float:
    """Return what an image's greatest score must reach, of all boxes, for the best micro F1 of what a filter keeps."""
    highest = best_scores(results, image_ids).max(axis=1)
    claimed = best_scores(filtered.kept(results), image_ids) > 0
    gates = np.unique(np.append(highest, 0.0))
    scores = [micro_f1(named, claimed & (highest >= gate)[:, None]) for gate in gates]
    return float(gates[int(np.argmax(scores))])
