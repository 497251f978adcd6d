"""annotation.json: what is written is read back; another schema is refused with the entry's name."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import load_annotation, write_annotation


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "study_id": "s1",
        "subject_id": "10",
        "image_path": ["files/a.jpg"],
        "split": "train",
        "report": "Herzgröße normal \u2013 no “effusion”.",
        "height": 400,
        "width": 100,
        "boxes": [[20.0, 40.0, 40.5, 120.0], [0, 0, 100, 400]],
        "scores": [0.9, 1],
        "labels": ["Cardiomegaly", "ILD"],
    } | changes


def several(**changes: Any) -> dict[str, Any]:
    images = {"image_path": ["a.jpg", "b.jpg"], "heights": [400, 50], "widths": [100, 60], "box_image": [1, 0]}
    return entry(boxes=[[0, 0, 60, 50], [50, 300, 50, 100]], **images) | changes


def test_what_is_written_is_read_back_one_entry_a_line(tmp_path: Path) -> None:
    path = tmp_path / "annotation.json"
    train = [entry(), entry(id="b", boxes=[], scores=[], labels=[]), several(id="c")]
    test = [entry(id="d", split="test")]
    write_annotation(path, {"test": iter(test), "train": iter(train)})
    assert load_annotation(path) == {"train": train, "val": [], "test": test}
    assert json.loads(path.read_text(encoding="utf-8"))["val"] == []
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5 + len(train) + len(test)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "annotation.json"
    write_annotation(path, {"train": [entry()]})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_annotation(path, {"train": [entry(), entry(scores=[float("nan"), 1])]})
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["annotation.json"]


def test_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="d2rnet build-annotation"):
        load_annotation(tmp_path / "annotation.json")


def test_splits_that_are_absent_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"test": [entry(split="test")]}))
    assert {split: len(entries) for split, entries in load_annotation(path).items()} == {"train": 0, "val": 0, "test": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "got a list; expected an object with the keys train, val, test"),
        ({"images": [], "annotations": []}, "got keys 'images', 'annotations'"),
        ({"train": [], "validate": []}, "unknown split validate"),
        ({"train": {}}, "train: got a dict; expected a list"),
        ({"train": ["a.jpg"]}, r"train\[0\] \(not an object\): got a str"),
        ({"train": [entry(), entry()]}, r"train\[1\]: id 'a' occurs twice"),
    ],
)
def test_another_document_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        load_annotation(path)


def test_r2gens_own_file_without_boxes_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "annotation.json"
    r2gen = {"id": "a", "study_id": 1, "subject_id": 2, "report": "x", "image_path": ["a.jpg"], "split": "train"}
    path.write_text(json.dumps({"train": [r2gen], "val": [], "test": []}))
    with pytest.raises(DatasetError, match=r"train\[0\] \(a\): lacks boxes, scores, labels, height, width .*source r2gen"):
        load_annotation(path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(study_id=50414267), "study_id is 50414267; expected a string"),
        (entry(split="val"), "split is 'val' but the entry is listed under 'train'"),
        (entry(image_path="files/a.jpg"), "image_path is a str; expected a list"),
        (entry(image_path=[]), "image_path is"),
        (entry(scores=[0.9]), "expected one score and one label a box"),
        (entry(height=0), "expected positive whole pixels"),
        (entry(width=100.5), "expected positive whole pixels"),
        (entry(boxes=[[20, 40, 40, 120], [0, 0, 10]]), r"box 1 is \[0, 0, 10\]; expected \[x, y, width, height\]"),
        (entry(boxes=[[20, 40, 40, 120], [0, 0, 0, 10]]), "box 1 .* a positive width and height"),
        (entry(boxes=[[20, 40, 40, 120], [0, 0, float("nan"), 10]]), "box 1 .* finite numbers"),
        (entry(boxes=[[20, 40, 40, 120], [0, 0, 101.5, 10]]), "box 1 .*outside its image of height 400 and width 100"),
        (entry(boxes=[[20, 40, 40, 120], [-2, 0, 10, 10]]), "box 1 .*outside its image"),
        (entry(boxes=[[20, 40, 40, 120], ["0", 0, 10, 10]]), "box 1"),
        (entry(scores=[0.9, 1.2]), r"score 1 is 1.2; expected a number in \[0, 1\]"),
        (entry(scores=[float("nan"), 1]), "score 0 is nan"),
        (entry(labels=["Cardiomegaly", "cardiomegaly"]), "label 1 is 'cardiomegaly'. did you mean 'Cardiomegaly'"),
        (entry(labels=["Cardiomegaly", 4]), "label 1 is 4"),
        ({key: value for key, value in several().items() if key != "box_image"}, "lacks box_image"),
        (several(heights=[400]), "heights is .* expected one number for each of 2 images"),
        (several(box_image=[0]), "expected one image index for each of 2 boxes"),
        (several(box_image=[0, 2]), r"expected indices 0\.\.1"),
        (several(box_image=[0, 1]), "box 1 .*outside its image of height 50 and width 60"),
    ],
)
def test_bad_entry_is_named(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"train": [entry(id="good"), bad]}))
    with pytest.raises(DatasetError, match=rf"train\[1\] \(a\): .*{message}"):
        load_annotation(path)
