"""Detection scores: hand-made cases, and the files of evaluate_detector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2rnet.detector.coco_scores import coco_scores
from d2rnet.detector.data import Record
from d2rnet.errors import DatasetError
from d2rnet.evaluation import detection
from d2rnet.settings import default_settings


def record(image_id: int, boxes: list[list[float]], classes: list[int]) -> Record:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(image_id, f"s{image_id}", "test", Path("x.png"), (100, 100), corners, np.array(classes, np.int64))


def result(image_id: int, category_id: int, bbox: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


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


def test_classes_without_boxes_are_listed_and_enter_no_mean() -> None:
    two = record(2, [[0, 0, 10, 10]], [15])
    scores = coco_scores([ONE, two], [result(1, 4, [0, 0, 10, 10], 0.5), result(1, 1, [0, 0, 10, 10], 0.9)])
    assert scores["per_class_AP50"] == {"Cardiomegaly": 1.0, "Nodule/Mass": 0.0}
    assert scores["AP50"] == 0.5
    assert len(scores["classes_without_boxes"]) == 20
    assert "Aortic enlargement" in scores["classes_without_boxes"]


def test_no_detection_at_all_and_no_box_at_all() -> None:
    assert coco_scores([ONE], [])["AP50"] == 0
    assert coco_scores([record(1, [], [])], [])["AP50"] is None


@pytest.fixture
def labelled_test(tmp_path: Path) -> Path:
    from d2rnet.data.coco import write_coco

    image = {"id": 1, "file_name": "1.png", "height": 100, "width": 100, "source_id": "s1"}
    box = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    write_coco(tmp_path / "test.json", [image, {**image, "id": 2, "source_id": "s2"}], [box])
    return tmp_path / "test.json"


def test_metrics_of_both_networks_with_their_protocol(
    labelled_test: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {"student_final.pth": 4.5, "model_final.pth": 9.0}

    def score(records: list[Record], folder: Path, weights_name: str, *_: Any) -> dict[str, Any]:
        return coco_scores(records, [result(1, 4, [0, 0, widths[weights_name], 10], 0.9)])

    monkeypatch.setattr(detection, "score_network", score)
    for name in ("config.yaml", *widths):
        (tmp_path / name).write_text("x")
    detection.evaluate_detector(
        labelled_test=labelled_test, model=tmp_path, output=tmp_path / "out", device="cpu",
        settings=default_settings("detector.prediction"),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["student"]["AP40"], metrics["student"]["AP50"]) == (1.0, 0.0)
    assert (metrics["ema_teacher"]["AP50"], metrics["ema_teacher"]["AP75"]) == (1.0, 1.0)
    assert (metrics["n_images"], metrics["n_images_without_boxes"], metrics["n_boxes"]) == (2, 1, 1)
    assert metrics["protocol"]["split"] == "test"
    assert metrics["protocol"]["iou_thresholds"] == [0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["command"] == "evaluate-detector"


def test_a_test_split_without_boxes_is_refused(tmp_path: Path) -> None:
    from d2rnet.data.coco import write_coco

    write_coco(tmp_path / "test.json", [], [])
    with pytest.raises(DatasetError, match="0 images without any box; expected a labelled test split"):
        detection.evaluate_detector(
            labelled_test=tmp_path / "test.json", model=tmp_path, output=tmp_path / "out", device="cpu",
            settings=default_settings("detector.prediction"),
        )  # fmt: skip
