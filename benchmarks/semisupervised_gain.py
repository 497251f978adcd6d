"""What Unbiased Teacher v2 gains over supervised-only training with few labels, on a demo cohort of its own.

All arms train on the same labelled images, in the same views, batches and order, and keep an EMA teacher; only the unlabelled
stream differs. Each arm has a learning rate of its own, the best of the same few on another cohort, and is read at the
iteration at which its own teacher is best on the validation images: an arm that overfits is not read past its best. The
control sends the unlabelled images through the network, but no loss on them counts.

Gain: AP50 on the test images of the semi-supervised EMA teacher minus that of the supervised-only one, paired by seed.
Settings: benchmarks/semisupervised_gain.yaml. A finished cell (one training) is a small file in --results and is not trained
again; a stopped one goes on where it was.

Usage: python benchmarks/semisupervised_gain.py [--run DIR] [--results DIR] [--parts search ten others] [--report]
"""

import argparse
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from gain_cells import ARMS, CONTROL, LAST, SEMI, SUPERVISED, Cell, chosen, train_cell

from d2rnet.cxr.detector.settings import DetectorSettings
from d2rnet.evaluation.resampling import seeds_interval
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.settings import merge, read_overlay

ROOT = Path(__file__).resolve().parents[1]
OVERLAY = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / Path(__file__).stem
PARTS = ("search", "ten", "others")
RATES = (0.0003, 0.0006, 0.0012, 0.0024, 0.0048)
SEARCH_COHORT, SEARCH_SEED, SEARCH_ITERS = 20260, 11, 600
COHORT, ITERS = 1, 1000
LABELLED_PERCENT, SEEDS = 10, (1, 2, 3, 4, 5)
OTHER_PERCENTS, OTHER_SEEDS = (5, 1, 100), (1, 2)
TEACHER = "ema_teacher"
Cells = dict[Cell, dict[str, Any] | None]


def search_cells() -> list[Cell]:
    """The trainings that choose a learning rate for each arm."""
    return [
        Cell(arm, LABELLED_PERCENT, SEARCH_SEED, SEARCH_COHORT, rate, SEARCH_ITERS)
        for rate in sorted(RATES, key=lambda rate: abs(math.log(rate / RATES[1])))
        for arm in (SUPERVISED, SEMI)
    ]


def measured_cells(part: str, rates: dict[str, float]) -> list[Cell]:
    """The trainings of a part, arm by arm, so that a later arm finds the burn-in of an earlier one of the same learning rate.

    The control takes the semi-supervised arm's learning rate.
    """
    by_arm = rates | {CONTROL: rates[SEMI]}
    if part == "ten":
        order = [(LABELLED_PERCENT, seed, arm) for arm in (SUPERVISED, SEMI, CONTROL) for seed in SEEDS]
    else:
        order = [(percent, seed, arm) for percent in OTHER_PERCENTS for arm in (SUPERVISED, SEMI) for seed in OTHER_SEEDS]
    return [Cell(arm, percent, seed, COHORT, by_arm[arm], ITERS) for percent, seed, arm in order]


def best_rates(searched: Cells) -> dict[str, float] | None:
    """Arm -> learning rate with the best teacher on the validation images; None before the search is done."""
    if not all(searched.values()):
        return None
    rates = {}
    for arm in (SUPERVISED, SEMI):
        peaks = {cell.base_lr: _peak(done) for cell, done in searched.items() if done and cell.arm == arm}
        rates[arm] = max(sorted(peaks), key=lambda rate: peaks[rate])
    return rates


def _peak(done: dict[str, Any]) -> float:
    return float(chosen(done["curve"], TEACHER)[TEACHER])


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


def finished(cells: Sequence[Cell], results: Path) -> Cells:
    """Cell -> content of its file, None where it has not been trained."""
    paths = {cell: results / f"{cell.name}.json" for cell in cells}
    return {cell: read_json(path) if path.is_file() else None for cell, path in paths.items()}


def gain(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], network: str = TEACHER) -> dict[str, Any]:
    """Mean difference of AP50 over seeds, a - b, with the interval of :func:`seeds_interval`: over seeds and test images.

    Args:
        pairs: finished cells a and b of each seed.
        network: whose scores.

    Returns:
        ``difference``, ``interval`` (None with one seed), ``seeds`` and each seed's ``differences``.
    """
    values = np.asarray([a["test"][network]["ap50"] - b["test"][network]["ap50"] for a, b in pairs])
    drawn = np.asarray([np.subtract(a["test"][network]["resamples"], b["test"][network]["resamples"]) for a, b in pairs])
    interval = seeds_interval(values, drawn.mean(axis=0))  # drawn: (seeds, resamples)
    return {"difference": float(values.mean()), "interval": interval, "seeds": len(pairs), "differences": values.tolist()}


