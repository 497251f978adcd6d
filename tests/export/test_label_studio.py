"""Pre-annotations of Label Studio: each box where it is in its own image, in an interface that its own library accepts."""

import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from export_samples import REPORTS, entry, write_run

from d2rnet.cli import main
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.export.label_studio import export_label_studio, label_config
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import write_annotation


def exported(folder: Path, **changes) -> list[dict]:
    annotation, generated = write_run(folder)
    arguments = {
        "annotation": annotation,
        "split": "test",
        "generated": generated,
        "address": "/data/local-files/?d=",
        "least_score": 0.0,
    }
    export_label_studio(**arguments | changes, output=folder / "out")
    return json.loads((folder / "out" / "tasks.json").read_text(encoding="utf-8"))


def test_a_task_an_image_with_boxes_in_percent_of_it(tmp_path):
    first, second, third = exported(tmp_path)
    [box] = first["predictions"][0]["result"]
    assert box["value"] == {
        "x": 10.0, "y": 10.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["Pleural effusion"],
    }  # fmt: skip
    assert (box["original_width"], box["original_height"], box["score"]) == (200, 400, 0.75)
    assert [len(task["predictions"][0]["result"]) for task in (first, second, third)] == [1, 1, 2]
    small, whole = (region["value"] for region in third["predictions"][0]["result"])
    assert (small["x"], small["y"], small["width"], small["height"]) == (10.0, 10.0, 11.0, 20.0)
    assert (whole["width"], whole["height"]) == (100.0, 100.0)
    assert third["predictions"][0]["score"] == 0.375


def test_weak_boxes_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    tasks = exported(tmp_path, least_score=0.5)
    whole = exported(tmp_path)
    scores = [region["score"] for task in whole for region in task["predictions"][0]["result"]]
    kept = [region["score"] for task in tasks for region in task["predictions"][0]["result"]]
    assert kept == [score for score in scores if score >= 0.5] and len(kept) < len(scores)
    assert f"{len(scores) - len(kept)} boxes with a score below 0.5 are left out (--least-score)" in caplog.text
    with pytest.raises(ConfigError, match=r"--least-score 1\.5: expected a score from 0 to 1"):
        exported(tmp_path, least_score=1.5)


def test_image_is_found_below_the_address_and_no_patient_is_named(tmp_path):
    first, *_ = exported(tmp_path)
    assert first["data"]["image"] == "/data/local-files/?d=p%201/a.jpg"
    assert unquote(first["data"]["image"]).endswith(first["data"]["image_path"])
    assert first["data"]["findings"] == REPORTS[0]["hypothesis"]
    assert "patient-" not in (tmp_path / "out" / "tasks.json").read_text()


def test_command_takes_a_split_and_leaves_reports_out(tmp_path):
    annotation, _ = write_run(tmp_path)
    arguments = ["--annotation", str(annotation), "--split", "all", "--output", str(tmp_path / "out")]
    assert main(["export", "label-studio", *arguments]) == 0
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [task["data"]["id"] for task in tasks] == ["c", "a", "b", "b"]
    assert [task["data"]["findings"] for task in tasks] == [""] * 4
    assert tasks[0]["predictions"][0] == {
        "model_version": tasks[1]["predictions"][0]["model_version"],
        "score": 0.0,
        "result": [],
    }


def test_unknown_split_empty_split_and_formats_that_browsers_do_not_show_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--split valid: expected train, val, test or all"):
        exported(tmp_path, split="valid")
    with pytest.raises(DatasetError, match=r"annotation\.json: split 'val' holds no entry \(train 1, val 0, test 2\)"):
        exported(tmp_path, split="val")
    dicom = tmp_path / "dicom.json"
    write_annotation(dicom, {"test": [entry("a"), entry("d", image_path=["p/d.dcm"])]})
    with pytest.raises(DatasetError, match=r"1 of '\.dcm' among 2 images, such as p/d\.dcm; .*'d2rnet read --coco'"):
        exported(tmp_path, annotation=dicom)


def test_interface_has_every_class_once_and_the_names_that_tasks_use(tmp_path):
    root = ElementTree.fromstring(label_config())
    assert [label.get("value") for label in root.iter("Label")] == list(CATEGORY_NAMES)
    assert len({label.get("background") for label in root.iter("Label")}) == len(CATEGORY_NAMES)
    task = exported(tmp_path)[0]
    [rectangles], [image] = root.iter("RectangleLabels"), root.iter("Image")
    region = task["predictions"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == (rectangles.get("name"), image.get("name"))
    used = {element.get("value")[1:] for element in root.iter() if element.get("value", "").startswith("$")}
    assert used <= set(task["data"])


def test_label_studio_itself_accepts_interface_and_predictions(tmp_path):
    reason = "label-studio-sdk is not installed; it brings 0.4 GB and pins OpenCV"
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason=reason)
    tasks = exported(tmp_path)
    interface = sdk.LabelInterface((tmp_path / "out" / "labels.xml").read_text(encoding="utf-8"))
    interface.validate()
    for task in tasks:
        assert interface.validate_task({"data": task["data"]}) is True
        assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
    tasks[0]["predictions"][0]["result"][0]["value"]["rectanglelabels"] = ["Nodule of another table"]
    assert interface.validate_prediction(tasks[0]["predictions"][0], return_errors=True) != []
