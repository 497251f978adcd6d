"""What build_annotation joins: the report source's images (unlabelled.json) and its reports (reports.jsonl)."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.cxr.images.views import left_out, shows_view, views_looked_at
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.files.problems import Problems
from d2rnet.report.annotation_file import SPLITS

log = logging.getLogger(__name__)
IMAGE_KEYS = ("id", "height", "width", "source_height", "source_width", "source_id", "split")
REPORT_IMAGE_KEYS = ("study_id", "subject_id", "source_path")
WHOLE_KEYS = ("id", "height", "width", "source_height", "source_width")
TEXT_KEYS = ("source_id", "split", *REPORT_IMAGE_KEYS)
REPORT_KEYS = ("study_id", "subject_id", "split", "section", "report", "images")
_REMEDY = "Run 'd2rnet convert-unlabelled' again."


@dataclass(frozen=True)
class ImageTable:
    """The images of unlabelled.json, in file order.

    Attributes:
        records: one dictionary per image, as in the file.
        ids: (n,) int64 image ids.
        hw: (n, 2) float64 height, width of the converted PNG, pixels: the frame of predicted boxes.
        source_hw: (n, 2) float64 height, width of the original, pixels: the frame of annotation.json.
    """

    records: list[dict[str, Any]]
    ids: NDArray[np.int64]
    hw: NDArray[np.float64]
    source_hw: NDArray[np.float64]


def view_of(record: dict[str, Any]) -> str:
    """Return the view of an image of unlabelled.json, "" where its source names none."""
    return record.get("view") or ""


def read_images(path: Path, problems: Problems) -> ImageTable:
    """Read unlabelled.json.

    Raises:
        DatasetError: not a COCO json of this package (see :func:`load_coco`), or an image lacks a key.
    """
    records: list[dict[str, Any]] = load_coco(path)["images"]
    for row, record in enumerate(records):
        missing = [key for key in IMAGE_KEYS if key not in record]
        if record.get("source_path") is not None:
            missing += [key for key in REPORT_IMAGE_KEYS if not record.get(key)]
        if missing:
            raise DatasetError(f"{path}: images[{row}] ({record.get('source_id')}): lacks {', '.join(missing)}. {_REMEDY}")
        whole = [key for key in WHOLE_KEYS if not (type(record[key]) is int and abs(record[key]) < 2**63)]
        texts = [key for key in TEXT_KEYS if not isinstance(record.get(key, ""), str | None)]
        if whole or texts:
            raise DatasetError(
                f"{path}: images[{row}]: {', '.join(whole + texts)} of another type; expected whole numbers under "
                f"{', '.join(WHOLE_KEYS)} and text under {', '.join(TEXT_KEYS)}. {_REMEDY}"
            )
    ids = np.array([record["id"] for record in records], dtype=np.int64)
    sizes = np.array(
        [[record[key] for key in ("height", "width", "source_height", "source_width")] for record in records], dtype=np.float64
    ).reshape(-1, 4)
    for bad in np.flatnonzero(~(sizes > 0).all(axis=1)):
        problems.add(
            "image_size",
            file=path,
            record=f"image {records[bad]['source_id']}",
            got=sizes[bad].tolist(),
            expected="height, width, source_height, source_width above 0",
            remedy=_REMEDY,
        )
    return ImageTable(records, ids, sizes[:, :2], sizes[:, 2:])


def read_reports(path: Path, problems: Problems) -> list[dict[str, Any]]:
    """Read reports.jsonl and return its records sorted by subject and study.

    Raises:
        DatasetError: a record lacks a key or its split is unknown.
    """
    reports = []
    studies: set[str] = set()
    for number, record in enumerate(read_jsonl(path), start=1):
        missing = [key for key in REPORT_KEYS if key not in record]
        if missing:
            raise DatasetError(f"{path}: record {number}: lacks {', '.join(missing)} (it has {', '.join(record)}). {_REMEDY}")
        odd = [key for key in REPORT_KEYS[:-1] if not isinstance(record[key], str)]
        if odd or not (isinstance(record["images"], list) and all(isinstance(name, str) for name in record["images"])):
            wrong = ", ".join(odd or ["images"])
            raise DatasetError(f"{path}: record {number}: {wrong} of another type; expected text, images a list. {_REMEDY}")
        if record["split"] not in SPLITS:
            raise DatasetError(f"{path}: record {number}: split '{record['split']}'; expected {', '.join(SPLITS)}. {_REMEDY}")
        if record["study_id"] in studies:
            problems.add(
                "duplicate_study",
                file=path,
                record=f"record {number}",
                got=f"study {record['study_id']} again",
                expected="one report per study",
                remedy=_REMEDY,
            )
        studies.add(record["study_id"])
        reports.append(record)
    reports.sort(key=lambda record: (record["subject_id"], record["study_id"]))
    return reports


def match_images(
    images: ImageTable, reports: list[dict[str, Any]], *, images_file: Path, reports_file: Path, problems: Problems
) -> tuple[list[list[int]], int]:
    """Find the images of each report.

    Args:
        images: images of unlabelled.json; those without ``source_path`` (extra unlabelled folders) have no report.
        reports: records of :func:`read_reports`.
        images_file: named in problems.
        reports_file: named in problems.
        problems: grows by images that disagree with their report on study, patient or split, images that two reports
            claim, and patients in more than one split.

    Returns:
        For each report the rows of its images in the report's order, and the number of images that reports list but
        unlabelled.json lacks.
    """
    row_of = {record["source_id"]: row for row, record in enumerate(images.records) if record.get("source_path") is not None}
    unclaimed = set(row_of)
    rows_of_reports = []
    absent = 0
    for report in reports:
        rows = [row_of[source_id] for source_id in report["images"] if source_id in row_of]
        absent += len(report["images"]) - len(rows)
        for row in rows:
            image = images.records[row]
            differing = [key for key in ("study_id", "subject_id", "split") if image[key] != report[key]]
            if image["source_id"] not in unclaimed:
                differing.append("claimed twice")
            unclaimed.discard(image["source_id"])
            if differing:
                problems.add(
                    "image_and_report_disagree",
                    file=images_file,
                    record=f"image {image['source_id']}",
                    got=f"{', '.join(differing)} unlike study {report['study_id']}",
                    expected=f"what {reports_file} says",
                    remedy=_REMEDY,
                )
        rows_of_reports.append(rows)
    _check_patients(images, reports, reports_file, problems)
    return rows_of_reports, absent


def _check_patients(images: ImageTable, reports: list[dict[str, Any]], reports_file: Path, problems: Problems) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in images.records:
        if record.get("source_path") is not None:
            splits[record["subject_id"]].add(record["split"])
    for report in reports:
        splits[report["subject_id"]].add(report["split"])
    for subject_id, found in splits.items():
        if len(found) > 1:
            problems.add(
                "patient_in_two_splits",
                file=reports_file,
                record=f"subject {subject_id}",
                got=", ".join(sorted(found)),
                expected="one split per patient",
                remedy="Mend the split table of the report source.",
            )


def check_origin(predictions: Sequence[Path], unlabelled: Path, detector_sha256: str | None) -> None:
    """Prove by the run records beside the predictions that they are of these images, and of the detector of the thresholds.

    Image ids begin at 1 in every cohort, so the files alone cannot tell. Predictions without a run record (of another tool)
    are taken as they are, with a warning.

    Args:
        predictions: files of predict_boxes; the run record is ``run.json`` or ``<stem>.run.json`` in the same folder.
        unlabelled: COCO json of the images.
        detector_sha256: weights that thresholds belong to; None with fixed ones.

    Raises:
        DatasetError: other images or another detector; names the files.
    """
    images_sha256 = sha256_file(unlabelled)
    for path in predictions:
        record_path, record = _run_record(path)
        if record is None:
            log.warning("%s: no run record beside it, so nothing proves that it is of the images of %s", path, unlabelled)
            continue
        given = _mapping(_mapping(record.get("inputs")).get("unlabelled"))
        if given.get("sha256") != images_sha256:
            raise DatasetError(
                f"{path}: predicted on other images: {given.get('file')} with SHA-256 {str(given.get('sha256'))[:12]}, says "
                f"{record_path.name}; expected {unlabelled} with {images_sha256[:12]}. The same numbers name other images "
                "there. Run 'd2rnet predict-boxes' on these images."
            )
        weights = _weights_of(record)
        if detector_sha256 is not None and weights.get("sha256") != detector_sha256:
            raise DatasetError(
                f"{path}: predicted by another detector ({weights.get('file')}, says {record_path.name}) than the one whose "
                "thresholds were chosen. Run 'd2rnet calibrate-thresholds' or 'fit-thresholds' with the predictions' detector."
            )


def check_looked_at(predictions: Sequence[Path], views: Sequence[str], box_views: Sequence[str]) -> None:
    """Prove by the run records beside the predictions that the detector looked at every image that gets boxes.

    Predictions without a run record are taken to be of all images.

    Args:
        predictions: as for :func:`check_origin`.
        views: of the images, as their source names them.
        box_views: views whose images get boxes, see :func:`d2rnet.cxr.images.views.shows_view`.

    Raises:
        DatasetError: it left some out; names the file, and the views.
    """
    getting = [view for view in views if shows_view(view, box_views)]
    for path in predictions:
        record_path, record = _run_record(path)
        looked_at = views_looked_at(record or {}, source=record_path)
        missed = left_out(getting, looked_at)
        if missed:
            raise DatasetError(
                f"{path}: predicted on images of view {' or '.join(looked_at)} alone, says {record_path.name}, but by "
                "cxr.annotation.box_views images of others get boxes, too: "
                f"{', '.join(f'{view} ({count})' for view, count in missed.most_common())}. Run 'd2rnet predict-boxes-shard' "
                "again with a --view for each of cxr.annotation.box_views, or with none."
            )


def predicted_by(predictions: Sequence[Path]) -> dict[str, Any]:
    """Return ``file`` and ``sha256`` of the detector's weights that the run records of predictions name.

    Both are None where no file has a run record.

    Raises:
        DatasetError: they name several.
    """
    found: dict[Any, dict[str, Any]] = {}
    for path in predictions:
        _, record = _run_record(path)
        if record is not None:
            weights = _weights_of(record)
            found[weights.get("sha256")] = {key: weights.get(key) for key in ("file", "sha256")}
    if len(found) > 1:
        names = ", ".join(f"{weights['file']} ({str(sha256)[:12]})" for sha256, weights in found.items())
        raise DatasetError(
            f"{predictions[0]} and others: predicted by {len(found)} detectors, say their run records: {names}; expected one. "
            "Run 'd2rnet predict-boxes-shard' with one detector for all shards."
        )
    return next(iter(found.values()), {"file": None, "sha256": None})


def _weights_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a run record of predict-boxes or of one of its shards says of the detector's weights."""
    return _mapping(record.get("detector", _mapping(record.get("inputs")).get("weights")))


def check_complete(path: Path, found: int) -> None:
    """Compare the number of boxes in a file of predictions with what its run record says, if there is one.

    Raises:
        DatasetError: they differ, or the file holds blanks alone: it was cut, edited or is damaged.
    """
    _, record = _run_record(path)
    said = _mapping((record or {}).get("counts")).get("boxes")
    if (said is not None and said != found) or (not found and path.stat().st_size):
        raise DatasetError(
            f"{path}: holds {found} boxes{'' if said is None else f', its run record says {said}'}: cut, edited or damaged. "
            "Run 'd2rnet predict-boxes' again."
        )


def _mapping(value: Any) -> dict[str, Any]:
    """Return an object of a run record, {} for whatever else stands in its place."""
    return value if isinstance(value, dict) else {}


def _run_record(predictions: Path) -> tuple[Path, dict[str, Any] | None]:
    """Find and read the run record of predict-boxes or of one of its shards."""
    for path in (predictions.with_suffix(".run.json"), predictions.with_name("run.json")):
        record = read_json(path) if path.is_file() else None
        if isinstance(record, dict) and str(record.get("command", "")).startswith("predict-boxes"):
            return path, record
    return predictions, None
