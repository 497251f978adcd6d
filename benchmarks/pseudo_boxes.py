"""Quality of the pseudo boxes of a finished demo run against what was drawn: before and after mutual learning, by subgroup.

Before: the student at the end of burn-in, from which the EMA teacher starts. After: the EMA teacher at the end of training.
Both draw boxes on the training and validation images of the report source, whose truth no rule reads; the test split is
left alone. A box is right by COCO's rule at IoU 0.5: right class, and no better box on the same drawn one. The last table
is of the labelled test split, whose DICOM headers say whether large pixel values are white or black. Prints Markdown.

Usage: python benchmarks/pseudo_boxes.py [--run DIR] [--device auto]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from d2rnet.cxr.boxes.coco_scores import REPORTED, Scored, match_results, mean_over_classes
from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.config import BURN_IN_NAME, TEACHER_NAME
from d2rnet.cxr.detector.evaluate import predict
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.figures.tables import markdown_table
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES
from d2rnet.runs.settings import LoaderRuntime

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AP50 = REPORTED["AP50"]
FOLDERS = {
    "detector": "results/cxr/train_detector",
    "labelled": "resources/cxr/labelled",
    "cohort": "resources/cxr/demo_cohort",
}


def drawn_records(run: Path) -> tuple[list[Record], list[str]]:
    """Training and validation images of the report source with their drawn boxes in the frame of the PNG, and their views."""
    truth = {
        entry["image_id"]: entry
        for entry in read_jsonl(run / FOLDERS["cohort"] / "truth.jsonl")
        if entry["source"] == "mimic" and entry["split"] != "test"
    }
    records = [record for record in load_records(run / "resources/cxr/unlabelled.json") if record.source_id in truth]
    with_truth = []
    for record in records:
        entry = truth[record.source_id]
        corners = np.array([box["bbox_xyxy"] for box in entry["boxes"]], dtype=np.float64).reshape(-1, 4)
        height, width = record.image_hw
        scale = np.tile([width / entry["width"], height / entry["height"]], 2)
        classes = np.array([CATEGORY_IDS[box["class"]] - 1 for box in entry["boxes"]], dtype=np.int64)
        with_truth.append(replace(record, boxes_xyxy=(corners * scale).astype(np.float32), classes=classes))
    return with_truth, [truth[record.source_id]["view"] for record in records]


def photometric_interpretations(run: Path, records: Sequence[Record]) -> list[str]:
    """PhotometricInterpretation of the DICOM file of each labelled test image."""
    folder = run / FOLDERS["cohort"] / "vindr/test"
    headers = (pydicom.dcmread(folder / f"{record.source_id}.dicom", stop_before_pixels=True) for record in records)
    return [str(header.PhotometricInterpretation) for header in headers]


def precision_recall(scored: Scored, threshold: float, chosen: np.ndarray, truth: np.ndarray) -> tuple[int, float, float]:
    """Number of the chosen boxes (N,) at or above a threshold, their precision, and their recall of the truth boxes (M,)."""
    kept = chosen & (scored.found.scores >= threshold)
    right = int(scored.matches.hit[0, AP50, kept].sum())
    return int(kept.sum()), right / max(int(kept.sum()), 1), right / max(int(truth.sum()), 1)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table; fractions with three decimals."""
    return markdown_table(header, [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows])


def by_threshold(stages: dict[str, Scored]) -> list[str]:
    """All classes together: a row a threshold, three columns a stage."""
    rows = []
    for threshold in THRESHOLDS:
        row: list[Any] = [str(threshold)]
        for scored in stages.values():
            everything = np.ones(len(scored.found), dtype=bool), np.ones(len(scored.truth), dtype=bool)
            _, precision, recall = precision_recall(scored, threshold, *everything)
            row += [precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)]
        rows.append(row)
    return table(["threshold", *(f"{stage}: {what}" for stage in stages for what in ("precision", "recall", "F1"))], rows)


def by_class(stages: dict[str, Scored], threshold: float) -> list[str]:
    """One threshold: a row a class that was drawn."""
    first = next(iter(stages.values()))
    rows = []
    for category in first.present:
        truth = first.truth.classes == category
        row: list[Any] = [CATEGORY_NAMES[category], int(truth.sum())]
        for scored in stages.values():
            kept, precision, recall = precision_recall(scored, threshold, scored.found.classes == category, truth)
            row += [kept, precision if kept else "-", recall]
        rows.append(row)
    return table(
        ["class", "drawn", *(f"{stage}: {what}" for stage in stages for what in ("boxes", "precision", "recall"))], rows
    )


def by_group(scored: Scored, groups: Sequence[str], threshold: float) -> list[str]:
    """A row a subgroup of the images: AP50 over the classes present in it, precision and recall at a threshold."""
    labels = np.array(groups)
    rows = []
    for name in sorted(set(groups)):
        mask = labels == name
        ap50 = float(mean_over_classes(scored.per_class([AP50], mask[:, None].astype(np.float32)))[0, 0])
        truth = mask[scored.truth.rows]
        kept, precision, recall = precision_recall(scored, threshold, mask[scored.found.rows], truth)
        rows.append([name, int(mask.sum()), int(truth.sum()), ap50, kept, precision, recall])
    return table(["group", "images", "drawn", "AP50", "boxes", "precision", "recall"], rows)


def report(run: Path, device: str) -> Iterator[str]:
    """Yield the lines of the report."""
    prediction = PredictionSettings.read(read_json(run / "results/cxr/predict_boxes/run.json")["settings"])
    score_threshold = read_json(run / "results/cxr/build_annotation/run.json")["settings"]["score_threshold"]
    target_threshold = read_json(run / FOLDERS["detector"] / "run.json")["settings"]["training"]["pseudo_score_threshold"]
    records, views = drawn_records(run)
    ids = {record.image_id for record in records}
    after = [result for result in read_json(run / "results/cxr/predict_boxes/predictions.json") if result["image_id"] in ids]
    before = predict(records, run / FOLDERS["detector"], BURN_IN_NAME, device, prediction, LoaderRuntime())
    results_of = {"end of burn-in": before, "after training": after}
    stages = {stage: match_results(records, results, areas=("all",)) for stage, results in results_of.items()}
    drawn = sum(len(record.classes) for record in records)
    yield f"{len(records)} images of the report source (training and validation), {drawn} drawn boxes, IoU 0.5."
    yield from ("", "All classes, by threshold:", "", *by_threshold(stages))
    for threshold, use in ((score_threshold, "filter of annotation.json"), (target_threshold, "training targets")):
        yield from ("", f"By class, score at least {threshold} ({use}):", "", *by_class(stages, threshold))
    yield from ("", f"After training, by view, score at least {score_threshold}:", "")
    yield from by_group(stages["after training"], views, score_threshold)
    test = load_records(run / FOLDERS["labelled"] / "test.json")
    scored = match_results(
        test, predict(test, run / FOLDERS["detector"], TEACHER_NAME, device, prediction, LoaderRuntime()), areas=("all",)
    )
    yield from ("", f"Labelled test split, by photometric interpretation, score at least {score_threshold}:", "")
    yield from by_group(scored, photometric_interpretations(run, test), score_threshold)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    for line in report(arguments.run, arguments.device):
        print(line, flush=True)


if __name__ == "__main__":
    main()
