"""What an extra folder shares with the labelled and the report source."""

from pathlib import Path

import pandas as pd
import pytest

from d2rnet.cxr.conversion.copies import identify
from d2rnet.cxr.conversion.leakage import (
    LABELLED_IMAGE,
    LABELLED_PATIENT,
    REPEATED_IMAGE,
    REPORT_IMAGE,
    check_leakage,
    check_own_copies,
    count_reasons,
    overlaps,
)
from d2rnet.files.problems import Problems

LABELLED = pd.DataFrame(
    {
        "source_id": ["sub_a", "b", "t", "1.2.840.113"],
        "subject_id": ["p1", "", "", ""],
        "split": ["test", "train", "test", "test"],
        "file": ["/none/a.png", "/none/b.png", "/none/t.png", "/none/1.2.840.113"],
    }
)
REPORTS = pd.DataFrame({"name": ["r"], "file": ["/none/r.png"]})
Row = tuple[str, str, str, str]  # id, patient, split, file


def known(images: pd.DataFrame) -> pd.DataFrame:
    """Add what each file holds."""
    identities = identify(images["file"], 1)
    return images.assign(identity=pd.Series([identities[file] for file in images["file"]], index=images.index, dtype=object))


def extra(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return known(pd.DataFrame(rows, columns=["name", "patient", "file"], index=range(7, 7 + len(rows))))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("sub_a", "sub_a", "/x/sub/a.jpg"), LABELLED_IMAGE),  # a copy of the labelled folder, of another type
        (("deep_b", "deep_b", "/x/deep/b.png"), LABELLED_IMAGE),  # the labelled training image, elsewhere
        (("c", "p1", "/x/c.png"), LABELLED_PATIENT),
        (("r", "p1", "/x/r.png"), LABELLED_PATIENT),  # the first reason is counted
        (("in_r", "in_r", "/x/in/r.png"), REPORT_IMAGE),
        (("1_2_840_113", "", "/x/1.2.840.113"), LABELLED_IMAGE),  # named by UID, without suffix
        (("a", "a", "/x/a.png"), ""),
        (("c", "", "/x/c.png"), ""),  # "" is no patient
    ],
)
def test_reason(row: tuple[str, str, str], reason: str) -> None:
    assert overlaps(extra(row), known(LABELLED), known(REPORTS)).to_dict() == {7: reason}


def test_patient_of_labelled_training_images_stays() -> None:
    found = overlaps(extra(("c", "p1", "/x/c.png")), known(LABELLED.assign(split="train")), known(REPORTS))
    assert found.tolist() == [""]


def test_files_are_compared_through_links_and_by_content(tmp_path: Path) -> None:
    for name in ("a", "r", "x"):
        (tmp_path / f"{name}.png").write_bytes(f"content of {name}".encode())
    (tmp_path / "soft.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "r.png")
    (tmp_path / "again.png").hardlink_to(tmp_path / "x.png")
    (tmp_path / "renamed.dcm").write_bytes(b"content of a")
    (tmp_path / "other.png").write_bytes(b"content of b")  # of the same size
    for name in ("empty1", "empty2"):  # no image has no content: not copies of each other
        (tmp_path / f"{name}.png").write_bytes(b"")
    files = (
        "soft.png",
        "hard.png",
        "x.png",
        "again.png",
        "gone.png",
        "gone2.png",
        "renamed.dcm",
        "other.png",
        "empty1.png",
        "empty2.png",
    )
    images = extra(*((f"e_{name}", "", str(tmp_path / name)) for name in files))
    labelled = LABELLED.assign(file=[str(tmp_path / "a.png"), "/none", "/none", "/none"])
    together = known(pd.concat([images, labelled, REPORTS.assign(file=str(tmp_path / "r.png"))], ignore_index=True))
    parts = [together[: len(images)], together[len(images) : -1], together[-1:]]
    found = overlaps(*parts)
    assert found.tolist() == [LABELLED_IMAGE, REPORT_IMAGE, "", REPEATED_IMAGE, "", "", LABELLED_IMAGE, "", "", ""]
    assert list(count_reasons(found).values()) == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("splits", "problems"), [(("train", "test"), 1), (("train", "train"), 0), (("", ""), 1), (("test", "test"), 1)]
)
def test_labelled_copies_of_a_test_image(tmp_path: Path, splits: tuple[str, str], problems: int) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for file, content in zip(files, ("one", "one", "two"), strict=True):
        file.write_text(content)
    images = known(pd.DataFrame({"source_id": ["a", "b", "c"], "file": map(str, files), "split": [*splits, "test"]}))
    noted = Problems()
    check_own_copies(images, noted)
    assert noted.counts() == ({"copy_of_labelled_image": problems} if problems else {})


