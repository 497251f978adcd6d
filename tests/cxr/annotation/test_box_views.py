"""Boxes on images of some views alone: one lateral image on its way from the COCO file into the report model."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.training_images import of_views
from d2rnet.cxr.images.views import has_sides, image_before, shows_view
from d2rnet.cxr.report_model.context import AP, LATERAL, PA, view_id
from d2rnet.cxr.report_model.dataset import ReportDataset, image_sources
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import count_vocabulary


@pytest.mark.parametrize(
    ("view", "wanted", "expected"),
    [
        ("LATERAL", [], True),
        ("", [], True),
        ("PA", ["PA", "AP"], True),
        ("pa", ["PA"], True),
        ("AP", ["ap"], True),
        ("LATERAL", ["PA", "AP"], False),
        ("AP AXIAL", ["AP"], True),
        ("AP AXIAL", ["PA"], False),
        ("AP AXIAL", ["ap axial"], True),
        ("AP", ["AP AXIAL"], False),
        ("pa lld", ["PA", "AP"], True),
        ("XTABLE LATERAL", ["PA", "AP"], False),
        ("LL", ["LATERAL"], True),
        ("ANTERO-POSTERIOR", ["AP"], True),
        ("postero anterior", ["PA"], True),
        ("posteroanterior", ["AP"], False),
        ("AP-PORTABLE", ["AP"], True),
        ("LATERAL DECUBITUS", ["LATERAL"], False),
        ("LEFT LATERAL DECUBITUS AP", ["AP"], True),
        ("PA oblique", ["PA"], False),
        ("LPO", ["PA", "AP", "LATERAL", "unknown"], False),
        ("", ["PA"], False),
        ("", ["PA", "unknown"], True),
        ("LATERAL", ["unknown"], False),
    ],
)
def test_which_images_show_a_wanted_view(view: str, wanted: list[str], expected: bool) -> None:
    assert shows_view(view, wanted) is expected


@pytest.mark.parametrize("view", ["PA", "pa", "PA LLD", "AP", "AP AXIAL", "LATERAL", "XTABLE LATERAL", "LPO", ""])
def test_boxes_model_and_study_before_read_a_view_alike(view: str) -> None:
    number = view_id(view)
    assert [shows_view(view, [name]) for name in ("PA", "AP", "LATERAL")] == [number == each for each in (PA, AP, LATERAL)]
    assert image_before(["LPO", view, "AP"]) == {PA: 1, AP: 1}.get(number, 2)
    assert image_before(["LPO", view, "PA"]) == {PA: 1}.get(number, 2)
    assert has_sides(view) is (number != LATERAL)


def test_of_equal_views_the_first_image_lends_its_boxes() -> None:
    assert image_before(["LATERAL", "pa", "PA"]) == 1 and image_before(["", "LATERAL"]) == 0


def test_a_lateral_image_gets_no_boxes_and_is_seen_all_the_same(inputs: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Image b is lateral: the detector is not trained on it, its box is left out, the report model looks at it."""
    caplog.set_level("INFO")
    inputs.images[1]["view"] = "LATERAL"
    for name in "ab":
        (inputs.folder / "files").mkdir(exist_ok=True)
        cv2.imwrite(str(inputs.folder / f"files/{name}.jpg"), np.full((400, 100), ord(name), np.uint8))
    whole, before = inputs.build(entry="study")
    annotation, counts = inputs.build(entry="study", box_views=["PA"])

    records = load_records(inputs.folder / "unlabelled.json", split="train")
    assert [record.source_id for record in of_views(records, ["PA"])] == ["a", "c", "extra"]

    (entry,) = annotation["train"]
    assert entry["image_path"] == ["files/b.jpg", "files/a.jpg"]
    assert (entry["box_image"], entry["labels"]) == ([1], ["Cardiomegaly"])
    assert whole["train"][0]["box_image"] == [0, 1]
    assert counts["boxes"]["on_other_views"] == 1 and before["boxes"]["on_other_views"] == 0
    assert counts["images_of_other_views"] == {"LATERAL": 1} and "images_of_other_views" not in before
    assert counts["boxes"]["kept"] == before["boxes"]["kept"] - 1
    assert "images without boxes for their view: LATERAL (1); 1 boxes on them are left out" in caplog.text

    dataset = ReportDataset(
        annotation["train"],
        DirectImages(image_sources(annotation["train"], inputs.folder), size_px=32),
        vocabulary=count_vocabulary([entry["report"]], protocol="r2gen", section="findings", min_token_count=1),
        categories=CATEGORY_NAMES,
        size_px=32,
        max_tokens=9,
    )
    sample = dataset[0]
    assert sample.pixels.shape == (2, 32, 32) and sample.pixels[0].max() == ord("b")
    assert sample.lesion_view.tolist() == [1]


