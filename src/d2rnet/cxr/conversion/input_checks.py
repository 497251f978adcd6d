"""Checks of verify_inputs across rows and tables: required files, duplicates, splits.

Works on whole columns, so that 377,110 images take seconds; only offending rows are looked at one by one.
"""

import pandas as pd

from d2rnet.cxr.sources.tables import LabelledTable, ReportTable
from d2rnet.files.problems import Problems
from d2rnet.files.table_checks import check_patients, check_repeats
from d2rnet.report.annotation_file import SPLITS


def check_labelled(table: LabelledTable, problems: Problems, *, file: str) -> None:
    """Note repeated images, patients in two splits, boxes of unlisted images, and a source without boxes or a split."""
    images = table.images
    boxes = table.boxes
    check_repeats(images, what="image", id_column="source_id", file=file, problems=problems)
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
    check_repeats(table.images, what="image", id_column="source_id", file=file, problems=problems)
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


def _note_empty(problems: Problems, *, file: str, split: str, what: str) -> None:
    problems.add(
        "empty_split",
        file=file,
        record=split,
        got=f"no {what}",
        expected=f"at least one {what}",
        remedy="Check root, views and section in the configuration, and the source's own split.",
    )
