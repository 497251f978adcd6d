"""evaluate_detector: its metrics with their protocol, its figures, what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from detection_samples import random_case, result
from figure_size import breaks_the_rule
from PIL import Image

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.boxes.detection_figures import draw_figures, draw_precision_recall
from d2rnet.cxr.boxes.detection_scores import evaluate_results, figures_of, headlines
from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector import evaluate as detection
from d2rnet.cxr.detector.settings import EvaluateDetectorSettings
from d2rnet.errors import DatasetError
from d2rnet.evaluation.resampling import resample_counts

FIGURES = ("precision_recall", "froc", "reliability")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of evaluate_detector; the student's box has IoU 0.45 with the truth, the EMA teacher's 0.9."""
    widths = {"student_final.pth": 4.5, "model_final.pth": 9.0}

    def predict(records: list[Record], folder: Path, weights_name: str, *_: Any) -> list[dict[str, Any]]:
        return [result(1, 4, [0, 0, widths[weights_name], 10], 0.9)]

    monkeypatch.setattr(detection, "predict", predict)
    for name in ("config.yaml", *widths):
        (tmp_path / name).write_text("x")
    image = {"id": 1, "file_name": "1.png", "height": 100, "width": 100, "source_id": "s1", "split": "test"}
    box = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    write_coco(tmp_path / "test.json", [image, {**image, "id": 2, "source_id": "s2"}], [box])
    settings = EvaluateDetectorSettings().replaced(evaluation={"bootstrap_samples": 20})
    return {
        "labelled_test": tmp_path / "test.json", "model": tmp_path, "output": tmp_path / "out", "device": "cpu",
        "settings": settings,
    }  # fmt: skip


def test_metrics_of_both_networks_with_their_protocol(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "draw_figures", lambda *_: None)  # its own test below
    detection.evaluate_detector(**run)
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    assert (metrics["student"]["AP40"], metrics["student"]["AP50"]) == (1.0, 0.0)
    assert (metrics["ema_teacher"]["AP50"], metrics["ema_teacher"]["AP75"]) == (1.0, 1.0)
    assert metrics["teacher_minus_student"]["AP50"]["difference"] == 1.0
    assert metrics["ema_teacher"]["auroc_any_finding"] == 1.0
    assert (metrics["n_images"], metrics["n_images_without_boxes"], metrics["n_boxes"]) == (2, 1, 1)
    protocol = metrics["protocol"]
    assert protocol["split"] == "test"
    assert protocol["iou_thresholds"] == [0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert (protocol["voc_and_froc_iou_above"], protocol["size_longer_side_px"], protocol["bootstrap_samples"]) == (
        0.4,
        640,
        20,
    )
    record = json.loads((run["output"] / "run.json").read_text())
    assert record["command"] == "evaluate-detector"
    assert set(record["settings"]) == {"prediction", "evaluation"}
    assert record["seeds"] == {"bootstrap": 0}


def test_figures_are_drawn_twice_the_same(run: dict[str, Any]) -> None:
    detection.evaluate_detector(**run)
    folder = run["output"] / "figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}{s}" for n in FIGURES for s in (".png", ".svg"))
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    detection.evaluate_detector(**run)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    drawn = first["precision_recall.svg"].decode()
    assert ">Cardiomegaly</text>" in drawn and "AP50 1.00, 0.00; n 1" in drawn, "EMA teacher, student"
    assert ">n 1</text>" in first["reliability.svg"].decode(), "a bin of one box says so"


def test_figures_of_networks_that_find_nothing(tmp_path: Path) -> None:
    records, _ = random_case(5, seed=1)
    evaluated = dict.fromkeys(("student", "ema_teacher"), evaluate_results(records, []))
    counts = resample_counts(5, samples=10, seed=0)
    metrics = {name: figures_of(network, headlines(network, counts), counts) for name, network in evaluated.items()}
    draw_figures(tmp_path, evaluated, metrics)
    for name in FIGURES:
        assert breaks_the_rule(tmp_path / f"{name}.svg") == [], name
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 400 and picture.width in (1051, 2161)


def test_classes_are_drawn_in_the_order_of_their_ap(tmp_path: Path) -> None:
    records, found = random_case(30, seed=2)
    evaluated = dict.fromkeys(("student", "ema_teacher"), evaluate_results(records, found))
    counts = resample_counts(30, samples=10, seed=0)
    metrics = {name: figures_of(network, headlines(network, counts), counts) for name, network in evaluated.items()}
    draw_precision_recall(tmp_path / "curves", evaluated, metrics)
    drawn = re.findall(r">AP50 ([\d.]+), [\d.]+; n \d+</text>", (tmp_path / "curves.svg").read_text())
    assert len(drawn) > 1 and drawn == sorted(drawn, reverse=True)


def test_the_split_is_that_of_the_images_not_of_the_file_name(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "draw_figures", lambda *_: None)
    file = run["labelled_test"]
    file.write_text(file.read_text().replace('"test"', '"val"'))
    detection.evaluate_detector(**run)
    assert json.loads((run["output"] / "metrics.json").read_text())["protocol"]["split"] == "val"


def test_a_test_split_without_boxes_is_refused(run: dict[str, Any]) -> None:
    write_coco(run["labelled_test"], [], [])
    with pytest.raises(DatasetError, match="0 images without any box; expected a labelled test split"):
        detection.evaluate_detector(**run)
