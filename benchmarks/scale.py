"""Time and peak memory of the steps that see the whole of MIMIC-CXR at once, on synthetic tables and reports of its size.

* ``verify``: verify_inputs on 15,000 labelled images (67,914 rows) and 377,110 images with 227,835 report files. **Headers are
  not read**: no image exists, each header is made up from the tables. What reading them adds is measured apart (``headers``).
* ``convert``: convert_labelled and convert_unlabelled on the same tables, the records of 256 conversion shards made up.
* ``annotation``: predict_boxes joining 8 shards of 31 boxes per image (as many as the demo draws at the default score
  floor), and build_annotation on them.
* ``plan``: ``snakemake -n`` with 256 shards of each kind.
* ``headers``: images per second that check_headers opens, with one process, on copies of one drawn JPG.

Targets: under 2 min and 4 GB each, the plan under 30 s. *load* is the machine's load average at the end of a step: above the
number of cores, the step has waited for others, and its processor time tells more. Needs 3 GB of disk. Usage:
``python benchmarks/scale.py [part ...] [--scale 1.0] [--workers 2]``.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from tables import (
    MIMIC_IMAGES,
    MIMIC_STUDIES,
    SENTENCES,
    STUDIES_A_PATIENT,
    in_own_process,
    measure_annotation,
    peak_gb,
    write_annotation_inputs,
)
from tables_labelled import synthetic_vinbigdata_table

from d2rnet.cxr.conversion import verify
from d2rnet.cxr.conversion.convert_labelled import convert_labelled
from d2rnet.cxr.conversion.convert_unlabelled import convert_unlabelled
from d2rnet.cxr.conversion.image_shards import SIZES
from d2rnet.cxr.conversion.settings import DataSettings, LabelledConversionSettings, UnlabelledConversionSettings
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.cxr.images.radiograph import RadiographHeader, reduced_hw
from d2rnet.cxr.images.reader import check_headers
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.runs.shards import record_path

ROOT = Path(__file__).resolve().parents[1]
SHARDS = 256
PNG_SIDE_PX = 1024
MIMIC_HW = (3056, 2544)
HEADER_COPIES = 2000
BOXES_AN_IMAGE = 31.0
TARGETS = {"verify": (120.0, 4.0), "convert": (120.0, 4.0), "annotation": (120.0, 4.0), "plan": (30.0, 4.0)}


def main() -> int:
    """Run the chosen parts, print one line each, return 1 if a target is missed at full scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *TARGETS, "headers"], help="parts to run (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of studies")
    parser.add_argument("--workers", type=int, default=2, help="processes of verify_inputs")
    arguments = parser.parse_args()
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {code_version()['commit']}")
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in arguments.parts or [*TARGETS, "headers"]:
            for step, result in MEASURES[part](folder, arguments.scale, arguments.workers).items():
                seconds, gigabytes = TARGETS.get(part, (float("inf"), float("inf")))
                late = result["seconds"] > seconds or result["peak_gb"] > gigabytes
                missed |= late
                verdict = (
                    f" (target {seconds:.0f} s, {gigabytes:.0f} GB: {'MISSED' if late else 'met'})" if part in TARGETS else ""
                )
                result["load"] = round(os.getloadavg()[0], 1)
                print(f"{step}: {json.dumps(result)}{verdict}", flush=True)
    return int(missed and arguments.scale == 1.0)


def measure_verify(folder: Path, scale: float, workers: int) -> dict[str, Any]:
    """Time verify_inputs with made-up headers."""
    write_sources(folder, scale)
    return {"verify_inputs": in_own_process(_verify, folder, workers)}


def _verify(folder: Path, workers: int) -> dict[str, Any]:
    sizes = made_up_sizes(folder)

    def made_up(paths: list[Path], workers: int) -> list[tuple[Path, RadiographHeader, None]]:
        return [(path, RadiographHeader(*sizes.get(path.stem, MIMIC_HW), "", "L", "JPEG", 8), None) for path in paths]

    start = time.perf_counter()
    with mock.patch.object(verify, "check_headers", made_up):
        verify.verify_inputs(output=folder / "verify", workers=workers, settings=settings(folder))
    figures = _figures(start)
    summary = read_json(folder / "verify" / "summary.json")
    return figures | {"images": summary["reports"]["images"], "reports": summary["reports"]["reports"]}


def measure_convert(folder: Path, scale: float, workers: int) -> dict[str, Any]:
    """Time the two converters of tables on the records of 256 shards that nobody converted."""
    if not (folder / "verify").is_dir():
        measure_verify(folder, scale, workers)
    in_own_process(write_records, folder)
    return {
        "convert_labelled": in_own_process(_convert, folder, "labelled"),
        "convert_unlabelled": in_own_process(_convert, folder, "unlabelled"),
    }


