"""What an extra folder shares with the labelled and the report source."""

from pathlib import Path

import pandas as pd
import pytest

from d2rnet.cxr.conversion.leakage import (
    LABELLED_IMAGE,
    LABELLED_PATIENT,
    REPEATED_IMAGE,
    REPORT_IMAGE,
    check_leakage,
    count_reasons,
    file_identity,
    overlaps,
)
from d2rnet.files.problems import Problems

LABELLED = pd.DataFrame(
    {
        "source_id": ["sub_a", "b", "t"],
        "subject_id": ["p1", "", ""],
        "split": ["test", "train", "test"],
        "file": ["/none/a.png", "/none/b.png", "/none/t.png"],
    }
)
REPORTS = pd.DataFrame({"name": ["r"], "file": ["/none/r.png"]})


def extra(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["name", "patient", "file"], index=range(7, 7 + len(rows)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("sub_a", "sub_a", "/x/sub/a.jpg"), LABELLED_IMAGE),  # a copy of the labelled folder, of another type
        (("deep_b", "deep_b", "/x/deep/b.png"), LABELLED_IMAGE),  # the labelled training image, elsewhere
        (("c", "p1", "/x/c.png"), LABELLED_PATIENT),
        (("r", "p1", "/x/r.png"), LABELLED_PATIENT),  # the first reason is counted
        (("in_r", "in_r", "/x/in/r.png"), REPORT_IMAGE),
        (("a", "a", "/x/a.png"), ""),
        (("c", "", "/x/c.png"), ""),  # "" is no patient
    ],
)
def test_reason(row: tuple[str, str, str], reason: str) -> None:
    assert overlaps(extra(row), LABELLED, REPORTS).to_dict() == {7: reason}


def test_patient_of_labelled_training_images_stays() -> None:
    found = overlaps(extra(("c", "p1", "/x/c.png")), LABELLED.assign(split="train"), REPORTS)
    assert found.tolist() == [""]


def test_files_are_compared_through_links(tmp_path: Path) -> None:
    for name in ("a", "r", "x"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    (tmp_path / "soft.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "r.png")
    (tmp_path / "again.png").hardlink_to(tmp_path / "x.png")
    assert file_identity(str(tmp_path / "soft.png")) == file_identity(str(tmp_path / "a.png")) is not None
    assert file_identity(str(tmp_path / "gone.png")) is None
    names = ("soft", "hard", "x", "again", "gone", "gone2")  # two missing files are not one file
    images = extra(*((f"e_{name}", "", str(tmp_path / f"{name}.png")) for name in names))
    found = overlaps(
        images, LABELLED.assign(file=[str(tmp_path / "a.png"), "/none", "/none"]), REPORTS.assign(file=str(tmp_path / "r.png"))
    )
    assert found.tolist() == [LABELLED_IMAGE, REPORT_IMAGE, "", REPEATED_IMAGE, "", ""]
    assert list(count_reasons(found).values()) == [1, 0, 1, 1]


def test_no_extra_images() -> None:
    assert overlaps(extra(), LABELLED, REPORTS).empty


@pytest.mark.parametrize(
    ("labelled_split", "report_split", "leaks"),
    [("test", "train", True), ("", "val", True), ("train", "train", False), ("test", "test", False)],
)
def test_labelled_test_image_is_not_trained_on(labelled_split: str, report_split: str, leaks: bool) -> None:
    test = pd.DataFrame({"source_id": ["a"], "file": ["/none/a.png"], "split": labelled_split})
    own = pd.DataFrame({"name": ["a", "b"], "file": ["/none/x", "/none/y"], "split": report_split})
    problems = Problems()
    check_leakage(test, own, problems, file="root", remedy="Leave it out.")
    shown = f"root: image a: got split {report_split}, an id of the labelled test split"
    assert [str(problem).startswith(shown) for problem in problems.all()] == [True] * leaks
