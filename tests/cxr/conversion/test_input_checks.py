"""Checks of verify_inputs on tables made by hand, each with one thing wrong."""

from typing import Any

import pandas as pd
import pytest

from d2rnet.cxr.conversion.input_checks import check_labelled, check_reports
from d2rnet.cxr.sources.tables import (
    BOX_COLUMNS,
    LABELLED_IMAGE_COLUMNS,
    REPORT_COLUMNS,
    REPORT_IMAGE_COLUMNS,
    LabelledTable,
    ReportTable,
)
from d2rnet.files.problems import Problems

Row = tuple[Any, ...]


def labelled(*, images: tuple[Row, ...] = (), boxes: tuple[Row, ...] = (("a", "", 1, 0, 0, 5, 5, "t.csv:row 1"),)) -> Problems:
    """Check a sound table of two images with further rows."""
    sound = (("a", "a.png", "train", "p", 0, 0, 1), ("b", "b.png", "test", "", 0, 0, 0))
    table = LabelledTable(
        pd.DataFrame([*sound, *images], columns=list(LABELLED_IMAGE_COLUMNS)), pd.DataFrame(boxes, columns=list(BOX_COLUMNS))
    )
    problems = Problems()
    check_labelled(table, problems, file="root")
    return problems


def reports(*, images: tuple[Row, ...] = (), texts: tuple[Row, ...] = ()) -> Problems:
    """Check a sound table of three studies with further rows."""
    splits = enumerate(("train", "val", "test"), start=1)
    sound = [(f"i{n}", f"{n}.png", f"p{n}", f"s{n}", "PA", split, 0, 0) for n, split in splits]
    table = ReportTable(
        pd.DataFrame([*sound, *images], columns=list(REPORT_IMAGE_COLUMNS)),
        pd.DataFrame(
            [*((row[3], row[2], row[5], "findings", "Clear.") for row in sound), *texts], columns=list(REPORT_COLUMNS)
        ),
    )
    problems = Problems()
    check_reports(table, problems, file="root", with_text=True)
    return problems


def test_sound_tables() -> None:
    assert len(labelled()) == len(reports()) == 0


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (("a", "c.png", "train", "p", 0, 0, 1), "duplicate_image_id"),
        (("c", "a.png", "train", "p", 0, 0, 1), "duplicate_image_path"),
        (("c", "c.png", "test", "p", 0, 0, 1), "patient_in_two_splits"),
    ],
)
def test_labelled_image(images: Row, kind: str) -> None:
    assert labelled(images=(images,)).counts() == {kind: 1}


def test_unknown_patients_are_not_one_patient() -> None:
    assert len(labelled(images=(("c", "c.png", "train", "", 0, 0, 1),))) == 0


def test_box_of_an_unlisted_image_and_no_box() -> None:
    box = ("z", "", 1, 0, 0, 5, 5, "t.csv:row 9")
    assert "t.csv:row 9: got image z" in labelled(boxes=(box,)).text()
    assert "any split: got no box" in labelled(boxes=()).text()


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (("i1", "9.png", "p1", "s1", "PA", "train", 0, 0), "duplicate_image_id"),
        (("i9", "1.png", "p1", "s1", "PA", "train", 0, 0), "duplicate_image_path"),
        (("i9", "9.png", "p1", "s9", "PA", "test", 0, 0), "patient_in_two_splits"),
        (("i9", "9.png", "p9", "s1", "PA", "train", 0, 0), "study_of_two_patients"),
    ],
)
def test_report_image(images: Row, kind: str) -> None:
    assert reports(images=(images,)).counts() == {kind: 1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (("s1", "p1", "train", "findings", "Again."), "duplicate_study"),
        (("s9", "p1", "test", "findings", "Clear."), "patient_in_two_splits"),
    ],
)
def test_report(text: Row, kind: str) -> None:
    assert reports(texts=(text,)).counts() == {kind: 1}