def _convert(folder: Path, part: str) -> dict[str, Any]:
    checked, sections = folder / "verify", settings(folder)
    output = folder / "out" / part
    given: dict[str, Any] = {
        "images": checked / f"{part}_images.jsonl",
        "counts": checked / "counts.json",
        "shards": sorted((folder / part).glob("*.jsonl")),
        "output": output,
    }
    start = time.perf_counter()
    if part == "labelled":
        labelled = LabelledConversionSettings(labelled=sections.labelled, conversion=sections.conversion)
        convert_labelled(boxes=checked / "labelled_boxes.jsonl", settings=labelled, **given)
    else:
        reports = UnlabelledConversionSettings(reports=sections.reports, conversion=sections.conversion)
        convert_unlabelled(reports=checked / "reports.jsonl", settings=reports, **given)
    figures = _figures(start)
    return figures | {"megabytes_written": round(sum(path.stat().st_size for path in output.rglob("*.json*")) / 1e6)}


def write_records(folder: Path) -> None:
    """Write what convert-images-shard would have written."""
    known = made_up_sizes(folder)
    for part in ("labelled", "unlabelled"):
        listed = list(read_jsonl(folder / "verify" / f"{part}_images.jsonl"))
        for shard in range(SHARDS):
            first, last = (len(listed) * place // SHARDS for place in (shard, shard + 1))
            names = ((record["source"], record["file_name"]) for record in listed[first:last])
            records = [{"source": source, "file_name": file_name, "reason": None} for source, file_name in names]
            for record in records:
                source_hw = known.get(Path(record["source"]).stem, MIMIC_HW)
                record |= dict(zip(SIZES, (*reduced_hw(*source_hw, PNG_SIDE_PX), *source_hw), strict=True))
            path = folder / part / f"{shard + 1}-of-{SHARDS}.jsonl"
            write_jsonl(path, records)
            counts = {"shard": shard + 1, "shards": SHARDS, "images": len(records)}
            hashes = {"images": {"sha256": "none"}}
            run = {
                "command": "convert-images-shard",
                "counts": counts,
                "inputs": hashes,
                "settings": {"max_side_px": PNG_SIDE_PX},
            }
            write_json(record_path(path), run)


def made_up_sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Height and width of the labelled images that do not exist, by id."""
    sizes = pd.read_csv(folder / "labelled_source" / "sizes.csv")
    return dict(zip(sizes["image_id"], zip(sizes["height"], sizes["width"], strict=True), strict=True))


def measure_plan(folder: Path, scale: float, workers: int) -> dict[str, Any]:
    """Time a dry run of everything with 256 shards of each kind."""
    return {"snakemake -n": in_own_process(_plan, folder)}


def _plan(folder: Path) -> dict[str, Any]:
    overlay = folder / "overlay.yaml"
    kinds = ("conversion", "prediction", "generation")
    overlay.write_text(json.dumps({"runtime": {f"{kind}_shards": SHARDS for kind in kinds}}))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(ROOT / "Snakefile"),
        "-d",
        str(folder / "plan"),
        "-n",
        "--cores",
        "1",
    ]
    start = time.perf_counter()
    done = subprocess.run([*command, "--configfile", str(overlay)], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    jobs = int(done.stdout.rsplit("\ntotal ", 1)[1].split()[0])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    return {"seconds": round(seconds, 1), "processor_seconds": round(processor, 1), "peak_gb": round(peak, 2), "jobs": jobs}


def measure_headers(folder: Path, scale: float, workers: int) -> dict[str, Any]:
    """Time the reading of headers, which ``verify`` leaves out, on copies of a JPG of a radiograph's size."""
    return {"check_headers": in_own_process(_headers, folder)}


def _headers(folder: Path) -> dict[str, Any]:
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (3056 // 8, 2544 // 8), dtype=np.uint8)
    (folder / "jpg").mkdir()
    paths = [folder / "jpg" / f"{number}.jpg" for number in range(HEADER_COPIES)]
    cv2.imwrite(str(paths[0]), cv2.resize(noise, (2544, 3056), interpolation=cv2.INTER_CUBIC))
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    start = time.perf_counter()
    checked = check_headers(paths, 1)
    figures = _figures(start)
    assert all(header is not None for _, header, _ in checked)
    return figures | {"images_a_second": round(HEADER_COPIES / figures["seconds"])}


def _figures(start: float) -> dict[str, Any]:
    """Wall-clock and processor time of this process, which has done nothing else of weight, and its peak memory."""
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time()}
    return {name: round(value, 1) for name, value in seconds.items()} | {"peak_gb": peak_gb()}


def settings(folder: Path) -> DataSettings:
    """Section ``data`` of a run on the synthetic sources."""
    sources = {
        "labelled": {"source": "vinbigdata", "root": str(folder / "labelled_source"), "size_table": "sizes.csv"},
        "reports": {"source": "mimic", "root": str(folder / "mimic"), "views": []},
        "conversion": {"max_side_px": PNG_SIDE_PX},
    }
    return DataSettings.read(sources)


def write_sources(folder: Path, scale: float) -> None:
    """Write both sources: tables of the full size, one text file per study, no image."""
    root = folder / "labelled_source"
    (root / "train").mkdir(parents=True)
    table, sizes = synthetic_vinbigdata_table(0)
    table.to_csv(root / "train.csv", index=False)
    sizes.to_csv(root / "sizes.csv", index=False)
    chance, studies = random.Random(0), round(MIMIC_STUDIES * scale)
    rows = []
    for number in range(round(MIMIC_IMAGES * scale)):
        study = number % studies
        patient = int(study / STUDIES_A_PATIENT)
        split = "validate" if patient % 125 == 0 else "test" if patient % 71 == 1 else "train"
        dicom_id = "-".join(f"{chance.getrandbits(32):08x}" for _ in range(5))
        rows.append((dicom_id, 50_000_000 + study, 10_000_000 + patient, split, "PA", *MIMIC_HW))
    columns = ["dicom_id", "study_id", "subject_id", "split", "ViewPosition", "Rows", "Columns"]
    images = pd.DataFrame(rows, columns=columns)
    files = folder / "mimic" / "files"
    for study_id, subject_id in images[["study_id", "subject_id"]].drop_duplicates().itertuples(index=False):
        path = files / f"p{str(subject_id)[:2]}" / f"p{subject_id}" / f"s{study_id}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("FINAL REPORT\n FINDINGS: " + " ".join(chance.choices(SENTENCES, k=6)) + "\n\n IMPRESSION: Normal.\n")
    images[columns[:4]].to_csv(folder / "mimic" / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    images[[*columns[:3], *columns[4:]]].to_csv(folder / "mimic" / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)


def measure_boxes(folder: Path, scale: float, workers: int) -> dict[str, Any]:
    """Time the join of the shards of boxes, and build_annotation as ``benchmarks/tables.py`` does."""
    target = folder / "annotation"
    target.mkdir()
    in_own_process(write_annotation_inputs, target, scale, BOXES_AN_IMAGE)
    in_own_process(_write_box_records, target)
    results = {
        "predict_boxes": in_own_process(_join_boxes, target),
        "build_annotation": in_own_process(measure_annotation, target, scale),
    }
    shutil.rmtree(target)
    return results


def _write_box_records(folder: Path) -> None:
    """Write the run records that predict-boxes-shard would have written."""
    shards = sorted(folder.glob("shard_*.jsonl"))
    hashes = {"unlabelled": {"sha256": sha256_file(folder / "unlabelled.json")}, "weights": {"sha256": "none"}}
    for number, path in enumerate(shards, start=1):
        counts = {"shard": number, "shards": len(shards), "boxes": sum(1 for _ in read_jsonl(path))}
        run = {
            "command": "predict-boxes-shard",
            "counts": counts,
            "inputs": hashes,
            "settings": PredictionSettings().to_json(),
        }
        write_json(record_path(path), run)


def _join_boxes(folder: Path) -> dict[str, Any]:
    from d2rnet.cxr.detector.results import gather_boxes  # torch, which the other parts do not load

    shards = [path for path in sorted(folder.glob("shard_*.jsonl")) if record_path(path).is_file()]
    start = time.perf_counter()
    output = folder / "joined" / "predictions.jsonl"
    gather_boxes(unlabelled=folder / "unlabelled.json", shards=shards, output=output, settings=PredictionSettings())
    figures = _figures(start)
    for path in shards:
        record_path(path).unlink()  # shard_*.jsonl is what build_annotation is given
    return figures | {"megabytes_written": round((folder / "joined" / "predictions.jsonl").stat().st_size / 1e6)}


MEASURES: dict[str, Callable[[Path, float, int], dict[str, Any]]] = {
    "verify": measure_verify, "convert": measure_convert, "annotation": measure_boxes, "plan": measure_plan,
    "headers": measure_headers,
}  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
