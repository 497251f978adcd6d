"""Scores of student and EMA teacher on the labelled test split, under the protocol of docs/explanation/protocol.md.

Reads: a COCO json and a folder of train-detector. Writes: metrics.json, run.json, figures/*.{svg,png}.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.coco_scores import AREA_RANGES, IOU_THRESHOLDS
from d2rnet.cxr.boxes.detection_figures import draw_figures
from d2rnet.cxr.boxes.detection_scores import (
    FROC_RATES,
    HEADLINES,
    VOC_IOU,
    Evaluated,
    difference_of,
    evaluate_results,
    figures_of,
    headlines,
)
from d2rnet.cxr.boxes.matching import MAX_DETECTIONS, REFERENCE_SIDE_PX
from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.config import CONFIG_NAME, STUDENT_NAME, TEACHER_NAME
from d2rnet.cxr.detector.predict import detect, load_detector, make_batches
from d2rnet.cxr.detector.results import Result
from d2rnet.cxr.detector.settings import EvaluateDetectorSettings, PredictionSettings
from d2rnet.errors import DatasetError
from d2rnet.evaluation.resampling import LEVEL, resample_counts
from d2rnet.files.documents import write_json
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime

log = logging.getLogger(__name__)
NETWORKS = {"student": STUDENT_NAME, "ema_teacher": TEACHER_NAME}


def evaluate_detector(
    *,
    labelled_test: Path,
    model: Path,
    output: Path,
    device: str,
    settings: EvaluateDetectorSettings,
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Score both networks of train-detector, write ``metrics.json`` and draw the figures.

    Args:
        labelled_test: COCO json of the test split.
        model: folder of train-detector.
        output: folder for metrics.json, run.json and figures.
        device: auto, cpu, cuda or cuda:N.
        settings: of prediction and scoring.
        runtime: how images are loaded.

    Raises:
        DatasetError: the test split has no image or no box.
        CheckpointError: the folder does not hold a detector of this version.
    """
    records = load_records(labelled_test)
    boxes = sum(len(record.classes) for record in records)
    if not boxes:
        raise DatasetError(f"{labelled_test}: {len(records)} images without any box; expected a labelled test split.")
    evaluated, scores = score_networks(records, model, device, settings, runtime)
    metrics: dict[str, Any] = {
        "protocol": protocol(records, settings),
        "n_images": len(records),
        "n_images_without_boxes": sum(len(record.classes) == 0 for record in records),
        "n_boxes": boxes,
        **scores,
    }
    write_json(output / "metrics.json", metrics)
    draw_figures(output / "figures", evaluated, metrics)
    write_run_record(
        output / "run.json",
        command="evaluate-detector",
        settings=settings,
        inputs={
            "labelled_test": labelled_test,
            "config": model / CONFIG_NAME,
            **{name: model / weights for name, weights in NETWORKS.items()},
        },
        counts={"images": len(records), "boxes": boxes},
        seeds={"bootstrap": settings.evaluation.bootstrap_seed},
    )
    _log_table(metrics)


def score_networks(
    records: Sequence[Record], model: Path, device: str, settings: EvaluateDetectorSettings, runtime: LoaderRuntime
) -> tuple[dict[str, Evaluated], dict[str, Any]]:
    """Run both networks on the images; the arguments are those of :func:`evaluate_detector`.

    Returns:
        Network -> its matched detections; network -> its scores, and ``teacher_minus_student``.
    """
    evaluation = settings.evaluation
    counts = resample_counts(len(records), samples=evaluation.bootstrap_samples, seed=evaluation.bootstrap_seed)
    evaluated = {}
    drawn = {}
    scores: dict[str, Any] = {}
    for name, weights in NETWORKS.items():
        results = predict(records, model, weights, device, settings.prediction, runtime)
        evaluated[name] = evaluate_results(records, results)
        drawn[name] = headlines(evaluated[name], counts)
        scores[name] = figures_of(evaluated[name], drawn[name], counts)
    difference = difference_of(scores["ema_teacher"], scores["student"], drawn["ema_teacher"], drawn["student"])
    return evaluated, {**scores, "teacher_minus_student": difference}


def predict(
    records: Sequence[Record],
    folder: Path,
    weights_name: str,
    device: str,
    prediction: PredictionSettings,
    runtime: LoaderRuntime,
) -> list[Result]:
    """Run one network of a folder of train-detector over images; return its COCO results.

    Args:
        records: images.
        folder: output of train-detector.
        weights_name: file of the network's weights in it.
        device: auto, cpu, cuda or cuda:N.
        prediction: ``cxr.detector.prediction``.
        runtime: how images are loaded.
    """
    network, cfg = load_detector(folder, weights_name, device, prediction)
    batches = make_batches(records, cfg, prediction.batch_images)
    found = track(detect(network, cfg, batches, prediction, runtime), total=len(records), what=f"run {weights_name}")
    return [result for image in found for result in image]


def protocol(records: Sequence[Record], settings: EvaluateDetectorSettings) -> dict[str, Any]:
    """What the figures hold for, in the words of docs/explanation/protocol.md."""
    prediction = settings.prediction
    evaluation = settings.evaluation
    return {
        "split": ", ".join(sorted({record.split or "not stated" for record in records})),
        "metric": "COCO AP (as pycocotools), PASCAL VOC 2010 AP, FROC, AUROC; means over classes with test boxes",
        "iou_thresholds": [round(value, 2) for value in IOU_THRESHOLDS],
        "voc_and_froc_iou_above": VOC_IOU,
        "froc_false_positives_per_image": list(FROC_RATES),
        "size_limits_px2": [AREA_RANGES["medium"][0], AREA_RANGES["medium"][1]],
        "size_longer_side_px": REFERENCE_SIDE_PX,
        "max_boxes_per_image": prediction.max_boxes_per_image,
        "max_boxes_per_image_and_class": MAX_DETECTIONS,
        "score_floor": prediction.score_floor,
        "normal_images_included": True,
        "interval": f"{LEVEL:.0%} bootstrap over images: normal on the logit scale, less bias; of differences the basic one",
        "bootstrap_samples": evaluation.bootstrap_samples,
        "bootstrap_seed": evaluation.bootstrap_seed,
    }


def _log_table(metrics: dict[str, Any]) -> None:
    scores = {name: metrics[name] for name in NETWORKS}
    log.info("%-24s %s", "", " ".join(f"{name:>28}" for name in scores))
    for key in HEADLINES:
        log.info("%-24s %s", key, " ".join(f"{_with_interval(score, key):>28}" for score in scores.values()))
    boxes = scores["ema_teacher"]["boxes_per_class"]
    for name, count in boxes.items():
        values = " ".join(f"{score['per_class_AP50'][name]:28.3f}" for score in scores.values())
        log.info("%-24s %s  (AP50, %d boxes)", name, values, count)
    without = scores["ema_teacher"]["classes_without_boxes"]
    if without:
        log.info("no test box, in no mean: %s", ", ".join(without))


def _with_interval(score: dict[str, Any], key: str) -> str:
    if score[key] is None:
        return "-"
    low, high = score["intervals"][key] or (score[key], score[key])
    return f"{score[key]:.3f} ({low:.3f} to {high:.3f})"
