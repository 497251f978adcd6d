"""calibrate_thresholds: the score from which on the boxes of a class are precise enough, found on the validation split.

A class's threshold is the lowest score at which the boxes that reach it have the wanted precision (a hit is one by COCO's rule
at IoU 0.5), so recall is as high as that precision allows. Classes with few validation boxes would only fit noise: they take
the threshold of all classes together. The test split plays no part.

Reads: val.json of convert_labelled, a folder of train-detector. Writes: thresholds.json, run.json.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.coco_scores import REPORTED, Scored, as_figure, match_results
from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.config import CONFIG_NAME, TEACHER_NAME
from d2rnet.cxr.detector.evaluate import predict
from d2rnet.cxr.detector.results import Result
from d2rnet.cxr.detector.settings import CalibrateThresholdsSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime

log = logging.getLogger(__name__)
LEAST_IOU = 0.5
SPLIT = "val"


@dataclass(frozen=True)
class Choice:
    """A threshold and what the validation boxes at or above it are worth.

    Attributes:
        threshold: least score.
        precision: share of the kept boxes that hit; None if none is kept.
        recall: share of the truth boxes that are hit; None without truth.
        val_boxes: truth boxes.
        boxes_kept: predicted boxes at or above the threshold.
        reached: whether ``precision`` is the wanted one at least.
    """

    threshold: float
    precision: float | None
    recall: float | None
    val_boxes: int
    boxes_kept: int
    reached: bool


def calibrate_thresholds(
    *,
    labelled_val: Path,
    model: Path,
    output: Path,
    device: str,
    settings: CalibrateThresholdsSettings,
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Choose a threshold per class for the EMA teacher's pseudo boxes and write ``thresholds.json``.

    Args:
        labelled_val: COCO json of the validation split.
        model: folder of train-detector.
        output: folder for thresholds.json and run.json.
        device: auto, cpu, cuda or cuda:N.
        settings: of prediction and calibration.
        runtime: how images are loaded.

    Raises:
        DatasetError: an image is of another split, the split has no box, or the detector finds nothing on it.
        CheckpointError: the folder does not hold a detector of this version.
    """
    records = load_records(labelled_val)
    check_split(records, labelled_val)
    prediction = settings.prediction
    wanted = settings.calibration
    results = predict(records, model, TEACHER_NAME, device, prediction, runtime)
    chosen = calibrate_classes(records, results, precision=wanted.wanted_precision, min_boxes=wanted.min_boxes)
    document = {
        "split": SPLIT,
        "wanted_precision": wanted.wanted_precision,
        "min_boxes": wanted.min_boxes,
        "iou": LEAST_IOU,
        "score_floor": prediction.score_floor,
        "n_images": len(records),
        **chosen,
        "detector": {"file": str(model / TEACHER_NAME), "sha256": sha256_file(model / TEACHER_NAME)},
    }
    write_json(output / "thresholds.json", document)
    write_run_record(
        output / "run.json",
        command="calibrate-thresholds",
        settings=settings,
        inputs={"labelled_val": labelled_val, "config": model / CONFIG_NAME, "ema_teacher": model / TEACHER_NAME},
        counts={
            "images": len(records),
            "boxes": chosen["pooled"]["val_boxes"],
            "classes_with_the_pooled_threshold": len(chosen["pooled_classes"]),
            "classes_below_the_wanted_precision": len(chosen["unreached_classes"]),
        },
    )
    _log_choices(document)


def check_split(records: Sequence[Record], path: Path) -> None:
    """Prove that all images are of the validation split.

    Raises:
        DatasetError: names the first images of another split, or says that there is no box.
    """
    others = [f"{record.source_id} ({record.split or 'none'})" for record in records if record.split != SPLIT]
    if others:
        raise DatasetError(
            f"{path}: {len(others)} image(s) of another split: {', '.join(others[:10])}; expected split '{SPLIT}' alone. "
            "Thresholds must not be chosen on images that the detector is trained or tested on: give val.json."
        )
    if not any(len(record.classes) for record in records):
        raise DatasetError(f"{path}: {len(records)} images without any box; expected a labelled validation split.")


