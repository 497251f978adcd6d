"""Time of a VinBigData-sized table from CSV to COCO json, without pixels: read, check, fuse, split, write.

The table is synthetic with the real one's counts: 15,000 images, three readers each, 10,606 images "No finding" by all, 36,096
boxes, 67,914 rows. ``run()`` is one part of ``benchmarks/tables.py``; alone: ``python benchmarks/tables_labelled.py``.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.conversion.convert_labelled import build_coco
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.vinbigdata import read_table
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import VINBIGDATA_NAMES

IMAGES, NORMAL_IMAGES, BOXES, READERS_AN_IMAGE, READERS = 15_000, 10_606, 36_096, 3, 17
JITTER = 0.01  # standard deviation of a corner between readers, share of the image side
PNG_SIDE_PX = 1024


def synthetic_vinbigdata_table(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw ``train.csv`` (67,914 rows) and a size table (15,000 rows) in the layouts of the Kaggle version.

    Boxes of the readers of one image are jittered copies of the same lesions, so that fusion has work to do.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([rng.bytes(16).hex() for _ in range(IMAGES)])
    sizes = pd.DataFrame(
        {"image_id": ids, "height": rng.integers(2000, 3400, IMAGES), "width": rng.integers(1800, 3100, IMAGES)}
    )
    readers = np.argsort(rng.random((IMAGES, READERS)), axis=1)[:, :READERS_AN_IMAGE] + 1
    abnormal = IMAGES - NORMAL_IMAGES
    looks = abnormal * READERS_AN_IMAGE
    per_look = 1 + rng.multinomial(BOXES - looks, np.full(looks, 1 / looks))
    look = np.repeat(np.arange(looks), per_look)
    image, lesion = look // READERS_AN_IMAGE, np.arange(BOXES) - np.repeat(np.cumsum(per_look) - per_look, per_look)
    lesions = lesion.max() + 1
    true_sides = rng.uniform(0.05, 0.3, (abnormal, lesions, 2))
    true_corners = np.concatenate([(low := rng.uniform(0.0, 0.65, true_sides.shape)), low + true_sides], axis=2)
    classes = rng.integers(0, len(VINBIGDATA_NAMES), (abnormal, lesions))
    drawn = np.clip(true_corners[image, lesion] + rng.normal(0.0, JITTER, (BOXES, 4)), 0.0, 1.0)
    corners = drawn * sizes[["width", "height", "width", "height"]].to_numpy()[image]
    boxes = pd.DataFrame(corners.round(1), columns=["x_min", "y_min", "x_max", "y_max"])
    boxes.insert(0, "image_id", ids[image])
    boxes.insert(1, "class_name", np.array(VINBIGDATA_NAMES)[classes[image, lesion]])
    boxes.insert(2, "class_id", classes[image, lesion])
    boxes.insert(3, "rad_id", [f"R{number}" for number in readers[image, look % READERS_AN_IMAGE]])
    normal = pd.DataFrame(
        {"image_id": np.repeat(ids[abnormal:], READERS_AN_IMAGE), "class_name": "No finding", "class_id": 14}
    )
    normal["rad_id"] = [f"R{number}" for number in readers[abnormal:].ravel()]
    return pd.concat([boxes, normal]).sample(frac=1.0, random_state=seed), sizes


def run(seed: int = 0) -> dict[str, Any]:
    """Write the synthetic table to a temporary folder, convert it, and return seconds a step and the counts."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        labelled = LabelledSettings(source="vinbigdata", root=name, size_table="sizes.csv")
        table, sizes = synthetic_vinbigdata_table(seed)
        table.to_csv(root / "train.csv", index=False)
        sizes.to_csv(root / "sizes.csv", index=False)
        problems = Problems()
        start = time.perf_counter()
        source = read_table(labelled, problems)
        after_reading = time.perf_counter()
        images = source.images.assign(file_name=source.images["source_id"])
        longer = images[["source_height", "source_width"]].max(axis=1)
        for side in ("height", "width"):
            images[side] = (images[f"source_{side}"] * PNG_SIDE_PX / longer).round().astype(int)
        documents, counts = build_coco(images, source.boxes, labelled, problems)
        after_building = time.perf_counter()
        for split, document in documents.items():
            write_coco(root / f"{split}.json", document["images"], document["annotations"])
        end = time.perf_counter()
    problems.raise_if_any()
    steps = {"read": after_reading - start, "check_fuse_split": after_building - after_reading, "write": end - after_building}
    return {
        "seconds": round(end - start, 2),
        "steps": {step: round(seconds, 2) for step, seconds in steps.items()},
        "rows": len(table),
        "images": len(source.images),
        "boxes": dict(counts["consensus"]),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