def test_no_extra_images() -> None:
    assert overlaps(extra(), LABELLED, REPORTS).empty


def leaks(labelled: list[Row], reports: list[Row], *, one_collection: bool = False) -> list[str]:
    """Return the problems of two sources."""
    rows = [*labelled, *reports]
    images = known(pd.DataFrame(rows, columns=["source_id", "subject_id", "split", "file"]))
    other = images[len(labelled) :].rename(columns={"source_id": "name", "subject_id": "patient"})
    problems = Problems()
    check_leakage(images[: len(labelled)], other, problems, file="root", one_collection=one_collection)
    return [f"{problem.kind}: {problem}" for problem in problems.all()]


@pytest.mark.parametrize(
    ("labelled_split", "report_split", "kind", "splits"),
    [
        ("test", "train", "labelled_test_image_in_training", "split train here, test"),
        ("val", "train", "labelled_test_image_in_training", "split train here, val"),
        ("", "val", "labelled_test_image_in_training", "split val here, none yet"),
        ("train", "test", "report_test_image_in_labelled_training", "split test here, train"),
        ("val", "test", "report_test_image_in_labelled_training", "split test here, val"),
        ("", "test", "report_test_image_in_labelled_training", "split test here, none yet"),
        ("train", "train", "", ""),
        ("train", "val", "", ""),
        ("val", "val", "", ""),
        ("test", "test", "", ""),
    ],
)
def test_an_image_that_one_source_tests_on_trains_no_other(
    tmp_path: Path, labelled_split: str, report_split: str, kind: str, splits: str
) -> None:
    """It is found by its id (whatever the files hold: one may be written anew), and by its content under another id."""
    for name, content in (("a", "one"), ("copy", "one"), ("other", "two")):
        (tmp_path / name).write_text(content)
    own = [("a", "", labelled_split, str(tmp_path / "a"))]
    by_id = leaks(own, [("a", "", report_split, str(tmp_path / "other")), ("b", "", report_split, "/none/b")])
    by_content = leaks(own, [("c", "", report_split, str(tmp_path / "copy"))])
    says = f"{kind}: root: image a: got {splits} in the labelled source, an id of the labelled source; expected training,"
    assert [problem[: len(says)] for problem in by_id] == ([says] if kind else [])
    assert [str(tmp_path / "a") in problem for problem in by_content] == [True] * len(by_id)


@pytest.mark.parametrize(
    ("labelled", "reports", "kind"),
    [
        (["test"], ["train", "test"], "labelled_test_patient_in_training"),
        (["train", ""], ["val"], "labelled_test_patient_in_training"),
        (["train"], ["train", "test"], "report_test_patient_in_labelled_training"),
        (["train", "val"], ["train", "val"], ""),
        (["test"], ["test"], ""),
    ],
)
def test_patients_of_one_collection(tmp_path: Path, labelled: list[str], reports: list[str], kind: str) -> None:
    own = [(f"a{number}", "p", split, f"/none/a{number}") for number, split in enumerate(labelled)]
    other = [(f"r{number}", "p", split, f"/none/r{number}") for number, split in enumerate(reports)]
    nobody = ("n", "", "test", "/none/n"), ("m", "", "train", "/none/m")  # "" is no patient
    found = leaks([*own, nobody[0]], [*other, nobody[1]], one_collection=True)
    assert [problem.split(": got")[0] for problem in found] == ([f"{kind}: root: patient p"] if kind else [])
    assert leaks(own, other) == [], "patient 1 of one hospital is not patient 1 of another"
    by_chance = ("same", "", "train", "/none/x"), ("same", "", "train", "/none/y")
    assert leaks([*own, by_chance[0]], [*other, by_chance[1]]) == [], "nor do two sources with an id in common"
    (tmp_path / "same.png").write_text("picture")
    shared = ("x", "", "train", str(tmp_path / "same.png")), ("y", "", "train", str(tmp_path / "same.png"))
    tied = leaks([*own, shared[0]], [*other, shared[1]])
    assert [problem.split(": got")[0] for problem in tied] == [problem.split(": got")[0] for problem in found]
    assert all("same.png" in problem for problem in tied) and all("one folder" in problem for problem in found)