def calibrate_classes(
    records: Sequence[Record], results: Sequence[Result], *, precision: float, min_boxes: int
) -> dict[str, Any]:
    """Choose the threshold of each class.

    Args:
        records: validation images.
        results: COCO results on them.
        precision: wanted share of right boxes among those kept, in (0, 1].
        min_boxes: classes with fewer validation boxes take the pooled threshold, as do those without any prediction.

    Returns:
        ``pooled``: the :class:`Choice` of all classes together; ``classes``: class name -> its choice, with ``own``: whether
        the threshold is the class's own; ``pooled_classes`` and ``unreached_classes``: names.

    Raises:
        DatasetError: there is no prediction at all.
    """
    scored = match_results(records, results, areas=("all",))
    if not np.isin(scored.found.classes, scored.present).any():
        raise DatasetError(
            "the detector finds nothing on the validation split; expected boxes to choose a threshold from. Train it longer "
            "or lower cxr.detector.prediction.score_floor."
        )
    pooled = choose(*_ranked(scored, scored.present), wanted=precision)
    classes: dict[str, Any] = {}
    for category, name in enumerate(CATEGORY_NAMES):
        scores, hits, boxes = _ranked(scored, np.array([category]))
        own = boxes >= min_boxes and len(scores) > 0
        choice = choose(scores, hits, boxes, wanted=precision) if own else at(pooled.threshold, scores, hits, boxes, precision)
        classes[name] = {**asdict(choice), "own": own}
    return {
        "pooled": asdict(pooled),
        "classes": classes,
        "pooled_classes": [name for name, choice in classes.items() if not choice["own"]],
        "unreached_classes": [name for name, choice in classes.items() if choice["own"] and not choice["reached"]],
    }


def _ranked(scored: Scored, categories: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Scores (N,), best first, and hits (N,) of the detections of some classes, and the number of their truth boxes."""
    places = np.flatnonzero(np.isin(scored.found.classes, categories))
    places = places[np.argsort(-scored.found.scores[places], kind="stable")]
    hits = scored.matches.hit[0, REPORTED["AP50"], places]
    return scored.found.scores[places], hits, int(np.isin(scored.truth.classes, categories).sum())


def choose(scores: NDArray[np.float64], hits: NDArray[np.bool_], val_boxes: int, *, wanted: float) -> Choice:
    """Choose the lowest score at which the wanted precision holds; if it never does, the one of highest precision.

    Args:
        scores: (N,) N > 0, best first.
        hits: (N,).
        val_boxes: truth boxes.
        wanted: precision in (0, 1].
    """
    last_of_score = np.append(scores[1:] < scores[:-1], True)  # boxes of one score are kept or dropped together
    places = np.flatnonzero(last_of_score)
    precision = np.cumsum(hits)[places] / (places + 1)
    enough = np.flatnonzero(precision >= wanted)
    best = enough[-1] if len(enough) else len(places) - 1 - int(precision[::-1].argmax())
    return at(float(scores[places[best]]), scores, hits, val_boxes, wanted)


def at(threshold: float, scores: NDArray[np.float64], hits: NDArray[np.bool_], val_boxes: int, wanted: float) -> Choice:
    """Say what the boxes at or above a threshold are worth; arguments as in :func:`choose`."""
    kept = scores >= threshold
    right = int(hits[kept].sum())
    precision = right / int(kept.sum()) if kept.any() else None
    return Choice(
        threshold=threshold,
        precision=None if precision is None else as_figure(precision),
        recall=as_figure(right / val_boxes) if val_boxes else None,
        val_boxes=val_boxes,
        boxes_kept=int(kept.sum()),
        reached=precision is not None and precision >= wanted,
    )


def _log_choices(document: dict[str, Any]) -> None:
    for name, choice in [("all classes", document["pooled"]), *document["classes"].items()]:
        figures = (choice[key] for key in ("threshold", "precision", "recall", "val_boxes"))
        log.info(
            "%-20s threshold %.3f, precision %s, recall %s, %d boxes%s",
            name,
            *figures,
            "" if choice.get("own", True) else " (pooled threshold)",
        )
    if document["unreached_classes"]:
        log.warning(
            "precision %g is not reached by: %s; they keep the threshold of their highest precision",
            document["wanted_precision"],
            ", ".join(document["unreached_classes"]),
        )