def test_an_entry_of_a_lateral_image_alone_stays(inputs: Any) -> None:
    inputs.images[1]["view"] = "LATERAL"
    annotation, counts = inputs.build(box_views=["PA"])
    assert [(entry["id"], len(entry["boxes"])) for entry in annotation["train"]] == [("b", 0), ("a", 1)]
    assert counts["entries"]["train"] == 2 and counts["entries_without_boxes"]["train"] == 1


def looked_at(inputs: Any, views: Any) -> None:
    """Write the run record of predictions that looked at some views alone."""
    inputs.build()
    hashes = {"unlabelled": {"file": "unlabelled.json", "sha256": sha256_file(inputs.folder / "unlabelled.json")}}
    write_json(inputs.folder / "run.json", {"command": "predict-boxes", "inputs": hashes, "views": views})


def test_images_that_get_boxes_but_were_not_looked_at_are_refused(inputs: Any) -> None:
    inputs.images[1]["view"] = "LATERAL"
    inputs.images[3]["view"] = ""
    looked_at(inputs, ["PA"])
    for box_views, missed in (([], r"LATERAL \(1\), UNKNOWN \(1\)"), (["PA", "lateral"], r"LATERAL \(1\)\.")):
        with pytest.raises(DatasetError, match=rf"shard_0.jsonl: predicted on images of view PA alone.* {missed}"):
            inputs.build(box_views=box_views)
    assert inputs.build(box_views=["PA"])[1]["boxes"]["kept"] == 1


@pytest.mark.parametrize("views", [[], ["PA", "LATERAL"]])
def test_more_images_looked_at_than_get_boxes_are_taken(inputs: Any, views: list[str]) -> None:
    inputs.images[1]["view"] = "LATERAL"
    looked_at(inputs, views)
    assert inputs.build(box_views=["PA"])[1]["boxes"]["on_other_views"] == 1


def test_views_of_a_damaged_run_record(inputs: Any) -> None:
    looked_at(inputs, {"PA": 1})
    with pytest.raises(DatasetError, match=r"run.json: views {'PA': 1}; expected a list of texts"):
        inputs.build()


def test_boxes_of_other_views_take_no_place_among_the_best(inputs: Any) -> None:
    """Left out before max_boxes is counted: predicted = the sum of what is dropped and kept."""
    inputs.images[1]["view"] = "LATERAL"
    inputs.shards[1] += [{**inputs.shards[1][0], "bbox": [0, 0, 40, 40]}]
    _, counts = inputs.build(box_views=["PA"], max_boxes=1)
    boxes = counts["boxes"]
    assert (boxes["on_other_views"], boxes["above_max_boxes"], boxes["kept"]) == (2, 0, 1)
    assert boxes["predicted"] == boxes["below_threshold"] + boxes["on_other_views"] + boxes["kept"]


@pytest.mark.parametrize("view", ["", None])
def test_an_image_of_unknown_view_gets_boxes_only_where_that_is_asked_for(inputs: Any, view: str | None) -> None:
    inputs.images[0]["view"] = view
    _, counts = inputs.build(box_views=["PA"])
    assert counts["images_of_other_views"] == {"UNKNOWN": 1} and counts["boxes"]["on_other_views"] == 1
    _, counts = inputs.build(box_views=["PA", "unknown"])
    assert counts["images_of_other_views"] == {} and counts["boxes"]["on_other_views"] == 0


def test_views_that_no_image_has_are_refused_with_those_found(inputs: Any, tmp_path: Path) -> None:
    inputs.images[0]["view"] = ""
    with pytest.raises(DatasetError, match=r"no image has a view of cxr.annotation.box_views \(AP\).*PA \(4\), UNKNOWN \(1\)"):
        inputs.build(box_views=["AP"])
