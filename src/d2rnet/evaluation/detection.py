"""Scores of student and EMA teacher on the labelled test split.

Protocol: all images of the split, normal ones too; COCO average precision as pycocotools computes it (101 recall points, at
most 100 boxes an image, all box sizes) at IoU 0.50:0.05:0.95, 0.50, 0.75, and 0.40, the IoU of the VinBigData challenge;
classes without a test box are listed and enter no mean; boxes in the frame of the converted PNG.

Reads: a COCO json and a folder of train-detector. Writes: metrics.json, run.json.
"""

import logging
from pathlib import Path
from typing import Any

from d2rnet.detector.coco_scores import IOU_THRESHOLDS, coco_scores
from d2rnet.detector.config import CONFIG_NAME, STUDENT_NAME, TEACHER_NAME
from d2rnet.detector.data import Record, load_records
from d2rnet.detector.matching import MAX_DETECTIONS
from d2rnet.detector.predict import detect, load_detector, make_batches
from d2rnet.errors import DatasetError
from d2rnet.io import write_json
from d2rnet.progress import track
from d2rnet.provenance import write_run_record
from d2rnet.settings import Settings

log = logging.getLogger(__name__)
NETWORKS = {"student": STUDENT_NAME, "ema_teacher": TEACHER_NAME}
SHOWN_SCORES = ("AP", "AP50", "AP75", "AP40")


def evaluate_detector(*, labelled_test: Path, model: Path, output: Path, device: str, settings: Settings) -> None:
    """Score both networks of train-detector and write ``metrics.json``.

    Args:
        labelled_test: COCO json of the test split.
        model: folder of train-detector.
        output: folder for metrics.json and run.json.
        device: auto, cpu, cuda or cuda:N.
        settings: ``detector.prediction``.

    Raises:
        DatasetError: the test split has no image or no box.
        CheckpointError: the folder does not hold a detector of this version.
    """
    records = load_records(labelled_test)
    boxes = sum(len(record.classes) for record in records)
    if not boxes:
        raise DatasetError(f"{labelled_test}: {len(records)} images without any box; expected a labelled test split.")
    scores = {name: score_network(records, model, weights, device, settings) for name, weights in NETWORKS.items()}
    metrics: dict[str, Any] = {
        "protocol": {
            "split": labelled_test.stem,
            "metric": "COCO average precision (pycocotools), mean over classes with test boxes",
            "iou_thresholds": [round(value, 2) for value in IOU_THRESHOLDS],
            "max_boxes_per_image": min(MAX_DETECTIONS, settings["max_boxes_per_image"]),
            "score_floor": settings["score_floor"],
            "normal_images_included": True,
        },
        "n_images": len(records),
        "n_images_without_boxes": sum(len(record.classes) == 0 for record in records),
        "n_boxes": boxes,
        **scores,
    }
    write_json(output / "metrics.json", metrics)
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
    )
    _log_table(scores)


def score_network(records: list[Record], folder: Path, weights_name: str, device: str, settings: Settings) -> dict[str, Any]:
    """Run one network over the images and score it; see :func:`d2rnet.detector.coco_scores.coco_scores`."""
    network, cfg = load_detector(folder, weights_name, device, settings)
    batches = make_batches(records, cfg, settings["batch_images"])
    found = track(detect(network, cfg, batches, settings), total=len(records), what=f"evaluate {weights_name}")
    return coco_scores(records, [result for image in found for result in image])


def _log_table(scores: dict[str, dict[str, Any]]) -> None:
    log.info("%-24s %s", "", " ".join(f"{name:>12}" for name in scores))
    for key in SHOWN_SCORES:
        log.info("%-24s %s", key, " ".join(f"{score[key]:12.3f}" for score in scores.values()))
    boxes = scores["ema_teacher"]["boxes_per_class"]
    for name, count in boxes.items():
        values = " ".join(f"{score['per_class_AP50'][name]:12.3f}" for score in scores.values())
        log.info("%-24s %s  (AP50, %d boxes)", name, values, count)
    without = scores["ema_teacher"]["classes_without_boxes"]
    if without:
        log.info("no test box, in no mean: %s", ", ".join(without))
