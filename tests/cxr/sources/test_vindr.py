"""Labelled source vindr: both splits, image labels, re-encoded copies, shared ids."""

import logging

import pytest

from d2rnet.cxr.sources import vindr
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_NAMES

TRAIN = """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
aa,R1,Cardiomegaly,10,20,30,40
aa,R2,No finding,,,,
aa,R9,Tuberculosis,,,,
bb,R1,No finding,,,,
"""
TEST = """image_id,class_name,x_min,y_min,x_max,y_max
cc,Edema,1,2,3,4
dd,No finding,,,,
"""


@pytest.fixture
def root(tmp_path):
    for name in ("train/aa.dicom", "train/bb.dicom", "train/stranger.dicom", "test/cc.dicom"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "annotations_train.csv").write_text(TRAIN)
    (tmp_path / "annotations" / "annotations_test.csv").write_text(TEST)
    return tmp_path


def settings(root, **changes):
    return LabelledSettings(root=str(root)).replaced(**changes)


def read(root, **changes):
    problems = Problems()
    return vindr.read_table(settings(root, **changes), problems), problems


def test_train_has_readers_and_test_a_consensus(root):
    table, problems = read(root)
    assert len(problems) == 0
    assert table.images[["source_id", "path", "split", "subject_id", "source_height", "n_readers"]].to_numpy().tolist() == [
        ["aa", str(root / "train" / "aa.dicom"), "train", "", 0, 3],
        ["bb", str(root / "train" / "bb.dicom"), "train", "", 0, 1],
        ["cc", str(root / "test" / "cc.dicom"), "test", "", 0, 0],
        ["dd", str(root / "test" / "dd.dicom"), "test", "", 0, 0],
    ]
    assert table.boxes.to_numpy().tolist() == [
        ["aa", "R1", 4, 10.0, 20.0, 30.0, 40.0, "annotations_train.csv:row 1"],
        ["cc", "", 7, 1.0, 2.0, 3.0, 4.0, "annotations_test.csv:row 1"],
    ]
    assert table.counts["train_files_without_rows"] == 1
    assert table.counts["train_rows_without_box"] == 3


@pytest.mark.parametrize("label", ["Other diseases", "Other disease", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"])
def test_labels_of_the_whole_image_have_no_box_in_either_table(root, label):
    for split in ("train", "test"):
        path = root / "annotations" / f"annotations_{split}.csv"
        path.write_text(path.read_text() + (f"bb,R1,{label},,,,\n" if split == "train" else f"dd,{label},,,,\n"))
    table, problems = read(root)
    assert len(problems) == 0
    assert (table.counts["train_rows_without_box"], table.counts["test_rows_without_box"]) == (4, 2)


def test_image_labels_as_published_with_their_28_columns(root):
    both = [*CATEGORY_NAMES, "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"]
    for split, ids, other in (("train", ("aa,R1", "aa,R2", "aa,R9", "bb,R1"), "Other diseases"),
                              ("test", ("cc", "dd"), "Other disease")):  # fmt: skip
        columns = ["image_id", *(["rad_id"] if split == "train" else []), *both, other, "No finding"]
        rows = [",".join([names, *(["0"] * 28)]) for names in ids]
        (root / "annotations" / f"image_labels_{split}.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    table, problems = read(root)
    assert len(problems) == 0
    assert table.images["n_readers"].tolist() == [3, 1, 0, 0]


def test_images_named_in_the_image_labels_alone_are_there(root):
    (root / "annotations" / "image_labels_train.csv").write_text("image_id,rad_id,Edema\naa,R1,0\naa,R4,0\nee,R1,0\n")
    (root / "annotations" / "image_labels_test.csv").write_text("image_id,Edema\ncc,1\nff,0\n")
    table, problems = read(root)
    assert len(problems) == 0
    assert dict(zip(table.images["source_id"], table.images["n_readers"], strict=True)) == {
        "aa": 4, "bb": 1, "ee": 1, "cc": 0, "dd": 0, "ff": 0,
    }  # fmt: skip


def test_image_twice_in_the_image_labels(root):
    (root / "annotations" / "image_labels_test.csv").write_text("image_id,Edema\ncc,1\ncc,0\n")
    _, problems = read(root)
    assert problems.counts() == {"duplicate_image_id": 1}


def test_id_in_train_and_test(root):
    (root / "annotations" / "annotations_test.csv").write_text(TEST.replace("cc,", "aa,"))
    _, problems = read(root)
    assert problems.counts() == {"id_in_train_and_test": 1}
    assert "image aa" in problems.text()


def test_tables_at_the_root_and_copies_with_a_size_table(root):
    for name in ("annotations_train.csv", "annotations_test.csv"):
        (root / "annotations" / name).rename(root / name)
    for name in ("train/aa", "train/bb", "test/cc"):
        (root / f"{name}.dicom").rename(root / f"{name}.png")
    (root / "sizes.csv").write_text("image_id,height,width\naa,3000,2500\nbb,2000,1000\ncc,100,200\n")
    table, problems = read(root, size_table="sizes.csv")
    assert len(problems) == 0
    assert table.images[["source_height", "source_width"]].to_numpy().tolist() == [
        [3000, 2500],
        [2000, 1000],
        [100, 200],
        [0, 0],
    ]
    assert vindr.required_files(settings(root, size_table="sizes.csv"))[-1].path == root / "sizes.csv"


def test_copies_without_a_size_table_are_warned_about(root, caplog):
    (root / "train" / "aa.dicom").rename(root / "train" / "aa.jpg")
    with caplog.at_level(logging.WARNING):
        read(root)
    assert "1 image(s) are PNG or JPG and cxr.data.labelled.size_table is not set" in caplog.text


def test_train_table_without_readers_is_refused(root):
    (root / "annotations" / "annotations_train.csv").write_text(TEST)
    with pytest.raises(DatasetError, match="missing column 'rad_id'"):
        read(root)


def test_required_files(root):
    found = {file.path.relative_to(root).as_posix(): file.columns for file in vindr.required_files(settings(root))}
    assert set(found) == {"train", "test", "annotations/annotations_train.csv", "annotations/annotations_test.csv"}
    assert "rad_id" in found["annotations/annotations_train.csv"]
    assert "rad_id" not in found["annotations/annotations_test.csv"]
