"""fit_thresholds: the scores from which on boxes agree best with the reports of the training split, a threshold a class.

Agreement is the micro F1, over entries and classes, of "a box of the class is kept" with "the report names the class", doubt
included. F1 = 2 hits / (named + kept) is at its greatest F where each class's threshold has the greatest 2 hits - F kept
(Dinkelbach, Management Science 1967), so that F and thresholds are found in turn. A class that few reports name would only fit
noise: it takes the threshold of all classes together. Validation and test reports play no part. What an image shows and its
report leaves out counts as a wrong box here, unlike in calibrate-thresholds.

Reads: unlabelled.json and reports.jsonl of convert_unlabelled, COCO results of predict_boxes. Writes: thresholds.json,
run.json.

Shapes: n entries, C = 22 classes, m scores.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from d2rnet.evaluation.clinical import named_matrix, precision_recall_f1
from d2rnet.files.collection import collection_paused
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.protocols import has_words
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
Scores = NDArray[np.float64]
Named = NDArray[np.bool_]
COMMAND, SPLIT = CHOSEN_BY["reports"]
KEEPS_NOTHING = 1.0  # no softmax score over 23 classes gets there


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


def micro_f1(named: Named, kept: Named) -> float:
    """Return the F1 of what is kept against what is named, both of one shape; 0 where neither has anything."""
    return _worth(named, kept)["f1"] or 0.0


def pooled_threshold(best: Scores, named: Named) -> float:
    """Return the one threshold of all classes with the greatest micro F1; arguments as for :func:`class_thresholds`."""
    cuts, hits, kept = _cuts(best.ravel(), named.ravel())
    return float(cuts[int(np.argmax(2 * hits / np.maximum(kept + named.sum(), 1)))])


def class_thresholds(best: Scores, named: Named, *, min_reports: int) -> Scores:
    """Return the (C,) thresholds that have the greatest micro F1 together.

    Args:
        best: (n, C) highest score of a class in an entry, 0 without a box.
        named: (n, C) whether the entry's report names it.
        min_reports: classes that fewer entries name take the pooled threshold.
    """
    least = np.full(best.shape[1], pooled_threshold(best, named))
    own = np.flatnonzero(named.sum(axis=0) >= min_reports)
    reached = -1.0
    while (now := micro_f1(named, best >= least)) > reached:
        reached = now
        for category in own:
            cuts, hits, kept = _cuts(best[:, category], named[:, category])
            least[category] = cuts[int(np.argmax(2 * hits - reached * kept))]
    return least


def _cuts(scores: Scores, named: Named) -> tuple[Scores, Scores, Scores]:
    """Return the thresholds that tell scores (m,) apart, greatest first, the hits of each and what each keeps."""
    order = np.argsort(-scores, kind="stable")
    found = scores[order]
    last = np.append(found[1:] < found[:-1], True) & (found > 0)  # of its score
    hits = np.cumsum(named[order])[last]
    return np.append(KEEPS_NOTHING, found[last]), np.append(0, hits), np.append(0, np.flatnonzero(last) + 1)


def _choices(best: Scores, named: Named, min_reports: int) -> dict[str, Any]:
    """Return what thresholds.json says of the classes together and of each."""
    pooled = pooled_threshold(best, named)
    least = class_thresholds(best, named, min_reports=min_reports)
    own = named.sum(axis=0) >= min_reports
    kept = best >= least
    classes = {
        name: {"threshold": float(least[place]), **_worth(named[:, place], kept[:, place]), "own": bool(own[place])}
        for place, name in enumerate(CATEGORY_NAMES)
    }
    return {
        "min_reports": min_reports,
        "pooled": {"threshold": pooled, **_worth(named, best >= pooled)},
        "together": _worth(named, kept),
        "classes": classes,
        "pooled_classes": [name for name, choice in classes.items() if not choice["own"]],
    }


def _worth(named: Named, kept: Named) -> dict[str, Any]:
    """Return ``precision``, ``recall`` and ``f1``, None for a share of nothing; ``named`` and ``kept`` count both sides."""
    hits, true, said = int((named & kept).sum()), int(named.sum()), int(kept.sum())
    return {**precision_recall_f1(hits, true, said), "named": true, "kept": said}


def _log_choices(document: dict[str, Any]) -> None:
    log.info("agreement with %d training reports, F1: %s", document["n_entries"], document["together"]["f1"])
    for name, choice in document["classes"].items():
        figures = (choice[key] for key in ("threshold", "named", "kept"))
        log.info("%-20s threshold %.3f, named %d, kept %d%s", name, *figures, "" if choice["own"] else " (pooled threshold)")
