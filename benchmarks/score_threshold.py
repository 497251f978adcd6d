"""Precision, recall and F1 of the pseudo boxes of a finished demo run over the score threshold, against the drawn truth.

Only the training and validation studies of the report source count; the test split is left alone. A pseudo box is right if it
has the class of a drawn box that no better one has taken, at IoU 0.5 or more, in original pixels.

Usage: python benchmarks/score_threshold.py [--run DIR]
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools.mask import iou

from d2rnet.data.coco import category_names, load_coco
from d2rnet.io import read_json, read_jsonl

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
LEAST_IOU = 0.5


def matches(run: Path) -> tuple[list[tuple[float, bool]], int]:
    """Return score and rightness of every pseudo box, and the number of drawn boxes."""
    truth = {
        record["image_id"]: record["boxes"]
        for record in read_jsonl(run / "resources/demo_cohort/truth.jsonl")
        if record["source"] == "mimic" and record["split"] != "test"
    }
    coco = load_coco(run / "resources/unlabelled.json")
    names = category_names(coco)
    predicted = defaultdict(list)
    for result in read_json(run / "results/predict_boxes/predictions.json"):
        predicted[result["image_id"]].append(result)
    judged, drawn = [], 0
    for image in coco["images"]:
        if image["source_id"] not in truth:
            continue
        boxes = truth[image["source_id"]]
        drawn += len(boxes)
        scale = np.tile([image["source_width"] / image["width"], image["source_height"] / image["height"]], 2)
        judged += judge_image(sorted(predicted[image["id"]], key=lambda result: -result["score"]), boxes, scale, names)
    return judged, drawn


def judge_image(results: list[dict], boxes: list[dict], scale: np.ndarray, names: dict[int, str]) -> list[tuple[float, bool]]:
    """Match one image's results, best score first, to its drawn boxes."""
    free = {
        index: np.array([[x1, y1, x2 - x1, y2 - y1]], dtype=float)
        for index, (x1, y1, x2, y2) in enumerate(box["bbox_xyxy"] for box in boxes)
    }
    judged = []
    for result in results:
        bbox_xywh = (np.array(result["bbox"]) * scale)[None]
        name = names[result["category_id"]]
        fits = [i for i, box in free.items() if boxes[i]["class"] == name and iou(bbox_xywh, box, [0])[0, 0] >= LEAST_IOU]
        if fits:
            del free[fits[0]]
        judged.append((result["score"], bool(fits)))
    return judged


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    judged, drawn = matches(parser.parse_args().run)
    print(f"{drawn} drawn boxes of training and validation studies")
    print("threshold  precision  recall     F1")
    for threshold in THRESHOLDS:
        kept = [right for score, right in judged if score >= threshold]
        precision, recall = sum(kept) / max(len(kept), 1), sum(kept) / drawn
        print(f"{threshold:9.2f}  {precision:9.3f}  {recall:6.3f}  {2 * sum(kept) / (len(kept) + drawn):5.3f}")


if __name__ == "__main__":
    main()
