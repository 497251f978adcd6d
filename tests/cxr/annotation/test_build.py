"""build_annotation on a hand-computable source: frames, filter, order, counts and contradictions."""

from pathlib import Path
from typing import Any

import pytest

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import load_annotation


def record(image_id: int, score: float, bbox: list[float], category_id: int = 4) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def test_boxes_are_scaled_to_original_pixels_by_axis_and_joined_with_the_report(inputs: Any) -> None:
    annotation, _ = inputs.build()
    assert list(annotation) == ["train", "val", "test"]
    assert annotation["train"][1] == {
        "id": "a", "study_id": "s1", "subject_id": "10", "image_path": ["files/a.jpg"], "split": "train",
        "report": "Heart size normal in s1.", "height": 400, "width": 100,
        "boxes": [[20.0, 40.0, 40.0, 120.0]], "scores": [0.9], "labels": ["Cardiomegaly"],
    }  # fmt: skip
    assert annotation["train"][0]["id"] == "b"  # order of the report's images
    assert annotation["train"][0]["boxes"] == [[0.0, 0.0, 100.0, 400.0]]
    assert annotation["train"][0]["labels"] == ["Nodule/Mass"]
    assert [entry["id"] for entry in annotation["val"]] == ["d"]
    assert annotation["val"][0]["boxes"] == []
    assert annotation["test"] == []


def test_every_box_image_and_study_is_accounted_for(inputs: Any) -> None:
    inputs.shards[1] += [
        record(3, 0.9, [1, 1, 5, 5]),  # image whose study has no report
        record(5, 0.9, [1, 1, 5, 5]),  # image of an extra folder
        record(4, 0.7, [1, 1, 5, 5], 1),
        record(4, 0.7, [1, 1, 5, 5], 1),  # exact repeat
        record(4, 0.8, [1, 1, 5, 5], 2),
        record(4, 0.1, [1, 1, 5, 5], 2),
    ]
    annotation, counts = inputs.build(max_boxes=1)
    assert counts["images"] == {
        "in": 5, "extra_unlabelled": 1, "with_report": 3, "without_report": 2, "listed_by_a_report_but_not_converted": 1,
    }  # fmt: skip
    assert counts["studies"] == {"with_report": 3, "with_report_but_no_image": 1, "with_report_without_words": 0}
    boxes = counts["boxes"]
    assert boxes["below_threshold_by_class"] == {"Atelectasis": 1, "Cardiomegaly": 1}
    assert boxes["kept_by_class"] == {"Atelectasis": 1, "Cardiomegaly": 1, "Nodule/Mass": 1}
    dropped = ("duplicates", "below_threshold", "under_a_hundredth_pixel", "above_max_boxes", "on_images_without_report")
    assert [boxes[key] for key in dropped] == [1, 2, 0, 1, 2]
    assert boxes["predicted"] == sum(boxes[key] for key in dropped) + boxes["kept"] == 9
    assert boxes["images_with_predictions"] == 5
    assert counts["entries"] == {"train": 2, "val": 1, "test": 0}
    assert annotation["val"][0]["labels"] == ["Atelectasis"]  # the best of two
    run = read_json(inputs.folder / "out" / "run.json")
    assert run["counts"] == counts
    assert set(run["inputs"]) == {"unlabelled", "reports", "predictions_1", "predictions_2"}


def test_reports_without_a_word_are_left_out_and_counted(inputs: Any) -> None:
    """One of them in the test split stopped the run after both trainings."""
    inputs.reports[0]["report"] = "___ ."
    annotation, counts = inputs.build()
    left = {entry["study_id"] for part in annotation.values() for entry in part}
    assert inputs.reports[0]["study_id"] not in left and len(left) == 1
    assert counts["studies"] == {"with_report": 3, "with_report_but_no_image": 1, "with_report_without_words": 1}
    assert counts["images"]["with_report"] == sum(counts["entries"].values())


def test_score_equal_to_the_threshold_is_kept_and_classes_have_their_own(inputs: Any) -> None:
    inputs.shards = [[record(1, 0.7, [1, 1, 5, 5]), record(1, 0.7, [1, 1, 6, 6], 5), record(1, 0.69, [1, 1, 7, 7], 5)]]
    annotation, _ = inputs.build(score_threshold=0.9, class_score_thresholds={"Clavicle fracture": 0.7})
    assert annotation["train"][1]["labels"] == ["Clavicle fracture"]
    assert annotation["train"][1]["boxes"] == [[2.0, 4.0, 12.0, 24.0]]


