"""Labelled source nih: both table layouts, one reader in two tables, absent and unboxed images, and the real subset."""

import os
from pathlib import Path

import pytest

from d2rnet.cxr.sources import nih
from d2rnet.cxr.sources.box_tables import CORNERS
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_IDS

BBOX_LIST = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000011_000.png,Infiltrate,100.25,200.5,50.5,60.25
00000012_003.png,Effusion,1,2,3,4
00000099_000.png,Mass,1,2,3,4
"""
READER_TABLE = """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
00000011_000,NIH,Infiltration,100.3,200.5,150.8,260.8
00000011_000,RSNA,Lung Opacity,90,190,150,250
00000012_003,NIH,Effusion,1,2,4,6
00000012_003,RSNA,No finding,,,,
00000013_000,NIH,No finding,,,,
"""
SHARED = Path(os.environ.get("D2RNET_SHARED", Path(__file__).resolve().parents[4] / "shared"))
REAL = SHARED / "data" / "nih_chestxray14"


@pytest.fixture
def root(tmp_path):
    for name in ("images_001/images/00000011_000.png", "images_002/00000012_003.png", "images_002/00000013_000.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "BBox_List_2017.csv").write_text(BBOX_LIST)
    (tmp_path / "readers.csv").write_text(READER_TABLE)
    return tmp_path


def read(root, *tables):
    problems = Problems()
    settings = LabelledSettings(source="nih", root=str(root), box_tables=tuple(tables))
    return nih.read_table(settings, problems), problems


def test_bbox_list(root):
    table, problems = read(root)
    assert len(problems) == 0
    assert table.images.to_numpy().tolist() == [
        ["00000011_000", str(root / "images_001/images/00000011_000.png"), "", "00000011", 1024, 1024, 1],
        ["00000012_003", str(root / "images_002/00000012_003.png"), "", "00000012", 1024, 1024, 1],
    ]
    assert table.boxes["category_id"].tolist() == [CATEGORY_IDS["Infiltration"], CATEGORY_IDS["Pleural effusion"]]
    assert table.boxes[CORNERS].to_numpy().tolist() == [[100.25, 200.5, 150.75, 260.75], [1, 2, 4, 6]]
    assert (table.counts["boxes_of_absent_images"], table.counts["absent_images"]) == (1, 1)


def test_two_close_boxes_of_one_table_are_two_boxes(root):
    with (root / "BBox_List_2017.csv").open("a") as stream:
        stream.write("00000012_003.png,Effusion,1.2,2,3,4\n")
    table, _ = read(root)
    assert table.boxes["source_id"].tolist() == ["00000011_000", "00000012_003", "00000012_003"]


def test_header_with_quotes(root):
    (root / "BBox_List_2017.csv").write_text(BBOX_LIST.replace("Bbox [x,y,w,h],,,", '"Bbox [x,y,w,h]",,,'))
    assert len(read(root)[0].boxes) == 2


def test_reader_table_leaves_unboxed_images_out(root):
    table, problems = read(root, "readers.csv")
    assert len(problems) == 0
    assert table.images["source_id"].tolist() == ["00000011_000", "00000012_003"]
    assert table.images["n_readers"].tolist() == [2, 2]
    assert table.counts["unboxed_images_left_out"] == 1


def test_a_box_in_both_tables_is_one_box(root):
    table, _ = read(root, "BBox_List_2017.csv", "readers.csv")
    assert table.boxes[["source_id", "reader_id", "origin"]].to_numpy().tolist() == [
        ["00000011_000", "NIH", "BBox_List_2017.csv:row 1"],
        ["00000012_003", "NIH", "BBox_List_2017.csv:row 2"],
        ["00000011_000", "RSNA", "readers.csv:row 2"],
    ]
    assert table.counts["boxes_repeated_in_another_table"] == 2
    assert table.counts["exact_duplicate_rows"] == 0


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("00000012_003.png,Effusion,1,2,-3,4", "swapped_corners"),
        ("00000012_003.png,Effusion,1,2,0,4", "zero_area"),
        ("00000012_003.png,Effusion,1,,3,4", "not_a_number"),
        ("00000012_003.png,Hernia,1,2,3,4", "unknown_class"),
        ("../00000012_003.png,Effusion,1,2,3,4", "unsafe_id"),
    ],
)
def test_bad_row_of_the_list(root, row, kind):
    (root / "BBox_List_2017.csv").write_text(BBOX_LIST + row + "\n")
    _, problems = read(root)
    assert problems.counts() == {kind: 1}
    if kind != "unsafe_id":
        assert "row 4 (image 00000012_003)" in problems.text()


def test_another_layout_is_refused(root):
    with pytest.raises(DatasetError, match=r"columns found: patientId, x; expected image_id, rad_id"):
        (root / "rsna.csv").write_text("patientId,x\na,1\n")
        read(root, "rsna.csv")


def test_no_image_below_the_root(root):
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="none of the 3 boxed images of BBox_List_2017"):
        read(root)


def test_same_name_in_two_folders(root):
    (root / "images_002" / "00000011_000.png").touch()
    _, problems = read(root)
    assert problems.counts() == {"duplicate_image_id": 1}


@pytest.mark.skipif(not REAL.is_dir(), reason="the open NIH subset is not beside the repository")
def test_real_subset_with_both_tables():
    table, problems = read(REAL, "BBox_List_2017.csv", "vindr_style_annotations.csv")
    assert len(problems) == 0
    assert (len(table.images), len(table.boxes)) == (84, 128)
    assert table.counts["boxes_repeated_in_another_table"] == 60
    assert table.boxes["reader_id"].value_counts().to_dict() == {"RSNA": 68, "NIH": 60}
    assert table.counts["boxes_of_absent_images"] == 924
