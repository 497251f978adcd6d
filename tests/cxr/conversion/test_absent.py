"""Missing files counted by folder."""

from pathlib import Path

from d2rnet.cxr.conversion.absent import SHOWN_FOLDERS, absent_folders


def test_whole_folders_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "files" / "p10" / "a").mkdir(parents=True)
    files = [f"{tmp_path}/files/{folder}/{name}.jpg" for folder in ("p10/a", "p10/b", "p11/a", "p11/b") for name in "xyz"]
    assert absent_folders(files, str(tmp_path)) == {"files/p10/a": 3, "files/p10/b": 3, "files/p11": 6}


def test_many_folders_are_counted_by_the_one_above(tmp_path: Path) -> None:
    (tmp_path / "files" / "p10").mkdir(parents=True)
    patients = [f"{tmp_path}/files/p10/{number}/x.jpg" for number in range(SHOWN_FOLDERS + 1)]
    assert absent_folders([*patients, f"{tmp_path}/files/p11/a/x.jpg"], str(tmp_path)) == {
        "files/p10": SHOWN_FOLDERS + 1,
        "files/p11": 1,
    }
