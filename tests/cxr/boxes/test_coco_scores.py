"""COCO average precision: hand-made cases, and the same numbers as pycocotools."""

import contextlib
import io
import time
from typing import Any

import numpy as np
import pytest
from detection_samples import random_case, record, result
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2rnet.cxr.boxes.coco_scores import IOU_THRESHOLDS, coco_scores
from d2rnet.cxr.boxes.records import Record
from d2rnet.errors import DatasetError
from d2rnet.findings.classes import coco_categories

ONE = record(1, [[0, 0, 10, 10]], [3])


def test_a_perfect_detector() -> None:
    scores = coco_scores([ONE, record(2, [], [])], [result(1, 4, [0, 0, 10, 10], 0.9)])
    assert [scores[name] for name in ("AP", "AP40", "AP50", "AP75")] == [1, 1, 1, 1]
    assert scores["per_class_AP50"] == {"Cardiomegaly": 1.0}
    assert scores["boxes_per_class"] == {"Cardiomegaly": 1}


@pytest.mark.parametrize(
    ("width", "hits"),
    [(4.5, {"AP40"}), (5.5, {"AP40", "AP50"}), (8.0, {"AP40", "AP50", "AP75"})],
)
def test_the_iou_decides(width: float, hits: set[str]) -> None:
    scores = coco_scores([ONE], [result(1, 4, [0, 0, width, 10], 0.9)])  # IoU = width / 10
    assert {name for name in ("AP40", "AP50", "AP75") if scores[name] == 1} == hits


def test_a_false_positive_on_a_normal_image_counts() -> None:
    right, wrong = result(1, 4, [0, 0, 10, 10], 0.5), result(2, 4, [0, 0, 10, 10], 0.9)
    scores = coco_scores([ONE, record(2, [], [])], [right, wrong])
    assert scores["AP50"] == pytest.approx(0.5)  # precision 1/2 at every recall


def test_half_of_the_truth_found_first_gives_51_of_101_recall_points() -> None:
    scores = coco_scores([ONE, record(2, [[0, 0, 10, 10]], [3])], [result(1, 4, [0, 0, 10, 10], 0.5)])
    assert scores["AP50"] == pytest.approx(51 / 101, abs=1e-6)


def test_a_second_box_on_the_same_truth_is_a_false_positive() -> None:
    two = record(2, [[0, 0, 10, 10]], [3])
    boxes = [result(1, 4, [0, 0, 10, 10], 0.9), result(1, 4, [0, 0, 10, 9], 0.8), result(2, 4, [0, 0, 10, 10], 0.7)]
    expected = (51 * 1 + 50 * 2 / 3) / 101  # hit, double, hit
    assert coco_scores([ONE, two], boxes)["AP50"] == pytest.approx(expected, abs=1e-6)


def test_a_detection_whose_best_truth_is_taken_takes_the_next() -> None:
    """Unlike PASCAL VOC, where it would be a double."""
    pair = record(1, [[0, 0, 10, 10], [1, 0, 11, 10]], [3, 3])
    both = [result(1, 4, [0, 0, 10, 10], 0.9), result(1, 4, [0, 0, 10, 10], 0.8)]
    assert coco_scores([pair], both)["AP50"] == 1


def test_classes_without_boxes_are_listed_and_enter_no_mean() -> None:
    two = record(2, [[0, 0, 10, 10]], [15])
    scores = coco_scores([ONE, two], [result(1, 4, [0, 0, 10, 10], 0.5), result(1, 1, [0, 0, 10, 10], 0.9)])
    assert scores["per_class_AP50"] == {"Cardiomegaly": 1.0, "Nodule/Mass": 0.0}
    assert scores["AP50"] == 0.5
    assert len(scores["classes_without_boxes"]) == 20
    assert "Aortic enlargement" in scores["classes_without_boxes"]


def test_no_detection_at_all_and_no_box_at_all() -> None:
    assert coco_scores([ONE], [])["AP50"] == 0
    nothing = coco_scores([record(1, [], [])], [result(1, 4, [0, 0, 10, 10], 0.9)])
    assert [nothing[name] for name in ("AP", "AP50", "AP_small")] == [None, None, None]
    assert coco_scores([], [])["AP50"] is None


