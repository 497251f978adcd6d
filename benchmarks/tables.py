"""Time and peak memory of the table stages at full size, on synthetic tables.

* ``labelled``: VinBigData-sized (67,914 rows, 15,000 images, three readers) to COCO, without pixels. Target: under 20 s.
* ``annotation``: MIMIC-CXR-sized (377,110 images, 227,835 studies) join into annotation.json. Target: under 2 min and 4 GB.

Each part runs in a process of its own, whose peak resident memory is read at its end. Usage:
``python benchmarks/tables.py [labelled|annotation ...] [--scale 1.0]``.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.cxr.annotation.build import build_annotation
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.findings.classes import coco_categories
from d2rnet.report.annotation_file import load_annotation
from d2rnet.runs.provenance import code_version, hardware

MIMIC_IMAGES = 377_110
MIMIC_STUDIES = 227_835
STUDIES_A_PATIENT = 3.5
BOXES_AN_IMAGE = 4.0  # above predict_boxes' floor
SHARDS = 8
SENTENCES = (
    "The lungs are well expanded and clear.", "There is no pneumothorax or pleural effusion.",
    "The cardiac silhouette is mildly enlarged, unchanged from prior.", "Opacity at the left base may be atelectasis.",
    "No acute osseous abnormality is identified \u2013 degenerative changes of the thoracic spine are noted.",
    "Endotracheal tube terminates 3.5 cm above the carina.", "Mild pulmonary vascular congestion is present.",
)  # fmt: skip
TARGETS = {"labelled": (20.0, None), "annotation": (120.0, 4.0)}


def main() -> int:
    """Run the chosen parts, print one line each, return 1 if a target is missed at full scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *TARGETS], help="parts to run (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of studies (annotation only)")
    arguments = parser.parse_args()
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {code_version()['commit']}")
    missed = False
    for part in arguments.parts or TARGETS:
        result = _measure(part, arguments.scale)
        seconds, gigabytes = TARGETS[part]
        late = result["seconds"] > seconds or (gigabytes is not None and result["peak_gb"] > gigabytes)
        missed |= late
        limits = f"target {seconds:.0f} s" + (f", {gigabytes:.0f} GB" if gigabytes else "")
        print(f"{part}: {json.dumps(result)} ({limits}: {'MISSED' if late else 'met'})", flush=True)
    return int(missed and arguments.scale == 1.0)


def _measure(part: str, scale: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        if part == "annotation":  # in a process of its own too: a fork's peak starts at its parent's size
            in_own_process(write_annotation_inputs, files, scale)
        return in_own_process(measure_annotation if part == "annotation" else measure_labelled, files, scale)


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its peak memory is its alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure_labelled(folder: Path, scale: float) -> dict[str, Any]:
    """Convert the VinBigData-sized table; the time excludes making it."""
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module("tables_labelled").run() | {"peak_gb": peak_gb()}


def measure_annotation(folder: Path, scale: float) -> dict[str, Any]:
    """Time build_annotation on the files of :func:`write_annotation_inputs`, and the reading of its result."""
    start, processor = time.perf_counter(), time.process_time()
    build_annotation(
        unlabelled=folder / "unlabelled.json",
        reports=folder / "reports.jsonl",
        predictions=sorted(folder.glob("shard_*.jsonl")),
        output=folder / "out",
        settings=AnnotationSettings(),
    )
    seconds, processor, peak = time.perf_counter() - start, time.process_time() - processor, peak_gb()
    counts = read_json(folder / "out" / "counts.json")
    start = time.perf_counter()
    entries = load_annotation(folder / "out" / "annotation.json")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "peak_gb": peak,
        "images": counts["images"]["in"],
        "studies": counts["studies"]["with_report"],
        "boxes_predicted": counts["boxes"]["predicted"],
        "entries": sum(map(len, entries.values())),
        "annotation_mb": round((folder / "out" / "annotation.json").stat().st_size / 1e6),
        "load_annotation_seconds": round(time.perf_counter() - start, 1),
        "load_annotation_peak_gb": peak_gb(),
    }


def peak_gb() -> float:
    """Return the peak resident memory of this process, GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def write_annotation_inputs(folder: Path, scale: float, boxes_an_image: float = BOXES_AN_IMAGE) -> None:
    """Write unlabelled.json, reports.jsonl and prediction shards of a synthetic MIMIC-CXR."""
    images_in_all, studies = round(MIMIC_IMAGES * scale), round(MIMIC_STUDIES * scale)
    chance = random.Random(0)
    images: list[dict[str, Any]] = []
    for number in range(images_in_all):
        study = number % studies
        subject = int(study / STUDIES_A_PATIENT)
        source_id = "-".join(f"{chance.getrandbits(32):08x}" for _ in range(5))
        subject_id, study_id = f"{10_000_000 + subject}", f"{50_000_000 + study}"
        images.append(
            {
                "id": number + 1, "file_name": f"unlabelled_images/{source_id}.png", "height": 1333, "width": 1092,
                "source_height": 3056, "source_width": 2544, "source_id": source_id, "split": _split(subject),
                "study_id": study_id, "subject_id": subject_id, "view": "PA",
                "source_path": f"files/p{subject_id[:2]}/p{subject_id}/s{study_id}/{source_id}.jpg",
            }
        )  # fmt: skip
    coco = {"images": images, "annotations": [], "categories": coco_categories()}
    write_json(folder / "unlabelled.json", coco, indent=None)
    write_jsonl(folder / "reports.jsonl", _reports(images, studies, chance))
    for shard in range(SHARDS):
        image_ids = range(shard + 1, images_in_all + 1, SHARDS)
        write_jsonl(folder / f"shard_{shard}.jsonl", _predictions(image_ids, shard, boxes_an_image))


def _split(subject: int) -> str:
    """MIMIC-CXR's own proportions: about 0.8 % of the patients in validation and 1.4 % in test."""
    return "val" if subject % 125 == 0 else "test" if subject % 71 == 1 else "train"


def _reports(images: list[dict[str, Any]], studies: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    for study in range(studies):
        own = images[study::studies]
        text = " ".join(chance.choices(SENTENCES, k=chance.randint(3, 9)))
        ids = {key: own[0][key] for key in ("subject_id", "study_id", "split")}
        yield ids | {"section": "findings", "report": text, "images": [image["source_id"] for image in own]}


def _predictions(image_ids: range, seed: int, boxes_an_image: float) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    repeated = np.repeat(np.array(image_ids), generator.poisson(boxes_an_image, len(image_ids)))
    corner = generator.uniform(0, 600, (len(repeated), 2))
    size = generator.uniform(10, 400, (len(repeated), 2))
    boxes = np.concatenate([corner, size], axis=1).round(2).tolist()  # as many digits as predict_boxes writes
    scores = generator.beta(0.6, 1.0, len(repeated)).round(5).tolist()
    category_ids = generator.integers(1, 23, len(repeated)).tolist()
    return [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        for image_id, category_id, box, score in zip(repeated.tolist(), category_ids, boxes, scores, strict=True)
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
