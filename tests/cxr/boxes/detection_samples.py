"""Truth and detections for the tests of detection scores: single boxes by hand, and random images with near misses."""

from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.cxr.boxes.records import Record


def record(image_id: int, boxes: list[list[float]], classes: list[int], hw: tuple[int, int] = (100, 100)) -> Record:
    """An image with truth boxes, corners in pixels, classes from 0."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(image_id, f"s{image_id}", "test", Path("x.png"), hw, corners, np.array(classes, np.int64))


def result(image_id: int, category_id: int, bbox: list[float], score: float) -> dict[str, Any]:
    """One COCO result, bbox x, y, width, height."""
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def random_case(
    images: int, *, seed: int, classes: int = 4, boxes_per_image: int = 20, score_decimals: int = 5
) -> tuple[list[Record], list[dict[str, Any]]]:
    """Images of many sizes, three in ten without truth; boxes near the truth, now and then of a wrong class, and anywhere."""
    rng = np.random.default_rng(seed)
    records, results = [], []
    for image_id in range(1, images + 1):
        truths = int(rng.integers(1, 6)) if rng.random() > 0.3 else 0
        corner = rng.uniform(0, 120, (truths, 2))
        corners = np.concatenate([corner, corner + np.exp(rng.uniform(1.6, 5, (truths, 2)))], axis=1)
        labels = rng.integers(0, classes, truths)
        height, width = (int(side) for side in rng.integers(200, 500, 2))
        records.append(record(image_id, corners.tolist(), labels.tolist(), (height, width)))
        for _ in range(int(rng.integers(0, 2 * boxes_per_image))):
            label = int(rng.integers(classes))
            x1, y1, w, h = *rng.uniform(0, 200, 2), *rng.uniform(5, 100, 2)
            if truths and rng.random() < 0.6:
                near = int(rng.integers(truths))
                label = int(labels[near]) if rng.random() < 0.9 else label
                x1, y1 = corners[near, :2] + rng.normal(0, 4, 2)
                w, h = np.maximum(corners[near, 2:] - corners[near, :2] + rng.normal(0, 4, 2), 1)
            box = [round(float(value), 2) for value in (x1, y1, w, h)]
            results.append(result(image_id, label + 1, box, round(float(rng.random()), score_decimals)))
    return records, results