@pytest.mark.parametrize(("side", "size"), [(31, "small"), (33, "medium"), (95, "medium"), (97, "large")])
@pytest.mark.parametrize("longer", [640, 320])
def test_sizes_are_those_in_an_image_of_640_px(side: int, size: str, longer: int) -> None:
    edge = side * longer / 640
    image = record(1, [[0, 0, edge, edge]], [3], (longer, longer // 2))
    scores = coco_scores([image], [result(1, 4, [0, 0, edge, edge], 0.9)])
    assert scores["boxes_per_size"] == {"small": 0, "medium": 0, "large": 0, size: 1}
    assert {name for name in ("small", "medium", "large") if scores[f"AP_{name}"] == 1} == {size}


def test_detections_of_an_unknown_image_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"1 image\(s\) that are not scored \(7\)"):
        coco_scores([ONE], [result(7, 4, [0, 0, 1, 1], 0.9)])


@pytest.mark.parametrize(
    ("category_id", "width", "score"), [(0, 10, 0.5), (23, 10, 0.5), (4, 10, 1.5), (4, 10, np.nan), (4, np.inf, 0.5)]
)
def test_detections_that_cannot_be_are_refused(category_id: int, width: float, score: float) -> None:
    """Classes counted from 0 are the usual slip: without a check they would only score low."""
    good = result(1, 4, [0, 0, 10, 10], 0.9)
    with pytest.raises(DatasetError, match=r"1 bad record\(s\), the first is record 2: .*expected category_id 1 to 22"):
        coco_scores([ONE], [good, result(1, category_id, [0, 0, width, 10], score)])


def pycocotools_scores(records: list[Record], results: list[dict[str, Any]]) -> dict[str, float]:
    """The same figures by pycocotools, its areas those of an image with a longer side of 640 px."""
    scale = {item.image_id: (640 / max(item.image_hw)) ** 2 for item in records}
    truth, found = COCO(), None
    annotations: list[dict[str, Any]] = []
    for item in records:
        for (x1, y1, x2, y2), label in zip(item.boxes_xyxy.tolist(), item.classes.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": item.image_id, "category_id": label + 1, "bbox": box,
                                "area": box[2] * box[3] * scale[item.image_id], "iscrowd": 0})  # fmt: skip
    images = [{"id": item.image_id} for item in records]
    truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": coco_categories()}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([dict(item) for item in results])
        for item in found.dataset["annotations"]:
            item["area"] *= scale[item["image_id"]]
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.iouThrs = np.array(IOU_THRESHOLDS)
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0]  # (IoU, recall, class, area); -1 where a class has no box
    of = {"AP": (slice(1, None), 0), "AP50": (1, 0), "AP75": (6, 0), "AP40": (0, 0)}
    of |= {f"AP_{name}": (slice(1, None), area) for area, name in enumerate(("small", "medium", "large"), start=1)}
    figures = {}
    for name, (ious, area) in of.items():
        values = precision[ious][..., area]
        figures[name] = float(values[values > -1].mean())
    return figures


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("score_decimals", [5, 1], ids=["few ties", "many ties"])
def test_equal_to_pycocotools(seed: int, score_decimals: int) -> None:
    records, results = random_case(25, seed=seed, score_decimals=score_decimals)
    ours, theirs = coco_scores(records, results), pycocotools_scores(records, results)
    assert all(0 < value < 1 for value in theirs.values())
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def test_more_than_a_hundred_boxes_of_a_class_are_cut_as_pycocotools_cuts_them() -> None:
    records = [record(1, [[0, 0, 10, 10]], [3])]
    results = [result(1, 4, [50, 50, 10, 10], 0.9 - place / 1000) for place in range(100)]
    results.append(result(1, 4, [0, 0, 10, 10], 0.1))
    assert coco_scores(records, results)["AP50"] == 0
    assert coco_scores(records, results[1:])["AP50"] == pytest.approx(0.01)


def test_a_large_test_split_takes_seconds() -> None:
    records, results = random_case(300, seed=5, classes=22, boxes_per_image=100)
    start = time.process_time()
    coco_scores(records, results)
    assert time.process_time() - start < 6  # under 1 s; 3,000 images take ten times that
