"""Time and peak memory of the steps that see the whole of CT-RATE at once, on synthetic tables of its size.

* ``verify``: verify_ct_inputs on 50,188 volumes of 25,692 studies and 21,304 patients, all reconstructions, reports of twenty
  sentences. The volumes are empty files: **headers are not read**; what reading them adds is the storage's to say.
* ``join``: convert_ct on the records of 64 conversion shards that nobody converted; the contact sheet, of a dozen volumes
  whatever their number, is not drawn.
* ``annotation``: build_ct_annotation on the two, every report cut into structures.

Targets: under 60 s, for the join 2 GB, for the annotation 120 s and 4 GB as the radiographs'. *load* is the machine's load
average at the end of a step. Needs 1 GB of disk. Usage: ``python benchmarks/ct_scale.py [--scale 1.0]``.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from ct_text import drawn_reports
from tables import in_own_process, peak_gb

from d2rnet.ct.annotation.build import build_ct_annotation
from d2rnet.ct.conversion import convert_ct, verify
from d2rnet.ct.conversion.data_settings import CtSourceDataSettings, CtVolumeConversionSettings
from d2rnet.ct.conversion.volume_shards import SHARD_COMMAND
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.runs.shards import record_path

VOLUMES = 50_188
STUDIES = 25_692
PATIENTS = 21_304
VALID_PATIENTS = 1_304
SHARDS = 64
TARGETS = {"verify": (60.0, None), "join": (60.0, 2.0), "annotation": (120.0, 4.0)}


def main() -> int:
    """Run all parts, print one line each, return 1 if a target is missed at full scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of patients")
    arguments = parser.parse_args()
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {code_version()['commit']}")
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_own_process(write_source, folder, arguments.scale)
        for part, (seconds, gigabytes) in TARGETS.items():
            result = in_own_process(MEASURES[part], folder)
            if part == "verify":
                in_own_process(write_shards, folder)
            late = result["seconds"] > seconds or (gigabytes is not None and result["peak_gb"] > gigabytes)
            missed |= late
            result["load"] = round(os.getloadavg()[0], 1)
            limits = f"{seconds:.0f} s" + (f", {gigabytes:.0f} GB" if gigabytes else "")
            print(f"{part}: {json.dumps(result)} (target {limits}: {'MISSED' if late else 'met'})", flush=True)
    return int(missed and arguments.scale == 1.0)


