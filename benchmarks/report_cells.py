"""Cells of the benchmarks of reports: a report model trained on some boxes, its reports written and scored, and their table.

Used by report_boxes.py and findings_said.py, whose cells may stand beside each other.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.evaluation.clinical import HEADLINE, SIDED, Named
from d2rnet.evaluation.resampling import percentile_interval, resample_counts
from d2rnet.evaluation.systems import score_system
from d2rnet.figures.tables import markdown_table
from d2rnet.files.documents import read_jsonl
from d2rnet.report.annotation_file import load_annotation
from d2rnet.runs.provenance import code_version, hardware

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config.yaml"
DETECTOR = Path("results/cxr/train_detector")
IMAGE_ROOT = Path("resources/cxr/demo_cohort/mimic")
VOCABULARY = Path("results/cxr/build_vocabulary/vocabulary.json")
SHOWN = {HEADLINE: "lesion F1", SIDED: "side F1"}
RESAMPLES = 1000


def command(name: str, *arguments: object) -> None:
    """Run a sub-command on one thread with the settings of config.yaml."""
    words = [sys.executable, "-m", "d2rnet", name, "--configfile", CONFIG, "--device", "cpu", "--threads", "1", *arguments]
    subprocess.run([str(word) for word in words], check=True)


def sets(settings: Sequence[str]) -> list[str]:
    """Return the options that set some settings."""
    return [word for setting in settings for word in ("--set", setting)]


def trained(boxes: Path, cell: Path, run: Path, *settings: str) -> Path:
    """Train a report model on the boxes of a variant, or what is left of it; return its folder."""
    model = cell / "model"
    if not (model / "run.json").is_file():
        paths = ["--annotation", boxes / "run/annotation.json", "--vocabulary", run / VOCABULARY]
        paths += ["--image-root", run / IMAGE_ROOT, "--detector", run / DETECTOR / "model_final.pth"]
        command("train-report-model", *paths, "--work", cell / "work", "--output", model, *sets(settings))
    return model


def told(model: Path, boxes: Path, part: str, run: Path, work: Path, *settings: str, name: str = "") -> dict[str, Any]:
    """Write and score a model's reports on the second cohort (``choice``) or on the run's test split; name: of another way."""
    cohort, split, root = ("choice", "val", work / "choice") if part == "choice" else ("run", "test", run)
    written = model.parent / f"{part}{name}.jsonl"
    annotation = boxes / cohort / "annotation.json"
    if not written.with_suffix(".run.json").is_file():
        paths = ["--annotation", annotation, "--image-root", root / IMAGE_ROOT, "--model", model, "--output", written]
        command("generate-reports-shard", *paths, *sets([f"split={split}", *settings]))
    return cell_of(model, written, annotation, split)


def cell_of(model: Path, written: Path, annotation: Path, split: str) -> dict[str, Any]:
    """Return scores and counts of the reports that a model wrote for a split, and how long its training took."""
    lines = sorted(read_jsonl(written), key=lambda line: line["id"])
    texts = [[line[key] for line in lines] for key in ("reference", "hypothesis")]
    system = score_system(Scorer(None), *texts, what=str(written))
    corpus = system.scores()
    study_of = {entry["id"]: entry["study_id"] for entry in load_annotation(annotation)[split]}
    return {
        "commit": code_version()["commit"],
        "machine": hardware()["processor"],
        "train_seconds": round(sum(line["train_seconds"] for line in read_jsonl(model / "metrics.jsonl")), 1),
        "steps": max(line["step"] for line in read_jsonl(model / "metrics.jsonl")),
        "scores": {key: corpus[key] for key in ("bleu_4", "cider", *(f"{shown}_micro_f1" for shown in SHOWN))},
        "studies": [study_of[line["id"]] for line in lines],
        "pairs": {shown: pair_counts(system.labels[shown].truth, system.labels[shown].claimed).tolist() for shown in SHOWN},
    }


def pair_counts(truth: Named, claimed: Named) -> NDArray[np.int64]:
    """Return (n, 3) of each image or report: classes that both have, that the truth has, that are claimed."""
    return np.stack([(truth & claimed).sum(axis=1), truth.sum(axis=1), claimed.sum(axis=1)], axis=1)


def f1_of(pairs: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the (S,) micro F1 of counts of pairs (n, 3) on S resamples (n, S)."""
    hits, true, claimed = np.asarray(pairs, dtype=np.float64).T @ counts
    return 2 * hits / np.maximum(true + claimed, 1)


def mean_f1(cells: Mapping[int, Mapping[str, Any]], protocol: str) -> tuple[float, NDArray[np.float64]]:
    """Return the mean F1 of a variant over its seeds, and (S,) that mean on resamples of the studies."""
    studies, places = np.unique(next(iter(cells.values()))["studies"], return_inverse=True)
    counts = resample_counts(len(studies), samples=RESAMPLES, seed=0)[places]
    pairs = [np.array(cell["pairs"][protocol]) for cell in cells.values()]
    values = np.mean([f1_of(pair, np.ones((len(pair), 1)))[0] for pair in pairs])
    return float(values), np.mean([f1_of(pair, counts) for pair in pairs], axis=0)


def difference(
    cells: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]], protocol: str
) -> tuple[float, list[float] | None]:
    """Return by how much a variant leads the baseline in F1, over the seeds of both, and the interval over studies."""
    seeds = sorted(cells.keys() & baseline.keys())
    (ours, drawn), (theirs, other) = (mean_f1({seed: found[seed] for seed in seeds}, protocol) for found in (cells, baseline))
    return ours - theirs, percentile_interval(drawn - other)


def cell_table(cells: Mapping[str, Mapping[int, Mapping[str, Any]]], part: str, baseline: str) -> list[str]:
    """Lay out name -> seed -> cell of a part, each beside the baseline, in Markdown."""
    rows = []
    for name, found in cells.items():
        row = [name, ", ".join(map(str, sorted(found)))]
        for protocol in SHOWN:
            value, drawn = mean_f1(found, protocol)
            row.append(points(value, percentile_interval(drawn)))
            row.append("" if name == baseline else points(*difference(found, cells[baseline], protocol), sign="+"))
        scores = [found[seed]["scores"] for seed in sorted(found)]
        row.append(" ".join(f"{100 * score[f'{HEADLINE}_micro_f1']:.1f}" for score in scores))
        row += [f"{np.mean([score[key] for score in scores]):.3f}" for key in ("bleu_4", "cider")]
        rows.append(row)
    header = ["variant", "seeds", *(text for shown in SHOWN.values() for text in (shown, "to the baseline"))]
    reports = len(next(iter(cells[baseline].values()))["studies"])
    table = markdown_table([*header, "lesion F1 of each seed", "BLEU-4", "CIDEr"], rows)
    return ["", f"Reports, {part}: {reports}.", "", *table]


def points(value: float, interval: Sequence[float] | None, sign: str = "") -> str:
    """Show a share in points with its interval."""
    text = f"{100 * value:{sign}.1f}"
    return text if interval is None else f"{text} [{100 * interval[0]:{sign}.1f}, {100 * interval[1]:{sign}.1f}]"
