"""Unbiased Teacher v2 on real radiographs: folds by patient over boxed NIH images, the other images unlabelled. A smoke test.

84 boxed images are far too few to say how good a detector is. The run shows that training on real files is stable: losses
stay finite, and pseudo boxes come in a sane number. Each fold is held out once; unlabelled images of its patients are left
out. A finished fold is kept, a killed one resumes from its last checkpoint.

Usage: python benchmarks/nih_folds.py DATA [--unlabelled DIR ...] [--work DIR] [--folds N] [--set KEY=VALUE ...]
DATA is an NIH ChestX-ray14 folder with its box tables; DIR holds images without boxes.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.cli.given_settings import given_settings
from d2rnet.cxr.boxes.coco import annotations_by_image, load_coco, write_coco
from d2rnet.cxr.boxes.coco_scores import coco_scores
from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.conversion.checked_tables import write_labelled
from d2rnet.cxr.conversion.convert_labelled import SPLITS, convert_labelled
from d2rnet.cxr.conversion.image_conversion import ConversionJob, convert_images
from d2rnet.cxr.conversion.image_shards import convert_images_shard
from d2rnet.cxr.conversion.settings import ImageConversionSettings, LabelledConversionSettings
from d2rnet.cxr.detector.config import STUDENT_NAME, TEACHER_NAME
from d2rnet.cxr.detector.evaluate import predict
from d2rnet.cxr.detector.settings import DetectorRuntime, DetectorSettings, TrainDetectorSettings
from d2rnet.cxr.detector.trainer import train_detector
from d2rnet.cxr.sources import folder as image_folder
from d2rnet.cxr.sources.settings import UnlabelledSourceSettings
from d2rnet.cxr.sources.sources import labelled_source
from d2rnet.figures.tables import markdown_table
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.files.hashes import fingerprint, sha256_file
from d2rnet.files.problems import Problems
from d2rnet.files.splits import split_groups
from d2rnet.runs.provenance import code_version, hardware

SIDE_PX = 256
SEED = 1
BOX_TABLES = ["BBox_List_2017.csv", "vindr_style_annotations.csv"]
NETWORKS = {"ema_teacher": TEACHER_NAME, "student": STUDENT_NAME}
# The demo's network. A run this short is never sure of itself, so the threshold is below the published 0.7 and 0.89.
DETECTOR: dict[str, Any] = {
    "model": {"longest_px": 320},
    "training": {
        "total_iters": 400,
        "burn_in_iters": 250,
        "warm_up_iters": 20,
        "labelled_batch": 4,
        "unlabelled_batch": 4,
        "labelled_views": "weak_and_strong",
        "ema_keep_rate": 0.97,
        "pseudo_score_threshold": 0.5,
    },
    "prediction": {"score_floor": 0.01},
}
RUNTIME = DetectorRuntime(log_every_iters=20, checkpoint_every_iters=50)


def convert(data: Path, unlabelled: Sequence[Path], work: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Convert all images to PNG of 256 px; return one COCO document of the boxed ones, and records of the others."""
    target = work / "labelled"
    labelled = {"source": "nih", "root": str(data), "box_tables": [name for name in BOX_TABLES if (data / name).is_file()]}
    settings = LabelledConversionSettings().replaced(labelled=labelled, conversion={"max_side_px": SIDE_PX})
    table = labelled_source("nih").read_table(settings.labelled, Problems())
    write_json(work / "counts.json", {"labelled": write_labelled(work, table, set())})
    images = work / "labelled_images.jsonl"
    record = work / "shards" / "1-of-1.jsonl"
    convert_images_shard(
        images=images,
        folder=target,
        shard=1,
        shards=1,
        output=record,
        workers=1,
        settings=ImageConversionSettings(max_side_px=SIDE_PX),
    )
    convert_labelled(
        images=images,
        boxes=work / "labelled_boxes.jsonl",
        counts=work / "counts.json",
        shards=[record],
        output=target,
        settings=settings,
    )
    documents = [load_coco(target / f"{split}.json") for split in SPLITS]
    joined = {key: [record for document in documents for record in document[key]] for key in ("images", "annotations")}
    return joined, [image for root in unlabelled for image in convert_folder(root, work)]


def convert_folder(root: Path, work: Path) -> list[dict[str, Any]]:
    """Convert a folder of radiographs below ``work/labelled``, where the json files of the folds are."""
    problems = Problems()
    table = image_folder.read_table(UnlabelledSourceSettings(root=str(root)), problems).images
    problems.raise_if_any()
    names = [f"unlabelled/{root.name}/{source_id}.png" for source_id in table["source_id"]]
    paths = [root / path for path in table["path"]]
    jobs = [ConversionJob(path, work / "labelled" / name) for path, name in zip(paths, names, strict=True)]
    manifest = work / "labelled" / "unlabelled" / root.name / "manifest.jsonl"
    results = convert_images(jobs, max_side_px=SIDE_PX, workers=1, manifest=manifest)
    return [
        {"file_name": name, "height": result.height, "width": result.width, "source_id": source_id, "subject_id": subject_id}
        for name, result, source_id, subject_id in zip(names, results, table["source_id"], table["subject_id"], strict=True)
    ]


