"""annotation.json files of R2Gen's schema, and of others."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.sources import r2gen
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_COLUMNS, REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems


def mimic_entry(number: int, listed: str, **changes: Any) -> dict[str, Any]:
    path = f"p10/p1000000{number}/s5000000{number}/img-{number}.jpg"
    entry = {
        "id": f"img-{number}", "study_id": 50000000 + number, "subject_id": 10000000 + number,
        "report": f"Lungs  clear\n{number}.",
        "image_path": [path], "split": listed,
    }  # fmt: skip
    return entry | changes


def three() -> dict[str, list[Any]]:
    return {split: [mimic_entry(number, split)] for number, split in enumerate(("train", "val", "test"), start=1)}


def read(folder: Path, content: Any, **changes: Any) -> tuple[ReportTable, Problems]:
    (folder / "annotation.json").write_text(json.dumps(content))
    settings = ReportSourceSettings(source="r2gen", root=str(folder), views=()).replaced(**changes)
    problems = Problems()
    return r2gen.read_table(settings, problems), problems


def test_mimic_variant(tmp_path: Path) -> None:
    table, problems = read(tmp_path, three())
    assert not len(problems)
    assert tuple(table.images.columns) == REPORT_IMAGE_COLUMNS
    assert tuple(table.reports.columns) == REPORT_COLUMNS
    assert table.images.iloc[0].to_dict() == {
        "source_id": "img-1", "path": "p10/p10000001/s50000001/img-1.jpg", "subject_id": "10000001", "study_id": "50000001",
        "view": "", "split": "train", "source_height": 0, "source_width": 0,
    }  # fmt: skip
    assert table.reports["report"].tolist() == ["Lungs clear 1.", "Lungs clear 2.", "Lungs clear 3."]
    assert table.reports["split"].tolist() == ["train", "val", "test"]
    assert table.counts == {
        "entries_in_file": 3, "images_in_table": 3, "studies_in_table": 3, "studies_with_report": 3,
        "studies_with_empty_report": 0, "images_kept": 3, "studies_without_wanted_view": 0,
    }  # fmt: skip


def test_iu_variant_without_study_and_patient(tmp_path: Path) -> None:
    entry = {"id": "CXR2384_IM-0942", "report": "Clear.", "image_path": ["CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"]}
    table, problems = read(tmp_path, {"train": [entry | {"split": "train"}], "val": [], "test": []})
    assert not len(problems)
    assert table.images["source_id"].tolist() == ["CXR2384_IM-0942_0", "CXR2384_IM-0942_1"]
    assert table.images["path"].tolist() == entry["image_path"]
    assert set(table.images["study_id"]) == set(table.images["subject_id"]) == {"CXR2384_IM-0942"}
    assert len(table.reports) == 1


def test_d2rnet_variant_with_padded_boxes(tmp_path: Path) -> None:
    """The boxes are the detector's of another run; they are counted, without padding, and left alone."""
    content = three()
    none = [-1, -1, -1, -1]
    content["train"][0] |= {"boxes": [[10, 20.5, 30, 40], none, none], "labels": [3, -1, -1], "height": 3056, "width": 2544}
    content["val"][0] |= {"boxes": [none, none, none]}
    content["test"][0] |= {"boxes": []}
    table, problems = read(tmp_path, content)
    assert not len(problems)
    assert table.counts["boxes_not_used"] == 1
    assert table.counts["images_kept"] == 3
    assert table.reports["report"].tolist() == ["Lungs clear 1.", "Lungs clear 2.", "Lungs clear 3."]


def test_null_study_and_patient_are_unknown_too(tmp_path: Path) -> None:
    content = {split: [mimic_entry(n, split, study_id=None, subject_id=None)] for n, split in enumerate(three(), start=1)}
    table, problems = read(tmp_path, content)
    assert not len(problems)
    assert table.images["subject_id"].tolist() == table.images["study_id"].tolist() == ["img-1", "img-2", "img-3"]


def test_two_images_of_one_study_share_a_report(tmp_path: Path) -> None:
    content = three()
    content["train"].append(mimic_entry(1, "train", id="img-1b", image_path=["x/b.jpg"]))
    table, problems = read(tmp_path, content)
    assert not len(problems)
    assert (len(table.images), len(table.reports)) == (4, 3)


