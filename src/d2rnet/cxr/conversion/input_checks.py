"""Checks of verify_inputs across rows and tables: required files, duplicates, splits.

Works on whole columns, so that 377,110 images take seconds; only offending rows are looked at one by one.
"""

import difflib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.report_checks import check_patients
from d2rnet.cxr.sources.tables import LabelledTable, ReportTable, RequiredFile
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import csv_columns
from d2rnet.files.problems import Problems
from d2rnet.report.annotation_file import SPLITS

TABLE_SUFFIXES = (".csv", ".csv.gz")


def check_required_files(files: Iterable[RequiredFile], problems: Problems) -> None:
    """Note files that are missing, tables that cannot be read and columns that a table lacks."""
    for needed in files:
        if not needed.path.exists():
            problems.add(
                "missing_file",
                file=needed.path,
                record=needed.config_key,
                got="no such file or folder",
                expected=needed.what,
                remedy=f"Set {needed.config_key}, or put the file there.",
            )
        elif needed.columns and needed.path.name.endswith(TABLE_SUFFIXES):
            _check_columns(needed, problems)


def _check_columns(needed: RequiredFile, problems: Problems) -> None:
    try:
        found = csv_columns(needed.path)
    except DatasetError as error:
        problems.add(
            "unreadable_table",
            file=needed.path,
            record=needed.config_key,
            got=str(error),
            expected=needed.what,
            remedy="Mend the table.",
        )
        return
    for column in needed.columns:
        if column not in found:
            close = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
            problems.add(
                "missing_column",
                file=needed.path,
                record="header",
                got=", ".join(found),
                expected=f"a column '{column}'" + (f" (closest: '{close[0]}')" if close else ""),
                remedy="Rename the column or take the original file.",
            )


def unlike_release(published: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, str]:
    """Compare counts with those of the full release; return the ones that differ as "got of published".

    A subset is a legitimate input, so that this is for the log and for summary.json, not a problem.
    """
    return {name: f"{counts.get(name, 0)} of {full}" for name, full in published.items() if counts.get(name, 0) != full}


def check_labelled(table: LabelledTable, problems: Problems, *, file: str) -> None:
    """Note repeated images, patients in two splits, boxes of unlisted images, and a source without boxes or a split."""
    images = table.images
    boxes = table.boxes
    _check_repeats(images, problems, file=file)
    unlisted = boxes[~boxes["source_id"].isin(images["source_id"])]
    for row in unlisted.itertuples():
        problems.add(
            "box_of_unlisted_image",
            file=file,
            record=str(row.origin),
            got=f"image {row.source_id}",
            expected="an image of the source",
            remedy="Remove the row or add the image.",
        )
    check_patients(images[images["subject_id"] != ""], file=file, problems=problems)
    splits = set(images["split"])
    wanted = {"train", "test"} if splits - {""} else set()
    for split in sorted(wanted - splits):
        _note_empty(problems, file=file, split=split, what="labelled image")
    if not len(boxes):
        _note_empty(problems, file=file, split="any split", what="box")


def check_reports(table: ReportTable, problems: Problems, *, file: str, with_text: bool) -> None:
    """Note repeated images and studies, patients in two splits, and splits without images or reports.

    Args:
        table: images and reports.
        problems: grows.
        file: root of the source, named in problems.
        with_text: whether reports are expected (a folder of images has none).
    """
    _check_repeats(table.images, problems, file=file)
    if not with_text:
        if not len(table.images):
            _note_empty(problems, file=file, split="train", what="image")
        return
    keys = ["subject_id", "study_id", "split"]
    check_patients(pd.concat([table.images[keys], table.reports[keys]]), file=file, problems=problems)
    for study_id in table.reports.loc[table.reports["study_id"].duplicated(), "study_id"]:
        problems.add(
            "duplicate_study",
            file=file,
            record=f"study {study_id}",
            got="two reports",
            expected="one report per study",
            remedy="Remove one of them.",
        )
    with_report = table.images[table.images["study_id"].isin(table.reports["study_id"])]
    for split in sorted(set(SPLITS) - set(with_report["split"])):
        _note_empty(problems, file=file, split=split, what="image with a report")


def _check_repeats(images: pd.DataFrame, problems: Problems, *, file: str) -> None:
    for column, kind in (("source_id", "duplicate_image_id"), ("path", "duplicate_image_path")):
        if kind in problems.counts():
            continue
        for value in images.loc[images[column].duplicated(), column].unique():
            problems.add(
                kind,
                file=file,
                record=f"image {value}",
                got=f"{column} more than once",
                expected="each image once",
                remedy="Remove the repeated rows.",
            )


def check_alike_ids(images: pd.DataFrame, problems: Problems, *, file: str, folder: Path) -> None:
    """Note ids whose PNGs would be one file where the file system takes names that look alike for the same.

    Args:
        images: column ``source_id``.
        problems: grows.
        file: root of the source, named in problems.
        folder: existing folder on the file system that the PNGs will be written to.
    """
    ids = images["source_id"]
    alike = ids.str.normalize("NFC").str.casefold().duplicated() & ~ids.duplicated()
    if not alike.any() or not folds_names(folder):
        return
    for source_id in ids[alike]:
        problems.add(
            "alike_image_id",
            file=file,
            record=f"image {source_id}",
            got="the id of an image before it, but for capitals or the coding of accents",
            expected=f"ids that are names of different files in {folder}",
            remedy="Rename one, or run on another file system.",
        )


def folds_names(folder: Path) -> bool:
    """Try whether two names that differ in capitals, or in the coding of an accent, are one file in a folder."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        for written, asked in (("a", "A"), ("\u00e9", "e\u0301")):
            (place / written).touch()
            if (place / asked).exists():
                return True
    return False


def _note_empty(problems: Problems, *, file: str, split: str, what: str) -> None:
    problems.add(
        "empty_split",
        file=file,
        record=split,
        got=f"no {what}",
        expected=f"at least one {what}",
        remedy="Check root, views and section in the configuration, and the source's own split.",
    )
