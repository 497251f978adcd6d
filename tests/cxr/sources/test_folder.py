"""A folder of radiographs without reports."""

import os
from pathlib import Path

import pytest

from d2rnet.cxr.sources import folder
from d2rnet.cxr.sources.settings import UnlabelledSourceSettings
from d2rnet.cxr.sources.tables import REPORT_COLUMNS, REPORT_IMAGE_COLUMNS
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.reading.inputs import find_inputs


def make(root: Path, *names: str) -> UnlabelledSourceSettings:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return UnlabelledSourceSettings(source="folder", root=str(root))


def test_every_image_at_any_depth(tmp_path: Path) -> None:
    settings = make(tmp_path, "b/00000013_005.png", "a.DCM", "b/c/x y.jpeg", "list.csv", ".hidden.png")
    problems = Problems()
    table = folder.read_table(settings, problems)
    assert not len(problems)
    assert tuple(table.images.columns) == REPORT_IMAGE_COLUMNS
    assert table.images["path"].tolist() == ["a.DCM", "b/00000013_005.png", "b/c/x y.jpeg"]
    assert table.images["source_id"].tolist() == ["a", "b_00000013_005", "b_c_x_y"]
    assert table.images["split"].tolist() == ["train"] * 3
    assert table.images["study_id"].tolist() == table.images["source_id"].tolist()
    assert table.images["subject_id"].tolist() == ["a", "00000013", "b_c_x_y"]
    assert table.images["source_height"].tolist() == [0, 0, 0]
    assert tuple(table.reports.columns) == REPORT_COLUMNS
    assert len(table.reports) == 0
    assert table.counts == {"images_kept": 3, "files_of_other_types": 2, "linked_folders_not_followed": 0}


def test_first_bytes_decide_where_the_name_does_not(tmp_path: Path) -> None:
    settings = make(tmp_path, "notes", "S1/.hidden", "broken.png")
    dicom = bytes(128) + b"DICM" + bytes(8)
    starts = {
        "S1/IM0001": dicom,
        "S1/.hidden_too": dicom,
        "1.2.840.1": dicom,
        "1.2.840.2": dicom,
        "scan.PNG.bak": b"\x89PNG\r\n\x1a\n",
        "photo": b"\xff\xd8\xff\xe0",
        "DICOMDIR.txt": b"DICM",
    }
    for name, start in starts.items():
        (tmp_path / name).write_bytes(start)
    os.mkfifo(tmp_path / "pipe")
    problems = Problems()
    table = folder.read_table(settings, problems)
    assert not len(problems)
    assert table.images["path"].tolist() == ["1.2.840.1", "1.2.840.2", "S1/IM0001", "broken.png", "photo", "scan.PNG.bak"]
    assert table.images["source_id"].tolist() == ["1_2_840_1", "1_2_840_2", "S1_IM0001", "broken", "photo", "scan_PNG_bak"]
    assert table.counts["files_of_other_types"] == 5
    listed = find_inputs([tmp_path], tmp_path / "readings").images
    assert sorted(str(file.relative_to(tmp_path)) for file in listed) == table.images["path"].tolist()


def test_names_that_give_one_id(tmp_path: Path) -> None:
    problems = Problems()
    table = folder.read_table(make(tmp_path, "a.png", "a.dcm", "b.png"), problems)
    assert problems.counts() == {"duplicate_id": 1}
    assert "a.png: got id 'a' again, after a.dcm" in problems.text()
    assert table.images["path"].tolist() == ["a.dcm", "b.png"]


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    settings = make(tmp_path, "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png")).write_bytes(b"")
    problems = Problems()
    table = folder.read_table(settings, problems)
    assert problems.counts() == {"bad_name": 1}
    assert r"b\udcff.png" in problems.text()
    problems.text().encode()
    assert table.images["path"].tolist() == ["a.png"]


def test_linked_folders_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "other", "x.png")
    settings = make(tmp_path / "root", "a.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "other")
    table = folder.read_table(settings, Problems())
    assert table.counts["linked_folders_not_followed"] == 1
    assert "1 linked folder(s) are not followed" in caplog.text


def test_no_image_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no DICOM, PNG or JPG file at any depth; set cxr\.data\.extra_unlabelled"):
        folder.read_table(make(tmp_path, "list.csv"), Problems())
    with pytest.raises(FileNotFoundError, match=r"no such folder; set cxr\.data\.extra_unlabelled"):
        folder.read_table(UnlabelledSourceSettings(root=str(tmp_path / "absent")), Problems())
    assert folder.required_files(UnlabelledSourceSettings(root="x"))[0].path == Path("x")