def test_boxes_are_listed_best_first_whatever_the_order_of_files(inputs: Any) -> None:
    boxes = [record(1, 0.6, [1, 1, 5, 5]), record(1, 0.95, [2, 2, 5, 5]), record(1, 0.8, [3, 3, 5, 5])]
    inputs.shards = [boxes, [record(2, 0.7, [1, 1, 2, 2])]]
    forward, _ = inputs.build()
    inputs.shards = [[record(2, 0.7, [1, 1, 2, 2])], boxes[::-1]]
    backward, _ = inputs.build()
    assert forward == backward
    assert forward["train"][1]["scores"] == [0.95, 0.8, 0.6]
    assert [xywh[0] for xywh in forward["train"][1]["boxes"]] == [4.0, 6.0, 2.0]


def test_study_entries_hold_all_images_and_say_whose_each_box_is(inputs: Any) -> None:
    inputs.images[0] |= {"source_height": 200, "source_width": 200}
    annotation, counts = inputs.build(entry="study")
    study = annotation["train"][0]
    assert study["id"] == study["study_id"] == "s1"
    assert study["image_path"] == ["files/b.jpg", "files/a.jpg"]
    assert study["heights"] == [400, 200] and study["widths"] == [100, 200]
    assert study["box_image"] == [0, 1]
    assert study["boxes"] == [[0.0, 0.0, 100.0, 400.0], [40.0, 20.0, 80.0, 60.0]]
    assert "box_image" not in annotation["val"][0]
    assert counts["entries"] == {"train": 1, "val": 1, "test": 0}
    assert load_annotation(inputs.folder / "out" / "annotation.json")["train"] == annotation["train"]


def test_zero_boxes_and_zero_max_boxes_are_valid(inputs: Any) -> None:
    inputs.shards = [[], []]
    annotation, counts = inputs.build()
    assert counts["entries_without_boxes"] == counts["entries"] == {"train": 2, "val": 1, "test": 0}
    inputs.shards = [[record(1, 0.9, [10, 10, 20, 30])]]
    annotation, counts = inputs.build(max_boxes=0)
    assert annotation["train"][1]["boxes"] == [] and counts["boxes"]["above_max_boxes"] == 1


def test_box_within_a_pixel_of_the_border_is_clipped(inputs: Any) -> None:
    inputs.shards = [[record(1, 0.9, [-0.5, 90, 51, 10.75])]]
    annotation, _ = inputs.build()
    assert annotation["train"][1]["boxes"] == [[0.0, 360.0, 100.0, 40.0]]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (record(1, 0.9, [40, 10, 20, 30]), "box_outside_image"),
        (record(1, 0.9, [10, 10, 0, 30]), "bad_box"),
        (record(1, 0.9, [10, 10, float("nan"), 30]), "bad_box"),
        (record(1, 1.01, [10, 10, 20, 30]), "bad_score"),
        (record(1, float("nan"), [10, 10, 20, 30]), "bad_score"),
        (record(99, 0.9, [10, 10, 20, 30]), "unknown_image"),
        (record(1, 0.9, [10, 10, 20, 30], 23), "unknown_class"),
        (record(1, 0.9, [10, 10, 20, 30], 0), "unknown_class"),
    ],
)
def test_bad_prediction_is_named_with_file_and_record(inputs: Any, bad: dict[str, Any], kind: str) -> None:
    inputs.shards[1].append(bad)
    with pytest.raises(DatasetError, match=f"{kind}: 1\n.*shard_1.jsonl: record 2: got"):
        inputs.build()
    (problem,) = read_jsonl(inputs.folder / "out" / "problems.jsonl")
    assert problem["kind"] == kind
    assert not (inputs.folder / "out" / "annotation.json").exists()


def test_image_in_two_shards_is_refused(inputs: Any) -> None:
    inputs.shards[1].append(record(1, 0.9, [10, 10, 20, 30]))
    with pytest.raises(DatasetError, match=r"image_in_two_shards: 1\n.*image a: got boxes here and in .*shard_0.jsonl"):
        inputs.build()


def test_patient_in_two_splits_is_refused(inputs: Any) -> None:
    inputs.reports[0]["subject_id"] = inputs.images[3]["subject_id"] = "10"
    with pytest.raises(DatasetError, match=r"patient_in_two_splits: 1\n.*subject 10: got train, val"):
        inputs.build()


@pytest.mark.parametrize(("key", "value"), [("study_id", "s9"), ("subject_id", "11"), ("split", "test")])
def test_image_that_disagrees_with_its_report_is_refused(inputs: Any, key: str, value: str) -> None:
    inputs.images[3][key] = value
    with pytest.raises(DatasetError, match=f"image d: got {key} unlike study s3"):
        inputs.build()


