"""What Unbiased Teacher v2 gains over supervised-only training with few labels, on a demo cohort of its own.

Both arms train on the same labelled images, in the same views, batches and order, for as many iterations at the same learning
rates, and both keep an EMA teacher; only the unlabelled stream differs. Gain: AP50 of the semi-supervised EMA teacher minus
AP50 of the supervised-only one on the same test images. A supervised-only run with all labels stands beside them. Settings:
benchmarks/semisupervised_gain.yaml. A stopped benchmark goes on where it was.

Usage: python benchmarks/semisupervised_gain.py [--run DIR] [--seeds 1 2 3] [--cohort-seed N] [--jobs 2] [--set KEY=VALUE ...]
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from paired_bootstrap import ap50_with_resamples

from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.config import STUDENT_NAME, TEACHER_NAME
from d2rnet.cxr.detector.evaluate import predict
from d2rnet.cxr.detector.settings import DetectorSettings, TrainDetectorSettings
from d2rnet.cxr.detector.trainer import SPLIT_NAME
from d2rnet.evaluation.resampling import basic_interval
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.settings import merge, parse_settings, read_overlay

ROOT = Path(__file__).resolve().parents[1]
OVERLAY = Path(__file__).with_suffix(".yaml")
LABELLED_PERCENT = 10
RESAMPLES, RESAMPLE_SEED = 1000, 0
ARMS = ("supervised_only", "unbiased_teacher")
NETWORKS = {"student": STUDENT_NAME, "teacher": TEACHER_NAME}
log = logging.getLogger("semisupervised_gain")


@dataclass(frozen=True)
class Cell:
    """One training run."""

    arm: str
    percent: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.arm}_{self.percent}_percent_seed_{self.seed}"

    def settings(self, detector: DetectorSettings) -> TrainDetectorSettings:
        """Return what train-detector reads for this cell."""
        changed = detector.training.replaced(
            seed=self.seed,
            labelled_split_seed=self.seed,
            labelled_percent=self.percent,
            supervised_only=self.arm == "supervised_only",
        )
        return TrainDetectorSettings(model=detector.model, training=changed)


def make_data(run: Path, cohort_seed: int) -> Path:
    """Draw and convert the cohort with the workflow itself; return the folder that holds ``resources``."""
    folder = run / f"cohort_{cohort_seed}"
    folder.mkdir(parents=True, exist_ok=True)
    overlay = merge(read_overlay(OVERLAY), {"cxr": {"data": {"demo": {"seed": cohort_seed}}}})
    config = folder / "config.yaml"
    write_text(config, yaml.safe_dump(overlay))
    command: list[Any] = ["snakemake", "-s", ROOT / "Snakefile", "--directory", folder, "--configfile", config]
    command += ["--cores", "all", "--quiet", "all", "--until", "convert_labelled", "convert_unlabelled"]
    subprocess.run(command, check=True)
    return folder


def train(cell: Cell, data: Path, detector: DetectorSettings) -> Path:
    """Train one cell, or what is left of it; return its folder."""
    folder = data / "cells" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.yaml"
    write_text(settings, yaml.safe_dump(cell.settings(detector).to_json()))
    labelled = data / "resources" / "cxr" / "labelled"
    command: list[Any] = [sys.executable, "-m", "d2rnet", "train-detector", "--quiet", "--threads", "1", "--device", "cpu"]
    for split in ("train", "val", "test"):
        command += [f"--labelled-{split}", labelled / f"{split}.json"]
    command += ["--unlabelled", data / "resources" / "cxr" / "unlabelled.json", "--work", data / "work", "--output", folder]
    command += ["--settings", settings, "--log-every-iters", "100", "--log", folder / "train.log"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    log.info("%s: %.0f s", cell.name, time.perf_counter() - start)
    return folder


class Scores:
    """AP50 of every network of every cell, on all test images and on the same resamples of them."""

    def __init__(self) -> None:
        """Begin empty."""
        self._values: dict[tuple[Cell, str], tuple[float, NDArray[np.float64]]] = {}

    def add(self, cell: Cell, network: str, records: Sequence[Record], results: Sequence[dict[str, Any]]) -> None:
        """Score one network."""
        self._values[cell, network] = ap50_with_resamples(records, results, samples=RESAMPLES, seed=RESAMPLE_SEED)

    def value(self, cell: Cell, network: str) -> float:
        """AP50 on all test images."""
        return self._values[cell, network][0]

    def difference(self, pairs: Sequence[tuple[tuple[Cell, str], tuple[Cell, str]]]) -> dict[str, Any]:
        """Mean difference of pairs (a - b) and its basic bootstrap 95 % interval over the test images, as in the protocol."""
        drawn = np.mean([self._values[a][1] - self._values[b][1] for a, b in pairs], axis=0)
        value = float(np.mean([self._values[a][0] - self._values[b][0] for a, b in pairs]))
        return {"difference": round(value, 6), "interval": basic_interval(value, drawn, least=-1.0)}


def report(scores: Scores, seeds: Sequence[int], yardstick: Cell, facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Lay out the table; return Markdown and the same as an object."""
    rows = []
    cells = {seed: {arm: Cell(arm, LABELLED_PERCENT, seed) for arm in ARMS} for seed in seeds}
    gain_pairs, teacher_pairs = [], []
    for seed in seeds:
        supervised, semi = (cells[seed][arm] for arm in ARMS)
        gain_pairs.append(((semi, "teacher"), (supervised, "teacher")))
        teacher_pairs.append(((semi, "teacher"), (semi, "student")))
        figures = [scores.value(cell, network) for cell in (supervised, semi) for network in ("student", "teacher")]
        rows.append((str(seed), figures, scores.difference(gain_pairs[-1:]), scores.difference(teacher_pairs[-1:])))
    means = np.mean([figures for _, figures, _, _ in rows], axis=0).tolist()
    gain, lead = scores.difference(gain_pairs), scores.difference(teacher_pairs)
    rows.append(("mean", means, gain, lead))
    header = ["seed", "supervised student", "supervised teacher", "UTv2 student", "UTv2 teacher", "gain [95 %]"]
    cells_of = [[name, *(f"{100 * value:.1f}" for value in figures), _points(g), _points(t)] for name, figures, g, t in rows]
    lines = [
        *markdown_table([*header, "UTv2 teacher - student [95 %]"], cells_of),
        "",
        f"Supervised-only with all labels, seed {yardstick.seed}: {100 * scores.value(yardstick, 'teacher'):.1f}.",
        "AP50 in points. " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".",
    ]
    document = {
        "facts": facts,
        "gain": gain,
        "teacher_minus_student": lead,
        "supervised_all_labels": scores.value(yardstick, "teacher"),
        "seeds": {name: {"ap50": figures, "gain": g, "teacher_minus_student": t} for name, figures, g, t in rows},
    }
    return "\n".join(lines) + "\n", document


