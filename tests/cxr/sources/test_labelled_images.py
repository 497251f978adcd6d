"""Images of a labelled source: safe ids, files by id, size tables."""

import pandas as pd
import pytest

from d2rnet.cxr.sources.labelled_images import find_images, image_table, is_safe_id, keep_safe_ids, read_size_table
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems


@pytest.mark.parametrize("source_id", ["a", "00000150_002", "1.3.6.1", "a b", "ä"])
def test_safe_ids(source_id):
    assert is_safe_id(source_id)


@pytest.mark.parametrize("source_id", ["", ".", "..", "a/b", "a\\b", "/a", "a..b", "a\n", "a\0"])
def test_unsafe_ids(source_id):
    assert not is_safe_id(source_id)


def test_unsafe_id_is_noted_once():
    problems = Problems()
    kept = keep_safe_ids(pd.DataFrame({"source_id": ["a", "../b", "../b"]}), file="t.csv", problems=problems)
    assert kept["source_id"].tolist() == ["a"]
    assert problems.counts() == {"unsafe_id": 1}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_are_found_by_id(tmp_path):
    touch(tmp_path, "a.dicom", "b.PNG", "c.jpeg", "notes.txt", "below/d.png")
    problems = Problems()
    assert find_images(tmp_path, problems=problems) == {
        "a": tmp_path / "a.dicom", "b": tmp_path / "b.PNG", "c": tmp_path / "c.jpeg",
    }  # fmt: skip
    assert set(find_images(tmp_path, problems=problems, recursive=True, wanted=["a", "d", "z"])) == {"a", "d"}
    assert find_images(tmp_path / "absent", problems=problems) == {}
    assert len(problems) == 0


def test_two_files_of_one_id_are_a_problem(tmp_path):
    touch(tmp_path, "x/a.png", "y/a.png")
    problems = Problems()
    find_images(tmp_path, problems=problems, recursive=True)
    assert problems.counts() == {"duplicate_image_id": 1}
    assert "x/a.png" in problems.text()


def sizes(tmp_path, text):
    (tmp_path / "sizes.csv").write_text(text)
    problems = Problems()
    return read_size_table(LabelledSettings(root=str(tmp_path), size_table="sizes.csv"), problems), problems


@pytest.mark.parametrize("header", ["image_id,height,width", "image_id,dim0,dim1"])
def test_size_table(tmp_path, header):
    found, problems = sizes(tmp_path, f"{header}\na,3000,2500\nb,10.0,20\na,3000,2500\n")
    assert found == {"a": (3000, 2500), "b": (10, 20)}
    assert len(problems) == 0


def test_no_size_table():
    assert read_size_table(LabelledSettings(root="."), Problems()) is None


@pytest.mark.parametrize("cells", ["0,5", "-3,5", ",5", "2.5,5", "nan,5", "tall,5"])
def test_bad_size_is_named(tmp_path, cells):
    found, problems = sizes(tmp_path, f"image_id,height,width\na,{cells}\nb,1,2\n")
    assert found == {"b": (1, 2)}
    assert problems.counts() == {"bad_size": 1}
    assert "row 1 (image a)" in problems.text()


def test_two_sizes_of_one_image(tmp_path):
    _, problems = sizes(tmp_path, "image_id,height,width\na,1,2\na,3,4\n")
    assert problems.counts() == {"duplicate_image_id": 1}


def test_size_table_without_sizes(tmp_path):
    with pytest.raises(DatasetError, match="missing column 'height'"):
        sizes(tmp_path, "image_id,rows\na,1\n")


def test_missing_file_keeps_its_expected_path_and_a_copy_needs_a_size(tmp_path):
    problems = Problems()
    files = {"a": tmp_path / "a.png", "c": tmp_path / "c.dicom"}
    table = image_table(
        {"b": 3, "a": 3, "c": 2}, split="train", files=files, folder=tmp_path, sizes={"b": (5, 6)}, problems=problems
    )
    assert table[["source_id", "path", "source_height", "source_width", "n_readers"]].to_numpy().tolist() == [
        ["a", str(tmp_path / "a.png"), 0, 0, 3],
        ["b", str(tmp_path / "b.dicom"), 5, 6, 3],
        ["c", str(tmp_path / "c.dicom"), 0, 0, 2],
    ]
    assert problems.counts() == {"no_size": 1}


def test_linked_folders_are_warned_about(tmp_path, caplog):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.png").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far")
    assert find_images(tmp_path / "root", problems=Problems(), recursive=True) == {}
    assert "1 linked folder(s) are not followed" in caplog.text
    assert list(find_images(tmp_path / "root" / "link", problems=Problems(), recursive=True)) == ["a"]
