"""Calibrated thresholds: choices worked out by hand, classes with few boxes, the split that they may be chosen on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_samples import record, result

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.detector import calibrate as threshold_calibration
from d2rnet.cxr.detector.calibrate import calibrate_classes, calibrate_thresholds, check_split, choose
from d2rnet.cxr.detector.settings import CalibrateThresholdsSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_NAMES

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
HITS = np.array([True, False, True, True, False])  # precision 1, 1/2, 2/3, 3/4, 3/5
BOX, FAR = [0, 0, 10, 10], [50, 50, 10, 10]


@pytest.mark.parametrize(
    ("wanted", "threshold", "precision", "recall", "kept"),
    [(0.7, 0.6, 0.75, 0.75, 4), (0.6, 0.5, 0.6, 0.75, 5), (0.75, 0.6, 0.75, 0.75, 4), (0.8, 0.9, 1.0, 0.25, 1)],
)
def test_lowest_score_with_the_wanted_precision(
    wanted: float, threshold: float, precision: float, recall: float, kept: int
) -> None:
    choice = choose(SCORES, HITS, 4, wanted=wanted)
    assert (choice.threshold, choice.precision, choice.recall, choice.boxes_kept) == (threshold, precision, recall, kept)
    assert choice.reached and choice.val_boxes == 4


def test_boxes_of_one_score_are_kept_or_dropped_together() -> None:
    choice = choose(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 2, wanted=0.9)
    assert (choice.threshold, choice.boxes_kept) == (0.9, 1)  # a cut between the two boxes of 0.5 would reach it, too


def test_a_precision_that_is_never_reached_gives_the_highest_one() -> None:
    choice = choose(SCORES, ~HITS, 4, wanted=0.7)  # precision 0, 1/2, 1/3, 1/4, 2/5
    assert (choice.threshold, choice.precision, choice.reached) == (0.8, 0.5, False)


def cohort() -> tuple[list[Any], list[dict[str, Any]]]:
    """Three Cardiomegaly boxes (class 3), one of Nodule/Mass (15); hits at 0.9 and 0.6, misses at 0.8 and 0.7."""
    records = [replace(record(number, [[0, 0, 10, 10]], [3]), split="val") for number in (1, 2, 3)]
    records.append(replace(record(4, [[0, 0, 10, 10]], [15]), split="val"))
    results = [result(1, 4, BOX, 0.9), result(2, 4, FAR, 0.8), result(4, 16, FAR, 0.7), result(3, 4, BOX, 0.6)]
    return records, results


def test_classes_with_few_boxes_take_the_pooled_threshold() -> None:
    chosen = calibrate_classes(*cohort(), precision=0.6, min_boxes=3)
    own, rare = chosen["classes"]["Cardiomegaly"], chosen["classes"]["Nodule/Mass"]
    assert (own["threshold"], own["precision"], own["own"]) == (0.6, pytest.approx(2 / 3, abs=1e-6), True)
    assert (chosen["pooled"]["threshold"], chosen["pooled"]["val_boxes"]) == (0.9, 4)  # pooled: 1, 1/2, 1/3, 1/2
    assert (rare["threshold"], rare["val_boxes"], rare["boxes_kept"], rare["precision"], rare["own"]) == (
        0.9,
        1,
        0,
        None,
        False,
    )
    assert set(chosen["classes"]) == set(CATEGORY_NAMES)
    assert set(chosen["pooled_classes"]) == set(CATEGORY_NAMES) - {"Cardiomegaly"}
    assert chosen["unreached_classes"] == []


def test_classes_below_the_wanted_precision_are_listed() -> None:
    chosen = calibrate_classes(*cohort(), precision=0.9, min_boxes=1)
    assert chosen["unreached_classes"] == ["Nodule/Mass"]
    assert chosen["classes"]["Nodule/Mass"]["threshold"] == 0.7
    assert chosen["classes"]["Edema"] == {
        "threshold": 0.9, "precision": None, "recall": None, "val_boxes": 0, "boxes_kept": 0, "reached": False, "own": False,
    }  # fmt: skip


def test_a_detector_that_finds_nothing() -> None:
    with pytest.raises(DatasetError, match=r"finds nothing on the validation split.*score_floor"):
        calibrate_classes(cohort()[0], [], precision=0.7, min_boxes=1)


@pytest.mark.parametrize("split", ["test", "train", ""])
def test_other_splits_are_refused(split: str) -> None:
    records, _ = cohort()
    records[2] = replace(records[2], split=split)
    with pytest.raises(
        DatasetError, match=rf"val\.json: 1 image\(s\) of another split: s3 \({split or 'none'}\); expected split 'val'"
    ):
        check_split(records, Path("val.json"))


def test_file_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [
        {"id": number, "file_name": "x.png", "height": 100, "width": 100, "source_id": f"s{number}", "split": "val"}
        for number in (1, 2, 3, 4)
    ]
    boxes = [{"id": n, "image_id": n, "category_id": 4 if n < 4 else 16, "bbox": BOX, "area": 100} for n in (1, 2, 3, 4)]
    write_coco(tmp_path / "val.json", images, boxes)
    for name in ("config.yaml", "model_final.pth"):
        (tmp_path / name).write_text("x")
    asked = []
    monkeypatch.setattr(threshold_calibration, "predict", lambda *arguments: asked.append(arguments[2]) or cohort()[1])
    settings = CalibrateThresholdsSettings().replaced(calibration={"wanted_precision": 0.6, "min_boxes": 3})
    keywords = {"labelled_val": tmp_path / "val.json", "model": tmp_path, "output": tmp_path / "out", "device": "cpu"}
    calibrate_thresholds(**keywords, settings=settings)
    written = read_json(tmp_path / "out" / "thresholds.json")
    assert asked == ["model_final.pth"]  # the EMA teacher draws the pseudo boxes
    assert (written["split"], written["wanted_precision"], written["min_boxes"], written["iou"]) == ("val", 0.6, 3, 0.5)
    assert written["classes"]["Cardiomegaly"]["threshold"] == 0.6
    assert len(written["detector"]["sha256"]) == 64
    run = read_json(tmp_path / "out" / "run.json")
    assert run["counts"] == {
        "images": 4, "boxes": 4, "classes_with_the_pooled_threshold": 21, "classes_below_the_wanted_precision": 0,
    }  # fmt: skip
    assert set(run["settings"]) == {"prediction", "calibration"}
    write_coco(tmp_path / "val.json", [{**images[0], "split": "test"}], boxes[:1])
    with pytest.raises(DatasetError, match=r"of another split: s1 \(test\)"):
        calibrate_thresholds(**keywords, settings=settings)
