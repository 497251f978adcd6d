"""fit_thresholds: the scores from which on boxes agree best with the reports of the training split, a threshold a class.

How they are found: :mod:`d2rnet.evaluation.agreement`. Doubt counts as named. Validation and test reports play no part. What
an image shows and its report leaves out counts as a wrong box here, unlike in calibrate-thresholds.

Reads: unlabelled.json and reports.jsonl of convert_unlabelled, COCO results of predict_boxes. Writes: thresholds.json,
run.json.

Shapes: n entries, C = 22 classes, m scores.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.cxr.annotation.confidence_filter import CHOSEN_BY, ConfidenceFilter
from d2rnet.cxr.annotation.inputs import (
    ImageTable,
    check_looked_at,
    check_origin,
    match_images,
    predicted_by,
    read_images,
    read_reports,
    view_of,
)
from d2rnet.cxr.annotation.predictions import PseudoBoxes, read_predictions
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.images.views import shows_view
from d2rnet.errors import DatasetError
from d2rnet.evaluation.agreement import Scores, class_thresholds, pooled_threshold, worth
from d2rnet.evaluation.clinical import Named, named_matrix
from d2rnet.files.collection import collection_paused
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.protocols import has_words
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
COMMAND, SPLIT = CHOSEN_BY["reports"]


@collection_paused()
def fit_thresholds(
    *, unlabelled: Path, reports: Path, predictions: list[Path], output: Path, settings: AnnotationSettings
) -> None:
    """Choose a threshold per class on the training reports and write ``thresholds.json``.

    Args:
        unlabelled: COCO json of the report source's images.
        reports: reports.jsonl, one study a line.
        predictions: JSON lines of predict_boxes, or of each shard.
        output: folder for thresholds.json and run.json.
        settings: the section ``cxr.annotation``.

    Raises:
        FileNotFoundError: a shard is missing.
        DatasetError: the inputs contradict each other or their formats, see build_annotation; predictions of several
            detectors, or without images that get boxes; no training report names a class that a box shows.
    """
    check_origin(predictions, unlabelled, None)
    detector = predicted_by(predictions)
    problems = Problems()
    images = read_images(unlabelled, problems)
    records = read_reports(reports, problems)
    rows, _ = match_images(images, records, images_file=unlabelled, reports_file=reports, problems=problems)
    boxes, _ = read_predictions(predictions, images, ConfidenceFilter.of_classes({}), problems=problems)
    problems.raise_if_any(details=output / "problems.jsonl")
    check_looked_at(predictions, [view_of(record) for record in images.records], settings.box_views)
    entries = list(_training_entries(records, rows, images, settings))
    best = best_scores(boxes, [of_entry for _, of_entry in entries], len(images.records))
    named = named_matrix([text for text, _ in entries], uncertain_counts=True)
    if not (named & (best > 0)).any():
        raise DatasetError(
            f"{reports}: no box shows what its report names, in {len(entries)} training entries; expected some that agree. "
            "Train the detector longer, or set cxr.annotation.thresholds to fixed."
        )
    document = {"split": SPLIT, "n_entries": len(entries), **_choices(best, named, settings.min_reports), "detector": detector}
    write_json(output / "thresholds.json", document)
    inputs = {"unlabelled": unlabelled, "reports": reports}
    inputs |= {f"predictions_{number}": path for number, path in enumerate(predictions, start=1)}
    counts = {"entries": len(entries), "classes_with_the_pooled_threshold": len(document["pooled_classes"])}
    write_run_record(output / "run.json", command=COMMAND, settings=settings, inputs=inputs, counts=counts)
    _log_choices(document)


def _training_entries(
    records: Sequence[dict[str, Any]], rows_of_reports: Sequence[list[int]], images: ImageTable, settings: AnnotationSettings
) -> Iterator[tuple[str, list[int]]]:
    """Yield report and image rows of each training entry of annotation.json whose images may have boxes."""
    for record, rows in zip(records, rows_of_reports, strict=True):
        shown = [row for row in rows if shows_view(view_of(images.records[row]), settings.box_views)]
        if record["split"] == SPLIT and shown and has_words(record["report"]):
            groups = [shown] if settings.entry == "study" else [[row] for row in shown]
            yield from ((record["report"], group) for group in groups)


def best_scores(boxes: PseudoBoxes, entries: Sequence[Sequence[int]], number_of_images: int) -> Scores:
    """Return (n, C): the highest score of each class in the images of each entry, 0 without a box.

    Args:
        boxes: of all images.
        entries: n lists of image rows.
        number_of_images: of the table that the rows are of.
    """
    of_images = np.zeros((number_of_images, len(CATEGORY_NAMES)))
    np.maximum.at(of_images, (boxes.rows, boxes.category_ids - 1), boxes.scores)
    return np.array([of_images[list(rows)].max(axis=0) for rows in entries]).reshape(-1, len(CATEGORY_NAMES))


def _choices(best: Scores, named: Named, min_reports: int) -> dict[str, Any]:
    """Return what thresholds.json says of the classes together and of each."""
    pooled = pooled_threshold(best, named)
    least = class_thresholds(best, named, min_reports=min_reports)
    own = named.sum(axis=0) >= min_reports
    kept = best >= least
    classes = {
        name: {"threshold": float(least[place]), **worth(named[:, place], kept[:, place]), "own": bool(own[place])}
        for place, name in enumerate(CATEGORY_NAMES)
    }
    return {
        "min_reports": min_reports,
        "pooled": {"threshold": pooled, **worth(named, best >= pooled)},
        "together": worth(named, kept),
        "classes": classes,
        "pooled_classes": [name for name, choice in classes.items() if not choice["own"]],
    }


def _log_choices(document: dict[str, Any]) -> None:
    log.info("agreement with %d training reports, F1: %s", document["n_entries"], document["together"]["f1"])
    for name, choice in document["classes"].items():
        figures = (choice[key] for key in ("threshold", "named", "kept"))
        log.info("%-20s threshold %.3f, named %d, kept %d%s", name, *figures, "" if choice["own"] else " (pooled threshold)")
