"""Images that must not be trained on without labels: those of the labelled test split, of its patients, of the reports.

A report source that trains on a labelled test image is an error (:func:`check_leakage`), because leaving the image out would
change the published report split. A folder of extra images loses such images instead (:func:`overlaps`): the folder may well
be the whole collection that the labelled images come from. Used by verify_inputs; nothing is written.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.files.problems import Problems

LABELLED_IMAGE = "images_of_the_labelled_source"
LABELLED_PATIENT = "images_of_labelled_test_patients"
REPORT_IMAGE = "images_of_the_report_source"
REPEATED_IMAGE = "repeated_images"
REASONS = (LABELLED_IMAGE, LABELLED_PATIENT, REPORT_IMAGE, REPEATED_IMAGE)


def may_become_test(labelled: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled images outside the source's own training split; without an official split any may be tested on."""
    return labelled[labelled["split"] != "train"]


def check_leakage(labelled: pd.DataFrame, other: pd.DataFrame, problems: Problems, *, file: str, remedy: str) -> None:
    """Note images of the labelled test split that another source would train on.

    Args:
        labelled: columns ``source_id``, ``split``, ``file`` (path as text) and ``identity`` (its content, see
            :mod:`d2rnet.cxr.conversion.copies`) of the labelled source.
        other: columns ``name`` (the image's id in its own source), ``identity`` and ``split`` of another source; only
            ``train`` and ``val`` are looked at.
        problems: grows by one for each image, found by id or by content.
        file: root of the other source, named in problems.
        remedy: what to do about it.
    """
    test = may_become_test(labelled)
    used = other[other["split"].isin(["train", "val"])]
    test_ids = set(test["source_id"])
    test_files = dict(zip(test["identity"], test["file"], strict=True))
    test_files.pop(None, None)
    for row in used.itertuples():
        same_file = test_files.get(row.identity)
        if row.name in test_ids or same_file is not None:
            why = f"the same content or UID as {same_file}" if same_file else "an id of the labelled test split"
            problems.add(
                "labelled_test_image_in_training",
                file=file,
                record=f"image {row.name}",
                got=f"split {row.split}, {why}",
                expected="no labelled test image",
                remedy=remedy,
            )


def check_own_copies(labelled: pd.DataFrame, problems: Problems) -> None:
    """Note labelled images of equal content of which one may be tested on: the other would be trained on.

    Args:
        labelled: columns ``source_id``, ``split``, ``file`` and ``identity`` of the labelled source.
        problems: grows by one for each image but the first of each content (kind ``copy_of_labelled_image``).
    """
    known = labelled[labelled["identity"].notna()]
    for _, copies in known[known["identity"].duplicated(keep=False)].groupby("identity", sort=False):
        if (copies["split"] == "train").all():
            continue
        first = copies.iloc[0]
        for row in copies.iloc[1:].itertuples():
            problems.add(
                "copy_of_labelled_image",
                file=row.file,
                record=f"image {row.source_id}",
                got=f"the same content or UID as {first['file']} (image {first['source_id']})",
                expected="each test image once, under one id",
                remedy="Take one of the two and its rows out of the tables, or give both to the training split.",
            )


def overlaps(extra: pd.DataFrame, labelled: pd.DataFrame, reports: pd.DataFrame) -> "pd.Series[str]":
    """Say why an extra unlabelled image is to be left out, if it is.

    Images are compared by name, by content and by the UID of DICOM files, so that copies under another name are found; one
    that was written anew as PNG or JPG under another name is not. Patients are compared where the folder's file names tell
    them (ChestX-ray14's).

    Args:
        extra: columns ``name``, ``patient``, ``file`` and ``identity`` of all extra folders, in the order of the
            configuration; names and patients are the folder's own.
        labelled: columns ``source_id``, ``subject_id``, ``split`` and ``identity``.
        reports: columns ``name`` and ``identity`` of the report source.

    Returns:
        One of REASONS, the first that holds, or "" for an image to keep; indexed as ``extra``.
    """
    reasons = pd.Series("", index=extra.index, dtype=object)
    if extra.empty:
        return reasons
    identities = extra["identity"]
    stems = extra["file"].map(lambda file: Path(file).stem)

    def also_in(names: "pd.Series[str]", contents: "pd.Series[Any]") -> "pd.Series[bool]":
        known = set(contents) - {None}
        return identities.map(lambda identity: identity in known) | extra["name"].isin(names) | stems.isin(names)

    patients = set(may_become_test(labelled)["subject_id"]) - {""}
    holds = {
        LABELLED_IMAGE: also_in(labelled["source_id"], labelled["identity"]),
        LABELLED_PATIENT: extra["patient"].isin(patients),
        REPORT_IMAGE: also_in(reports["name"], reports["identity"]),
        REPEATED_IMAGE: identities.notna() & identities.duplicated(),
    }
    for reason in reversed(REASONS):
        reasons[holds[reason]] = reason
    return reasons


def count_reasons(reasons: "pd.Series[str]") -> dict[str, int]:
    """Return each of REASONS with the number of images left out for it."""
    return {reason: int((reasons == reason).sum()) for reason in REASONS}
