"""Annotation with the drawn lesions in place of pseudo boxes."""

import json
from pathlib import Path

import pytest

from d2rnet.cxr.annotation.oracle import oracle_annotation
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import load_annotation, write_annotation

ENTRY = {
    "id": "i1", "study_id": "s1", "subject_id": "p1", "image_path": ["i1.jpg"], "split": "test", "report": "a nodule.",
    "height": 100, "width": 80, "boxes": [[1, 2, 3, 4]], "scores": [0.6], "labels": ["Edema"],
}  # fmt: skip
LINE = {"image_id": "i1", "boxes": [{"class": "Nodule/Mass", "bbox_xyxy": [10.0, 20.0, 30.5, 60.25]}]}


def run(folder: Path, entry: dict, lines: list[dict]) -> dict:
    write_annotation(folder / "annotation.json", {entry["split"]: [entry]})
    write_jsonl(folder / "truth.jsonl", lines)
    oracle_annotation(annotation=folder / "annotation.json", truth=folder / "truth.jsonl", output=folder / "oracle")
    return load_annotation(folder / "oracle" / "annotation.json")


def test_boxes_are_replaced_and_all_else_is_kept(tmp_path):
    found = run(tmp_path, ENTRY, [LINE])
    boxes = {"boxes": [[10.0, 20.0, 20.5, 40.25]], "scores": [1.0], "labels": ["Nodule/Mass"]}
    assert found == {"train": [], "val": [], "test": [ENTRY | boxes]}
    counts = json.loads((tmp_path / "oracle" / "run.json").read_text())["counts"]
    assert counts == {"entries": 1, "boxes": 1, "priors": 0, "boxes_of_priors": 0}


PRIOR = {
    "study_id": "s0", "report": "an edema.", "image_id": "i0", "height": 200, "width": 90,
    "boxes": [[1, 2, 3, 4]], "scores": [0.7], "labels": ["Edema"],
}  # fmt: skip


def test_the_study_before_has_its_true_boxes_too(tmp_path):
    lesions = [{"class": "Pleural effusion", "bbox_xyxy": [5, 6, 15, 26]}, {"class": "Edema", "bbox_xyxy": [0, 0, 90, 200]}]
    (found,) = run(tmp_path, ENTRY | {"prior": PRIOR}, [LINE, {"image_id": "i0", "boxes": lesions}])["test"]
    boxes = {"boxes": [[5, 6, 10, 20], [0, 0, 90, 200]], "scores": [1.0, 1.0], "labels": ["Pleural effusion", "Edema"]}
    assert found["prior"] == PRIOR | boxes and found["labels"] == ["Nodule/Mass"]
    counts = json.loads((tmp_path / "oracle" / "run.json").read_text())["counts"]
    assert counts == {"entries": 1, "boxes": 1, "priors": 1, "boxes_of_priors": 2}


def test_an_entry_without_a_study_before_stays_without(tmp_path):
    assert run(tmp_path, ENTRY | {"prior": None}, [LINE])["test"][0]["prior"] is None


def test_an_image_without_lesions_loses_its_boxes(tmp_path):
    assert run(tmp_path, ENTRY, [{"image_id": "i1", "boxes": []}])["test"][0]["boxes"] == []


@pytest.mark.parametrize(
    ("entry", "lines", "message"),
    [
        (ENTRY, [LINE | {"image_id": "other"}], "entry i1 has 1 images, and .*truth.jsonl does not know its id"),
        (
            ENTRY | {"image_path": ["a", "b"], "heights": [100, 9], "widths": [80, 9], "box_image": [0]},
            [LINE],
            "entry i1 has 2 images, and .*truth.jsonl knows its id",
        ),
        (ENTRY | {"prior": PRIOR}, [LINE], "entry i1: the image of its study before, i0, has no line in .*truth.jsonl"),
        (
            ENTRY | {"prior": {key: value for key, value in PRIOR.items() if key != "image_id"}},
            [LINE],
            "entry i1: the image of its study before, None, has no line in .*Build the annotation again",
        ),
    ],
)
def test_other_cohorts_and_entries_of_several_images_are_refused(tmp_path, entry, lines, message):
    with pytest.raises(DatasetError, match=message):
        run(tmp_path, entry, lines)