def test_empty_report_is_counted_and_its_image_stays(tmp_path: Path) -> None:
    content = three()
    content["train"][0]["report"] = " \n"
    table, _ = read(tmp_path, content)
    assert table.counts["studies_with_empty_report"] == 1
    assert (len(table.images), len(table.reports)) == (3, 2)


def test_json_elsewhere(tmp_path: Path) -> None:
    other = tmp_path / "notes"
    other.mkdir()
    table, _ = read(other, three(), root=str(tmp_path), report_root=str(other / "annotation.json"))
    assert len(table.images) == 3
    assert len(read(other, three(), root=str(tmp_path), report_root=str(other))[0].images) == 3
    settings = ReportSourceSettings(root=str(tmp_path), report_root=str(other / "a.json"))
    assert [(needed.path.name, needed.config_key) for needed in r2gen.required_files(settings)] == [
        (tmp_path.name, "cxr.data.reports.root"),
        ("a.json", "cxr.data.reports.report_root"),
    ]
    with pytest.raises(FileNotFoundError, match=r"a\.json: no such file; set cxr\.data\.reports\.report_root"):
        r2gen.read_table(settings, Problems())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "a list"),
        ({"images": [], "annotations": []}, r"the keys images \(list\), annotations \(list\)"),
        ({}, r"the keys \(none\)"),
        ({"train": [], "val": []}, r"the keys train \(list\), val \(list\)"),
        ({"train": {}, "val": [], "test": []}, r"train \(dict\)"),
        ({"train": [{"img": "a", "text": "b"}], "val": [], "test": []}, "entries with the keys img, text"),
        ({"train": ["a.png"], "val": [], "test": []}, "first entry 'a.png'"),
        ({"train": [], "val": [], "test": []}, "first entry None"),
        (three() | {"info": []}, "further keys info"),
    ],
)
def test_another_schema(tmp_path: Path, content: Any, found: str) -> None:
    with pytest.raises(DatasetError, match=rf"annotation\.json: found .*{found}.*expected R2Gen's schema"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("changes", "kind", "got"),
    [
        ({"report": None}, "bad_entry", "report of type NoneType"),
        ({"image_path": []}, "bad_entry", "image_path []"),
        ({"image_path": "a.jpg"}, "bad_entry", "image_path 'a.jpg'"),
        ({"image_path": ["../a.jpg"]}, "bad_path", "image_path '../a.jpg'"),
        ({"image_path": ["/abs/a.jpg"]}, "bad_path", "image_path '/abs/a.jpg'"),
        ({"id": "a/b"}, "bad_id", "id 'a/b'"),
        ({"study_id": "../5"}, "bad_id", "study_id '../5'"),
        ({"split": "test"}, "bad_split", "split 'test'"),
        ({"id": "img-1", "study_id": 7, "subject_id": 10000001}, "duplicate_id", "image id 'img-1' again"),
        ({"study_id": 50000001}, "two_reports", "another text for study 50000001"),
    ],
)
def test_bad_entry(tmp_path: Path, changes: dict[str, Any], kind: str, got: str) -> None:
    content = three()
    content["train"].append(mimic_entry(4, "train", **changes))
    table, problems = read(tmp_path, content)
    assert list(problems.counts()) == [kind]
    assert f"train[1]: got {got}; expected" in problems.text()
    assert len(table.images) == 3


def test_entry_without_a_key(tmp_path: Path) -> None:
    content = three()
    content["val"] += [{"id": "x", "report": "y"}, "z"]
    _, problems = read(tmp_path, content)
    assert "val[1]: got no image_path" in problems.text()
    assert "val[2]: got a str; expected an object" in problems.text()


def test_patient_in_two_splits(tmp_path: Path) -> None:
    content = three()
    content["test"][0]["subject_id"] = 10000001
    assert "subject_id 10000001: got split test, train" in read(tmp_path, content)[1].text()


def test_views_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"views found: unknown \(3\).*need views: \[\]"):
        read(tmp_path, three(), views=["PA"])