def volume_names(scale: float) -> list[str]:
    """Return names of volumes in CT-RATE's numbers: a study more for every fifth patient, two volumes for most studies."""
    patients, studies, volumes = (round(number * scale) for number in (PATIENTS, STUDIES, VOLUMES))
    valid = round(VALID_PATIENTS * scale)
    names = []
    for study in range(studies):
        patient, scan = study % patients, "abc"[study // patients]
        subject = f"valid_{patient + 1}" if patient < valid else f"train_{patient - valid + 1}"
        of_study = volumes // studies + (study < volumes % studies)
        names += [f"{subject}_{scan}_{number + 1}" for number in range(of_study)]
    return names


def write_source(folder: Path, scale: float) -> None:
    """Write the tables of CT-RATE's second release, and an empty file for each volume."""
    names = volume_names(scale)
    study_of = {name: name.rpartition("_")[0] for name in names}
    studies = list(dict.fromkeys(study_of.values()))
    texts = dict(zip(studies, drawn_reports(len(studies)), strict=True))
    base = folder / "source" / "dataset"
    for sub in ("radiology_text_reports", "metadata", "multi_abnormality_labels"):
        (base / sub).mkdir(parents=True)
    for part, word in (("train", "train"), ("valid", "validation")):
        own = [name for name in names if name.startswith(part)]
        files = pd.Series([f"{name}.nii.gz" for name in own], name="VolumeName")
        reports = pd.DataFrame(
            {"VolumeName": files, "Findings_EN": [texts[study_of[name]] for name in own], "Impressions_EN": "Not given."}
        )
        reports.to_csv(base / "radiology_text_reports" / f"{word}_reports.csv", index=False)
        stated = {"XYSpacing": "[0.75, 0.75]", "RescaleIntercept": -1024, "RescaleSlope": 1, "ZSpacing": 1.5}
        pd.DataFrame({"VolumeName": files, **stated}).to_csv(base / "metadata" / f"{word}_metadata.csv", index=False)
        labels = {
            label: [int(number % (place + 3) == 0) for number in range(len(own))]
            for place, label in enumerate(CT_ABNORMALITIES)
        }
        table = pd.DataFrame({"VolumeName": files, **labels})
        table.to_csv(base / "multi_abnormality_labels" / f"{part}_predicted_labels.csv", index=False)
        for name in own:
            path = base / f"{part}_fixed" / name.rsplit("_", 2)[0] / study_of[name] / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def settings(folder: Path) -> CtSourceDataSettings:
    """Section ``ct.data`` of a run on the synthetic source."""
    return CtSourceDataSettings.read({"reports": {"root": str(folder / "source"), "reconstructions": "all"}})


def measure_verify(folder: Path) -> dict[str, Any]:
    """Time verify_ct_inputs without the headers."""
    start = time.perf_counter()
    with mock.patch.object(verify, "_check_headers", return_value=[]):
        verify.verify_ct_inputs(output=folder / "verify", workers=1, settings=settings(folder))
    figures = _figures(start)
    counts = read_json(folder / "verify" / "summary.json")["reports"]
    names = ("volumes_kept", "studies_in_table", "patients_in_table")
    return figures | {name: counts[name] for name in names} | _written(folder / "verify")


def write_shards(folder: Path) -> None:
    """Write what convert-ct-shard would have written."""
    listed = list(read_jsonl(folder / "verify" / "volumes.jsonl"))
    sections = settings(folder)
    conversion = sections.conversion
    facts = {
        "reason": None,
        "file_format": "NIfTI",
        "source_shape_zyx": [301, 512, 512],
        "source_spacing_mm": [1.5, 0.75, 0.75],
        "hu_source": "already: the table was not applied",
        "notes": ["1403 voxels (0.00%) below -1250 HU are padding: set to -1024."],
        "spacing_mm": list(conversion.spacing_mm),
        "shape_zyx": list(conversion.shape_zyx),
        "window_hu": list(conversion.window_hu),
        "bits": conversion.bits,
        "start_in_grid_zyx": [9, 3, 2],
        "grid_shape_zyx": [90, 102, 102],
        "body_outside_fraction": 0.0021,
        "lung_outside_fraction": 0.0,
    }
    converted = CtVolumeConversionSettings(volumes=sections.volumes, conversion=conversion)
    for shard in range(SHARDS):
        first, last = (len(listed) * place // SHARDS for place in (shard, shard + 1))
        path = folder / "shards" / f"{shard + 1}-of-{SHARDS}.jsonl"
        write_jsonl(
            path, ({key: row[key] for key in ("volume_id", "source", "file_name")} | facts for row in listed[first:last])
        )
        counts = {"shard": shard + 1, "shards": SHARDS, "volumes": last - first, "unreadable": 0, "listed": len(listed)}
        run = {"command": SHARD_COMMAND, "counts": counts, "inputs": {"volumes": {"sha256": "none"}}}
        write_json(record_path(path), run | {"settings": converted.to_json()})


def measure_join(folder: Path) -> dict[str, Any]:
    """Time convert_ct without its picture."""
    checked = folder / "verify"
    shards = sorted((folder / "shards").glob("*.jsonl"))
    start = time.perf_counter()
    with mock.patch.object(convert_ct, "_draw"):
        convert_ct.convert_ct(
            volumes=checked / "volumes.jsonl",
            counts=checked / "counts.json",
            shards=shards,
            output=folder / "convert",
            settings=settings(folder),
        )
    return _figures(start) | _written(folder / "convert")


def measure_annotation(folder: Path) -> dict[str, Any]:
    """Time build_ct_annotation."""
    checked = folder / "verify"
    tables = {name: checked / f"{name}.jsonl" for name in ("reports", "labels", "regions")}
    start = time.perf_counter()
    build_ct_annotation(
        volumes=folder / "convert" / "volumes.jsonl",
        counts=checked / "counts.json",
        output=folder / "annotation",
        settings=StructureSettings(),
        **tables,
    )
    return _figures(start) | _written(folder / "annotation")


def _figures(start: float) -> dict[str, Any]:
    """Wall-clock and processor time of this process, which has done nothing else of weight, and its peak memory."""
    seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time()}
    return {name: round(value, 1) for name, value in seconds.items()} | {"peak_gb": peak_gb()}


def _written(folder: Path) -> dict[str, int]:
    return {"megabytes_written": round(sum(path.stat().st_size for path in folder.rglob("*.json*")) / 1e6)}


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "verify": measure_verify,
    "join": measure_join,
    "annotation": measure_annotation,
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