def pairs_of(cells: Cells, percent: float, a: str, b: str) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Seed -> finished cells of two arms at a share of labels, seeds that lack one left out."""
    by_arm = {
        arm: {cell.seed: done for cell, done in cells.items() if (cell.arm, cell.percent) == (arm, percent)} for arm in ARMS
    }
    return {seed: (x, y) for seed, x in by_arm[a].items() if x and (y := by_arm[b].get(seed))}


def report(searched: Cells, measured: Cells) -> str:
    """Lay out what is there in Markdown: search, scores by seed, gains, curves."""
    lines = ["Learning rate (teacher's best AP50 on the validation images of another cohort, at its iteration):", ""]
    rows = []
    for arm in (SUPERVISED, SEMI):
        row = [arm]
        for rate in RATES:
            done = next((done for cell, done in searched.items() if (cell.arm, cell.base_lr) == (arm, rate)), None)
            row.append(f"{100 * _peak(done):.1f} at {chosen(done['curve'], TEACHER)['iteration']}" if done else "-")
        rows.append(row)
    lines += [*markdown_table(["arm", *(f"{rate:g}" for rate in RATES)], rows), ""]
    all_cells = searched | measured
    lines += [f"{sum(map(bool, all_cells.values()))} of {len(all_cells)} cells are trained.", ""]
    header = ["labels", "seed", "arm", "teacher", "at", "student", "at", "teacher at the end", "cpu minutes"]
    rows = [
        [f"{cell.percent:g} %", str(cell.seed), cell.arm, *_scores(done)]
        for cell, done in sorted(measured.items(), key=lambda item: (item[0].percent, item[0].seed, ARMS.index(item[0].arm)))
        if done
    ]
    lines += [*markdown_table(header, rows), ""]
    comparisons = [(percent, SEMI, SUPERVISED) for percent in (LABELLED_PERCENT, *OTHER_PERCENTS)]
    comparisons += [(LABELLED_PERCENT, SEMI, CONTROL), (LABELLED_PERCENT, CONTROL, SUPERVISED)]
    rows = []
    for percent, a, b in comparisons:
        pairs = list(pairs_of(measured, percent, a, b).values())
        if pairs:
            ends = [_points(gain(pairs, network)) for network in (TEACHER, LAST)]
            rows.append([f"{percent:g} %", f"{a} - {b}", str(len(pairs)), *ends])
    lines += markdown_table(["labels", "difference", "seeds", "each at its own best", "both at the end"], rows)
    return "\n".join([*lines, "", *curves(all_cells)]) + "\n"


def _scores(done: dict[str, Any]) -> list[str]:
    scores = done["test"]
    shown = [text for name in (TEACHER, "student") for text in (_percent(scores[name]), str(scores[name]["iteration"]))]
    return [*shown, _percent(scores[LAST]), f"{done['curve'][-1]['cpu_seconds'] / 60:.1f}"]


def _percent(score: dict[str, Any]) -> str:
    return f"{100 * score['ap50']:.1f}"


def _points(difference: dict[str, Any]) -> str:
    text = f"{100 * difference['difference']:+.1f}"
    if difference["interval"] is None:
        return text
    low, high = difference["interval"]
    return f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"


def curves(cells: Cells) -> list[str]:
    """Teacher's AP50 on the validation images along the way, a row for each finished cell."""
    done = {cell: found["curve"] for cell, found in cells.items() if found}
    clocks = sorted({point["iteration"] for curve in done.values() for point in curve if TEACHER in point})
    rows = []
    for cell, curve in done.items():
        values = {point["iteration"]: f"{100 * point[TEACHER]:.1f}" for point in curve if TEACHER in point}
        name = f"{cell.arm}, {cell.percent:g} %, seed {cell.seed}, {cell.base_lr:g}"
        rows.append([name, *(values.get(clock, "") for clock in clocks)])
    return markdown_table(["validation AP50 of the teacher", *map(str, clocks)], rows) if rows else []


def main() -> None:
    """Train what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("semisupervised_gain"), help="folder to work in")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the finished cells' files")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="what to train")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells trained at once, one thread each")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # one cell as JSON: what a process of --jobs does
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run = args.run.resolve()
    if args.cell:
        cell = Cell(**json.loads(args.cell))
        torch.set_num_threads(1)
        detector = DetectorSettings.read(read_overlay(OVERLAY)["cxr"]["detector"])
        train_cell(cell, run / f"cohort_{cell.cohort}", detector, args.results)
        return
    searched = search_cells()
    if not args.report and "search" in args.parts:
        train_all(searched, run, args)
    rates = best_rates(finished(searched, args.results))
    measured = {part: measured_cells(part, rates) for part in PARTS[1:]} if rates else {}
    for part in [] if args.report else args.parts:
        if cells := measured.get(part):
            train_all(cells, run, args)
    everything = [cell for cells in measured.values() for cell in cells]
    print(report(finished(searched, args.results), finished(everything, args.results)))


def train_all(cells: Sequence[Cell], run: Path, args: argparse.Namespace) -> None:
    """Train the cells that have no file yet, each in a process of its own, ``--jobs`` at a time."""
    missing = [cell for cell, done in finished(cells, args.results).items() if not done]
    for cohort in sorted({cell.cohort for cell in missing}):
        make_data(run, cohort)
    command = [sys.executable, __file__, "--run", str(run), "--results", str(args.results), "--cell"]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda cell: subprocess.run([*command, json.dumps(asdict(cell))], check=True), missing))


if __name__ == "__main__":
    main()
