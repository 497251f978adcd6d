"""Box tables: every broken row is named with file and row."""

import pytest

from d2rnet.cxr.sources.box_tables import CORNERS, read_box_table
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_IDS

HEADER = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
GOOD = "a,R1,Edema,1,2,3.5,4\n"


def read(tmp_path, rows, *, header=HEADER, has_readers=True):
    path = tmp_path / "boxes.csv"
    path.write_text(header + rows)
    problems = Problems()
    found = read_box_table(
        path, categories=CATEGORY_IDS, image_labels=frozenset({"Pneumonia"}), has_readers=has_readers, problems=problems
    )
    return found, problems


def test_good_rows(tmp_path):
    found, problems = read(tmp_path, GOOD + "a,R2,No finding,,,,\nb,R1,Pneumonia,,,,\n")
    assert len(problems) == 0
    assert found.boxes.to_numpy().tolist() == [["a", "R1", 7, 1.0, 2.0, 3.5, 4.0, "boxes.csv:row 1"]]
    assert found.looked.to_numpy().tolist() == [["a", "R1"], ["a", "R2"], ["b", "R1"]]
    assert found.counts == {"rows_in": 3, "exact_duplicate_rows": 0, "rows_without_box": 2, "boxes_kept": 1}


def test_table_without_readers(tmp_path):
    header = HEADER.replace("rad_id,", "")
    found, _ = read(tmp_path, "a,Edema,1,2,3,4\na,Edema,1,2,3,4\nb,No finding,,,,\n", header=header, has_readers=False)
    assert found.boxes["reader_id"].tolist() == [""]
    assert found.looked.to_numpy().tolist() == [["a", ""], ["b", ""]]
    assert found.counts["exact_duplicate_rows"] == 1


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("b,R1,Edema,3,2,1,4", "swapped_corners", "row 2 (image b): got x_min 3, y_min 2, x_max 1, y_max 4"),
        ("b,R1,Edema,1,4,3,2", "swapped_corners", "row 2 (image b)"),
        ("b,R1,Edema,1,2,nan,4", "not_a_number", "x_max nan"),
        ("b,R1,Edema,1,2,inf,4", "not_a_number", "x_max inf"),
        ("b,R1,Edema,1,2,,4", "not_a_number", "x_max (empty)"),
        ("b,R1,Edema,,,,", "not_a_number", "x_min (empty)"),
        ("b,R1,Edema,one,2,3,4", "not_a_number", "x_min one"),
        ("b,R1,Edema,1,2,1,4", "zero_area", "expected a box with an area"),
        ("b,R1,Oedema,1,2,3,4", "unknown_class", "got 'Oedema'; expected a class of this source. did you mean 'Edema'? Known"),
        ("b,R1,Nonsense,,,,", "unknown_class", "got 'Nonsense'"),
        ("b,R1,No finding,1,2,3,4", "box_of_whole_image_label", "got 'No finding'"),
        ("b,R1,No finding,1,,,", "box_of_whole_image_label", "got 'No finding'"),
        ("b,,Edema,1,2,3,4", "empty_reader", "row 2 (image b): got ''"),
        ("../b,R1,Edema,1,2,3,4", "unsafe_id", "image '../b'"),
        ("x/b,R1,Edema,1,2,3,4", "unsafe_id", "image 'x/b'"),
        ("x\\b,R1,Edema,1,2,3,4", "unsafe_id", "without path separator"),
        (",R1,Edema,1,2,3,4", "unsafe_id", "image ''"),
    ],
)
def test_bad_row_is_named_and_left_out(tmp_path, row, kind, words):
    found, problems = read(tmp_path, GOOD + row + "\n")
    assert problems.counts() == {kind: 1}
    assert "boxes.csv" in problems.text()
    assert words in problems.text()
    assert "a" in found.boxes["source_id"].tolist()
    if kind != "empty_reader":
        assert found.boxes["source_id"].tolist() == ["a"]


def test_coordinates_outside_are_left_to_the_check_against_the_image(tmp_path):
    found, problems = read(tmp_path, "a,R1,Edema,-50,-0.5,3,4\n")
    assert len(problems) == 0
    assert found.boxes[CORNERS].to_numpy().tolist() == [[-50, -0.5, 3, 4]]