def _points(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    return f"{100 * difference['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main() -> None:
    """Train what is missing, score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("semisupervised_gain"), help="folder to work in")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of split, weights, order and augmentation")
    parser.add_argument("--cohort-seed", type=int, default=1, help="another one draws another cohort")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells trained at once, one thread each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="detector setting of both arms")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    start = time.perf_counter()
    data = make_data(args.run.resolve(), args.cohort_seed)
    detector = parse_settings(DetectorSettings, json.dumps(read_overlay(OVERLAY)["cxr"]["detector"]), args.set)
    yardstick = Cell(ARMS[0], 100, args.seeds[0])
    cells = [*(Cell(arm, LABELLED_PERCENT, seed) for seed in args.seeds for arm in reversed(ARMS)), yardstick]
    with ThreadPoolExecutor(args.jobs) as pool:
        folders = dict(zip(cells, pool.map(lambda cell: train(cell, data, detector), cells), strict=True))
    torch.set_num_threads(args.jobs)
    records = load_records(data / "resources" / "cxr" / "labelled" / "test.json")
    scores = Scores()
    for cell, folder in folders.items():
        for network, weights in NETWORKS.items():
            scores.add(cell, network, records, predict(records, folder, weights, "cpu", detector.prediction, LoaderRuntime()))
    facts = {
        "test images": len(records),
        "test boxes": sum(len(record.classes) for record in records),
        "labelled images": len(read_json(folders[cells[0]] / SPLIT_NAME)["source_ids"]),
        "iterations": detector.training.total_iters,
        "minutes of this call": round((time.perf_counter() - start) / 60, 1),
        "machine": hardware()["processor"],
        "commit": code_version()["commit"],
    }
    text, document = report(scores, args.seeds, yardstick, facts)
    write_json(data / "gain.json", document)
    write_text(data / "gain.md", text)
    print(text)


if __name__ == "__main__":
    main()
