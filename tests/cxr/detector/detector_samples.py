"""A tiny detector and a tiny data set: bright ellipses and rectangles on noise, 64 px."""

from pathlib import Path

import cv2
import numpy as np

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.detector.settings import DetectorRuntime, TrainDetectorSettings

TINY = TrainDetectorSettings().replaced(
    model={
        "backbone_width": 16,
        "fpn_channels": 16,
        "roi_fc_dim": 32,
        "anchor_sizes_px": [8, 16, 32, 64],
        "train_shortest_px": [64, 64],
        "test_shortest_px": 64,
        "longest_px": 96,
        "rpn_pre_nms_train": 50,
        "rpn_post_nms_train": 30,
        "rpn_pre_nms_test": 50,
        "rpn_post_nms_test": 20,
        "rpn_batch_per_image": 32,
        "roi_batch_per_image": 16,
    },
    training={
        "total_iters": 4,
        "burn_in_iters": 2,
        "labelled_batch": 2,
        "unlabelled_batch": 2,
        "labelled_views": "weak_and_strong",
        "ema_keep_rate": 0.5,
        "pseudo_score_threshold": 0.01,
        "warm_up_iters": 0,
    },
)
RUNTIME = DetectorRuntime().replaced(checkpoint_every_iters=1, log_every_iters=1)


def draw_split(folder: Path, name: str, count: int, *, seed: int, boxes: bool = True, split: str = "train") -> Path:
    """Write ``<name>.json`` and its PNG; every third image has no box, heights differ."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        height, width = 64, (64, 80)[index % 2]
        pixels = rng.normal(90, 12, (height, width))
        image_id = index + 1
        for _ in range(index % 3):
            w, h = rng.integers(14, 26, 2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            kind = int(rng.integers(2))
            mask = np.zeros((height, width), np.uint8)
            if kind:
                cv2.rectangle(mask, (int(x), int(y)), (int(x + w - 1), int(y + h - 1)), 1, -1)
            else:
                cv2.ellipse(mask, (int(x + w / 2), int(y + h / 2)), (int(w / 2), int(h / 2)), 0, 0, 360, 1, -1)
            pixels[mask > 0] += 100
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 4 if kind else 16, "iscrowd": 0}
            annotations.append({**annotation, "bbox": [int(x), int(y), int(w), int(h)], "area": int(w * h)})
        file_name = f"{name}/{image_id}.png"
        cv2.imwrite(str(folder / file_name), pixels.clip(0, 255).astype(np.uint8))
        record = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        images.append({**record, "source_id": f"{name}-{image_id}", "split": split})
    path = folder / f"{name}.json"
    write_coco(path, images, annotations if boxes else [])
    return path


def draw_splits(folder: Path) -> dict[str, Path]:
    """Write the four COCO files that train_detector takes; return them by argument name."""
    return {
        "labelled_train": draw_split(folder, "train", 9, seed=1),
        "labelled_val": draw_split(folder, "val", 3, seed=2, split="val"),
        "labelled_test": draw_split(folder, "test", 6, seed=3, split="test"),
        "unlabelled": draw_split(folder, "unlabelled", 8, seed=4, boxes=False),
    }