def write_fold(work: Path, fold: str, fold_of: Mapping[str, str], boxed: dict[str, Any], others: Sequence[dict]) -> dict:
    """Write the four COCO files of a fold; return them by the argument of ``train_detector``. Validation is empty."""
    annotations = annotations_by_image(boxed)
    test = [image for image in boxed["images"] if fold_of[image["subject_id"]] == fold]
    train = [image for image in boxed["images"] if fold_of[image["subject_id"]] != fold]
    free = [image for image in others if fold_of.get(image["subject_id"]) != fold]
    content = {
        "labelled_train": ("train", train),
        "labelled_val": ("val", []),
        "labelled_test": ("test", test),
        "unlabelled": ("train", [{**image, "id": number} for number, image in enumerate(free, start=1)]),
    }
    paths = {}
    for name, (split, images) in content.items():
        paths[name] = work / "labelled" / f"fold_{fold}_{name}.json"
        boxes = [] if name == "unlabelled" else [box for image in images for box in annotations[image["id"]]]
        write_coco(paths[name], [{**image, "split": split} for image in images], boxes)
    return paths


def run_fold(folder: Path, inputs: dict[str, Path], settings: DetectorSettings) -> dict[str, Any]:
    """Train on a fold and score both networks on the held-out images; a finished fold is read back."""
    identity = fingerprint([settings.to_json(), {name: sha256_file(path) for name, path in inputs.items()}])
    cell = folder / "cell.json"
    if cell.is_file() and (done := read_json(cell))["identity"] == identity:
        return done
    start = time.monotonic()
    trained = TrainDetectorSettings(model=settings.model, training=settings.training)
    train_detector(**inputs, work=folder / "work", output=folder, device="cpu", settings=trained, runtime=RUNTIME)
    records = load_records(inputs["labelled_test"])
    results = {
        name: predict(records, folder, weights, "cpu", settings.prediction, RUNTIME) for name, weights in NETWORKS.items()
    }
    done = {
        "identity": identity,
        "seconds": round(time.monotonic() - start),
        "images": {name: len(load_coco(path)["images"]) for name, path in inputs.items()},
        "history": list(read_jsonl(folder / "metrics.jsonl")),
        "results": results,
    }
    write_json(cell, done, indent=None)
    return done


def score_table(cells: Mapping[str, dict[str, Any]], records: Mapping[str, list[Record]]) -> list[str]:
    """Scores of each fold, and of all held-out images together; most classes have too few boxes to look at."""
    parts = {fold: (records[fold], cell["results"]) for fold, cell in cells.items()}
    pooled = {name: [result for cell in cells.values() for result in cell["results"][name]] for name in NETWORKS}
    parts["all"] = ([record for fold in cells for record in records[fold]], pooled)
    scores = {
        part: {name: coco_scores(held_out, found[name]) for name in NETWORKS} for part, (held_out, found) in parts.items()
    }
    boxes = {part: found["student"]["boxes_per_class"] for part, found in scores.items()}
    largest = max(boxes["all"], key=lambda name: boxes["all"][name])
    rows = []
    for part, found in scores.items():
        held_out = f"{len(parts[part][0])} / {sum(boxes[part].values())} / {len(boxes[part])}"
        values = [found[name][metric] for metric in ("AP50", "AP40") for name in NETWORKS]
        values += [found[name]["per_class_AP50"].get(largest, math.nan) for name in NETWORKS]
        rows.append([part, held_out, *(f"{value:.3f}" for value in values)])
    columns = [f"{metric} {network}" for metric in ("AP50", "AP40", f"AP50 {largest}") for network in ("teacher", "student")]
    return markdown_table(("fold", "images / boxes / classes", *columns), rows)


def training_table(cells: Mapping[str, dict[str, Any]]) -> list[str]:
    """What training looked like; losses and boxes are means of the iterations of one line of metrics.jsonl."""
    rows = []
    for fold, cell in cells.items():
        losses, labelled, pseudo = (
            [line[key] for line in cell["history"] if key in line]
            for key in ("total_loss", "labelled_boxes_per_image", "pseudo_boxes_per_image")
        )
        images = f"{cell['images']['labelled_train']} + {cell['images']['unlabelled']}"
        finite = "yes" if all(map(math.isfinite, losses)) else "NO"
        over_time = ", ".join(f"{value:.2f}" for value in pseudo)
        seconds = str(cell["seconds"])
        rows.append([fold, images, finite, f"{max(losses):.2f}", f"{sum(labelled) / len(labelled):.2f}", over_time, seconds])
    boxes = ("labelled boxes an image", "pseudo boxes an image over time")
    return markdown_table(
        ("fold", "labelled + unlabelled images", "losses finite", "greatest total loss", *boxes, "seconds"), rows
    )


def main() -> None:
    """Convert, train and score each fold, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="NIH ChestX-ray14 folder")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[], metavar="DIR", help="folders of unlabelled images")
    parser.add_argument("--work", type=Path, default=Path("work/nih_folds"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="detector settings, training.seed=2 and so on"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = given_settings(DetectorSettings, [], json.dumps(DETECTOR), arguments.set)
    boxed, others = convert(arguments.data, arguments.unlabelled, arguments.work)
    names = [str(number) for number in range(1, arguments.folds + 1)]
    fold_of = split_groups((image["subject_id"] for image in boxed["images"]), dict.fromkeys(names, 1 / len(names)), seed=SEED)
    cells, records = {}, {}
    for fold in names:
        inputs = write_fold(arguments.work, fold, fold_of, boxed, others)
        cells[fold] = run_fold(arguments.work / f"fold_{fold}", inputs, settings)
        records[fold] = load_records(inputs["labelled_test"])
    machine, code = hardware(), code_version()
    print(
        f"{machine['processor']}, {machine['cores']} cores; commit {code['commit']}{', modified' if code['dirty'] else ''}\n"
    )
    print("Smoke: too few images for a score to mean anything.\n")
    print(*score_table(cells, records), "", *training_table(cells), sep="\n")


if __name__ == "__main__":
    main()
