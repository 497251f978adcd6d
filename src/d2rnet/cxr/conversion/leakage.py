"""Images and patients that one source tests on and another trains on.

Between the labelled source, which the detector learns from, and the report source that is an error (:func:`check_leakage`),
because leaving the image out would change a published split. A folder of extra images loses such images instead
(:func:`overlaps`): the folder may well be the whole collection that the labelled images come from. Used by verify_inputs;
nothing is written.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.images.image_names import without_image_suffix
from d2rnet.files.problems import Problems

LABELLED_IMAGE = "images_of_the_labelled_source"
LABELLED_PATIENT = "images_of_labelled_test_patients"
REPORT_IMAGE = "images_of_the_report_source"
REPEATED_IMAGE = "repeated_images"
IMAGE_REMEDY = (
    "Give it the same split in both sources, or leave it out of one. If two images share an id by chance, give one of them "
    "another (source_id of a COCO file, id of R2Gen's)."
)
PATIENT_REMEDY = (
    "Give the patient's images the same split in both sources, or leave them out of one. If the two sources number their "
    "patients independently, give one of them other ids (subject_id)."
)
REASONS = (LABELLED_IMAGE, LABELLED_PATIENT, REPORT_IMAGE, REPEATED_IMAGE)


def may_become_test(labelled: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled images outside the source's own training split; without an official split any may be tested on."""
    return labelled[labelled["split"] != "train"]


def check_leakage(
    labelled: pd.DataFrame, reports: pd.DataFrame, problems: Problems, *, file: str, one_collection: bool = False
) -> None:
    """Note images, and patients, that one of two sources tests on while the other trains on them, or chooses by them.

    Args:
        labelled: columns ``source_id``, ``subject_id``, ``split``, ``file`` (path as text) and ``identity`` (its content, see
            :mod:`d2rnet.cxr.conversion.copies`) of the labelled source; without an official split any image may be of any.
        reports: columns ``name`` (the image's id in its own source), ``patient``, ``identity`` and ``split`` of the other.
        problems: grows by one for each image, found by id or by content, and for each patient.
        file: root of the other source, named in problems.
        one_collection: ids of patients mean the same in both. So they do where the two share a picture.
    """
    by_id = {row.source_id: row for row in labelled.itertuples()}
    by_content = {row.identity: row for row in labelled.itertuples() if row.identity is not None}
    shared = "both lie in one folder" if one_collection else ""
    for row in reports.itertuples():
        copy = by_content.get(row.identity)
        same = copy if copy is not None else by_id.get(row.name)
        if same is None:
            continue
        if copy is not None:
            shared = shared or f"both have {copy.file}"
        why = f"the same content or UID as {same.file}" if copy is not None else "an id of the labelled source"
        # What chooses among trained models is not trained on, either; a patient of both parts does no harm there.
        chosen_by = same.split == "val" and row.split == "train"
        kind = "labelled_test_image_in_training" if chosen_by else _leak({same.split}, {row.split}, "image")
        _note_leak(
            kind, {same.split}, {row.split}, problems, record=f"image {row.name}", why=why, file=file, remedy=IMAGE_REMEDY
        )
    if not shared:
        return
    splits_of = labelled[labelled["subject_id"] != ""].groupby("subject_id")["split"].agg(set)
    of_reports = reports[reports["patient"].isin(splits_of.index)].groupby("patient")["split"].agg(set)
    for patient, splits in of_reports.items():
        record = f"patient {patient}"
        why = f"a patient of both sources ({shared})"
        kind = _leak(splits_of[patient], splits, "patient")
        _note_leak(kind, splits_of[patient], splits, problems, record=record, why=why, file=file, remedy=PATIENT_REMEDY)


def _leak(labelled: set[str], reports: set[str], what: str) -> str:
    """Return the kind of problem that an image or a patient of these splits is, "" for none."""
    if labelled & {"test", ""} and reports & {"train", "val"}:
        return f"labelled_test_{what}_in_training"
    if labelled - {"test"} and "test" in reports:
        return f"report_test_{what}_in_labelled_training"
    return ""


def _note_leak(
    kind: str, labelled: set[str], reports: set[str], problems: Problems, *, record: str, why: str, file: str, remedy: str
) -> None:
    """Note an image or a patient whose splits in both sources do not go together, if ``kind`` says so."""
    if kind:
        problems.add(
            kind,
            file=file,
            record=record,
            got=f"split {_listed(reports)} here, {_listed(labelled)} in the labelled source, {why}",
            expected="training, validation or test in both",
            remedy=remedy,
        )


def _listed(splits: set[str]) -> str:
    return " and ".join(split or "none yet" for split in sorted(splits))


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
    stems = extra["file"].map(lambda file: without_image_suffix(Path(file).name))

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