def test_image_of_two_reports_and_second_report_of_a_study_are_refused(inputs: Any) -> None:
    inputs.reports.append(inputs.reports[0])
    with pytest.raises(DatasetError) as caught:
        inputs.build()
    assert "duplicate_study: 1" in str(caught.value)
    assert "image d: got claimed twice unlike study s3" in str(caught.value)


def test_unknown_class_threshold_is_a_configuration_error(inputs: Any) -> None:
    with pytest.raises(ConfigError, match="did you mean 'Cardiomegaly'"):
        inputs.build(class_score_thresholds={"Cardiomegly": 0.3})


def test_missing_key_and_duplicate_id_are_named(inputs: Any) -> None:
    del inputs.images[1]["source_height"]
    with pytest.raises(DatasetError, match=r"images\[1\] \(b\): lacks source_height"):
        inputs.build()
    inputs.images[1] |= {"source_height": 400, "id": 1}
    with pytest.raises(DatasetError, match=r"duplicate id in images: \[1\]"):
        inputs.build()
    inputs.images[1]["id"] = 2
    del inputs.reports[0]["report"]
    with pytest.raises(DatasetError, match="record 1: lacks report"):
        inputs.build()


def write_record(path: Path, unlabelled: str, **changes: Any) -> None:
    """A run record of predict-boxes for images and detector of these hashes."""
    record = {
        "command": "predict-boxes",
        "inputs": {"unlabelled": {"file": "elsewhere/unlabelled.json", "sha256": unlabelled}},
    }
    write_json(path, record | {"detector": {"file": "m.pth", "sha256": "abc"}} | changes)


@pytest.mark.parametrize("name", ["run.json", "shard_0.run.json"])
def test_predictions_of_another_cohort_with_the_same_ids_are_refused(inputs: Any, name: str) -> None:
    inputs.build()
    write_record(inputs.folder / name, "f" * 64)
    with pytest.raises(
        DatasetError, match=r"shard_0\.jsonl: predicted on other images: elsewhere/unlabelled\.json with SHA-256 f{12}"
    ):
        inputs.build()
    write_record(inputs.folder / name, sha256_file(inputs.folder / "unlabelled.json"))
    annotation, _ = inputs.build()
    assert annotation["train"][1]["scores"] == [0.9]


def test_a_shards_own_record_comes_before_one_of_the_folder(inputs: Any) -> None:
    inputs.build()
    right = sha256_file(inputs.folder / "unlabelled.json")
    write_record(inputs.folder / "run.json", right)
    shard = {"command": "predict-boxes-shard", "inputs": {"unlabelled": {"sha256": "0" * 64}}}
    write_json(inputs.folder / "shard_1.run.json", shard)
    with pytest.raises(DatasetError, match=r"shard_1\.jsonl: predicted on other images"):
        inputs.build()


def test_predictions_without_a_record_are_taken_with_a_warning(inputs: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_json(inputs.folder / "run.json", {"command": "something-else"})
    annotation, _ = inputs.build()
    assert annotation["train"][1]["scores"] == [0.9]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2 and all("no run record beside it" in message for message in warnings)


def test_thresholds_of_another_detector_are_refused(inputs: Any) -> None:
    inputs.build()
    write_record(inputs.folder / "run.json", sha256_file(inputs.folder / "unlabelled.json"))
    classes = {name: {"threshold": 0.5} for name in CATEGORY_NAMES}
    path = inputs.folder / "thresholds.json"
    write_json(path, {"split": "val", "classes": classes, "detector": {"sha256": "abc"}})
    inputs.build(thresholds="calibrated", thresholds_file=path)
    write_json(path, {"split": "val", "classes": classes, "detector": {"sha256": "def"}})
    with pytest.raises(DatasetError, match=r"predicted by another detector \(m\.pth, says run\.json\)"):
        inputs.build(thresholds="calibrated", thresholds_file=path)


def test_views_stand_in_entries_where_asked_for(inputs: Any) -> None:
    before, _ = inputs.build(entry="study")
    inputs.images[1]["view"] = ""
    told, _ = inputs.build(entry="study", context=["views"])
    assert told["train"][0].pop("views") == ["", "PA"]  # the report's order of images: b, a
    assert [entry.pop("views") for entry in told["val"]] == [["PA"]]
    assert told == before


def test_a_wrong_number_of_views_is_refused(inputs: Any, tmp_path: Path) -> None:
    annotation, _ = inputs.build(context=["views"])
    annotation["train"][0]["views"] = []
    write_json(tmp_path / "edited.json", annotation)
    with pytest.raises(DatasetError, match=r"train\[0\] \(b\): views is \[\]; expected one text for each of 1 images"):
        load_annotation(tmp_path / "edited.json")
