"""Detection scores: hand-made cases, and the files of evaluate_detector."""

import json
from pathlib import Path
from typing import Any

import pytest
from detection_samples import result

from d2rnet.detector.coco_scores import coco_scores
from d2rnet.detector.data import Record
from d2rnet.errors import DatasetError
from d2rnet.evaluation import detection
from d2rnet.settings import default_settings


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
