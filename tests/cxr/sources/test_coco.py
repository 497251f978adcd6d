"""Labelled source coco: categories by name, file look-up, given splits, broken files."""

import json

import pytest

from d2rnet.cxr.sources import coco
from d2rnet.cxr.sources.box_tables import CORNERS
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems

CATEGORIES = [{"id": 7, "name": "cardiomegaly"}, {"id": 0, "name": "Edema "}, {"id": 9, "name": "unused"}]


def write(root, name, file_names, boxes=(), **changes):
    images = [{"id": 10 + i, "file_name": file_name, "height": 40, "width": 30} for i, file_name in enumerate(file_names)]
    annotations = [
        {"id": i, "image_id": 10, "category_id": category, "bbox": bbox} | extra
        for i, (category, bbox, extra) in enumerate(boxes, start=1)
    ]
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES} | changes
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(document))


def read(root, coco_json):
    problems = Problems()
    settings = LabelledSettings(source="coco", root=str(root), coco_json=coco_json)
    return coco.read_table(settings, problems), problems


def test_one_file_to_be_split(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "images" / "sub" / "a.png").touch()
    write(
        tmp_path,
        "all.json",
        ["sub/a.png", "b.png"],
        [(7, [1, 2, 3, 4], {}), (0, [0, 0, 5, 5], {}), (0, [0, 0, 9, 9], {"iscrowd": 1})],
    )
    table, problems = read(tmp_path, "all.json")
    assert len(problems) == 0
    assert table.images.to_numpy().tolist() == [
        ["images_sub_a", str(tmp_path / "images/sub/a.png"), "", "", 40, 30, 0],
        ["b", str(tmp_path / "b.png"), "", "", 40, 30, 0],
    ]
    assert table.boxes[["source_id", "reader_id", "category_id", "origin"]].to_numpy().tolist() == [
        ["images_sub_a", "", 4, "all.json:annotation 1"],
        ["images_sub_a", "", 7, "all.json:annotation 2"],
    ]
    assert table.boxes[CORNERS].to_numpy().tolist() == [[1, 2, 4, 6], [0, 0, 5, 5]]
    assert table.counts == {"crowd_annotations_left_out": 1, "annotations_in": 2}


def test_one_folder_a_split_with_equal_file_names(tmp_path):
    for split in ("train", "test"):
        write(tmp_path, f"{split}/coco.json", ["a.png"])
        (tmp_path / split / "a.png").touch()
    table, problems = read(tmp_path, {"train": "train/coco.json", "test": "test/coco.json"})
    assert len(problems) == 0
    assert table.images[["source_id", "split"]].to_numpy().tolist() == [["train_a", "train"], ["test_a", "test"]]


@pytest.mark.parametrize(("other", "kind"), [("test.json", "id_in_two_splits"), (None, "duplicate_image_id")])
def test_an_image_twice(tmp_path, other, kind):
    write(tmp_path, "train.json", ["a.png"] if other else ["a.png", "a.png"])
    write(tmp_path, "test.json", ["a.png"] if other else ["b.png"])
    _, problems = read(tmp_path, {"train": "train.json", "test": "test.json"})
    assert problems.counts() == {kind: 1}
    assert "image a" in problems.text()


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([1, 2, 0, 4], "zero_area"),
        ([1, 2, -3, 4], "swapped_corners"),
        ([1, 2, float("nan"), 4], "not_a_number"),
        ([1, 2, 3], "malformed_box"),
        ("1 2 3 4", "malformed_box"),
    ],
)
def test_bad_box_is_named(tmp_path, bbox, kind):
    write(tmp_path, "all.json", ["a.png"], [(7, bbox, {})])
    _, problems = read(tmp_path, "all.json")
    assert problems.counts() == {kind: 1}
    assert "annotation 1" in problems.text()


@pytest.mark.parametrize("height", [None, "40", 0, -40, 40.5])
def test_bad_image_size_is_named(tmp_path, height):
    image = {"id": 10, "file_name": "a.png", "height": height, "width": 30}
    write(tmp_path, "all.json", [], [(7, [1, 2, 3, 4], {})], images=[image])
    table, problems = read(tmp_path, "all.json")
    assert problems.counts() == {"bad_size": 1}
    assert f"image 10 (a.png): got height {height!r}, width 30; expected whole numbers" in problems.text()
    assert table.images.empty and table.boxes.empty


def test_file_name_that_leaves_the_root(tmp_path):
    write(tmp_path, "all.json", ["../a.png"])
    _, problems = read(tmp_path, "all.json")
    assert problems.counts() == {"bad_path": 1}


def test_file_name_longer_than_a_file_system_takes(tmp_path):
    write(tmp_path, "all.json", ["a" * 5000 + ".png"])
    _, problems = read(tmp_path, "all.json")
    assert problems.counts() == {"bad_path": 1}


def test_unknown_class_lists_the_known_ones(tmp_path):
    write(tmp_path, "all.json", ["a.png"], [(9, [1, 2, 3, 4], {})])
    with pytest.raises(DatasetError, match=r"unknown class name.s. unused.*Known classes: Aortic enlargement, .*Other lesion"):
        read(tmp_path, "all.json")


@pytest.mark.parametrize("coco_json", [None, {"train": "a.json"}, {"train": "a.json", "tset": "b.json"}])
def test_bad_setting(tmp_path, coco_json):
    with pytest.raises(ConfigError, match=r"cxr\.data\.labelled\.coco_json"):
        read(tmp_path, coco_json)


def test_ids_of_files_without_suffix_and_patients_from_0(tmp_path):
    """Two files named by UID had one id, and patient 0 counted as none."""
    images = [
        {"id": number, "file_name": name, "height": 40, "width": 30, "subject_id": number}
        for number, name in enumerate(["pacs/1.2.840.1", "pacs/1.2.840.2", "b.DCM"])
    ]
    images[2]["source_id"] = 0
    write(tmp_path, "all.json", [], images=images)
    table, problems = read(tmp_path, "all.json")
    assert len(problems) == 0
    assert table.images[["source_id", "subject_id"]].to_numpy().tolist() == [
        ["pacs_1.2.840.1", "0"],
        ["pacs_1.2.840.2", "1"],
        ["0", "2"],
    ]
