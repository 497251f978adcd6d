"""ablation: what each part of the report model gives, over several seeds, on one test split.

Reads: the cells, folders ``<arm>/seed_<n>`` with reports.jsonl and metrics.jsonl; annotation.json; the arms' names and order
(workflow/ablation.yaml); optionally the retrieval baseline and the demo cohort's true boxes.
Writes: ablation.json, ablation.md, ablation.svg, ablation.png.

An arm's figure is the mean over its seeds. Intervals are percentile bootstrap intervals over studies (the same resamples for all
cells) of that mean; they cover the choice of test studies, not that of training studies. The spread over seeds stands beside.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from d2rnet import plots
from d2rnet.data.annotation_file import Entry, load_annotation
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.baselines import most_frequent
from d2rnet.evaluation.caption_scores import Scorer, open_meteor, single_spaced
from d2rnet.evaluation.clinical import HEADLINE
from d2rnet.evaluation.grounding import TrueBox, grounding_score, read_demo_truth
from d2rnet.evaluation.resampling import percentile_interval
from d2rnet.evaluation.systems import score_system, study_counts
from d2rnet.evaluation.tables import markdown_table
from d2rnet.io import read_jsonl, write_json, write_text
from d2rnet.provenance import code_version, hardware, write_run_record
from d2rnet.report.text import clean_report

log = logging.getLogger(__name__)
LESION_F1 = f"{HEADLINE}_micro_f1"
COLUMNS = {LESION_F1: "lesion F1", "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"}
COMPARED = (LESION_F1, "bleu_4", "cider")
COMMONEST, NEAREST = "most_frequent_report", "nearest_training_report"
GROUNDING = ("hit_rate", "random_hit_rate", "true_hit_rate", "true_random_hit_rate")


@dataclass
class Arm:
    """One row of the table.

    Attributes:
        label: what the reader sees.
        figures: metric -> (R,) one value a seed.
        drawn: metric -> (S,) mean over the seeds of each resample.
        grounding: rates of each seed, without those of models that see no boxes.
        seconds: training time of each seed.
    """

    label: str
    seeds: list[int] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    drawn: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    grounding: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def mean(self, metric: str) -> float | None:
        """Mean over the seeds, None for a metric without values."""
        return float(np.mean(self.figures[metric])) if self.figures.get(metric) else None


def read_design(path: Path) -> dict[str, Any]:
    """Read the arms of an ablation: ``reference`` (an arm) and ``arms`` (name -> ``label``, ``boxes``, ``report``).

    Raises:
        ConfigError: a key is missing or unknown, or the reference is no arm.
    """
    design = yaml.safe_load(path.read_text(encoding="utf-8"))
    expected = {"reference", "report", "arms"}
    if not isinstance(design, dict) or set(design) != expected or design["reference"] not in design["arms"]:
        raise ConfigError(f"{path}: expected the keys {', '.join(sorted(expected))}, and 'reference' to be one of the arms.")
    for name, arm in design["arms"].items():
        if set(arm) != {"label", "boxes", "report"} or arm["boxes"] not in ("pseudo", "oracle"):
            raise ConfigError(f"{path}: arm {name}: expected label, boxes (pseudo or oracle) and report.")
    return dict(design)


def ablation(
    *,
    cells: Sequence[Path],
    annotation: Path,
    design: Path,
    nearest: Sequence[Path],
    truth: Sequence[Path],
    oracle: Sequence[Path],
    output: Path,
    settings: dict[str, Any],
) -> None:
    """Score all cells on the same studies and lay out the table.

    Args:
        cells: folders ``<arm>/seed_<n>``, with reports.jsonl and metrics.jsonl.
        annotation: annotation.json of the arms with pseudo boxes.
        design: YAML file of the arms, see :func:`read_design`.
        nearest: reports of retrieve-reports for the same entries; empty: left out.
        truth: truth.jsonl of the demo cohort, for grounding; empty: left out.
        oracle: annotation.json of the arms with oracle boxes; may be empty without such arms.
        output: folder for the results.
        settings: section ``evaluation``.

    Raises:
        ConfigError: the design is not what is expected, or a cell's arm is not in it.
        DatasetError: cells hold different entries.
    """
    arms = read_design(design)
    entries = {"pseudo": load_annotation(annotation)}
    if oracle:
        entries["oracle"] = load_annotation(oracle[0])
    lesions = read_demo_truth(truth[0]) if truth else None
    reports = {folder: {line["id"]: line for line in read_jsonl(folder / "reports.jsonl")} for folder in cells}
    ids, split = _same_entries(reports, entries["pseudo"])
    by_id = {box: {entry["id"]: entry for entry in splits[split]} for box, splits in entries.items()}
    counts = study_counts(
        [str(by_id["pseudo"][name]["study_id"]) for name in ids],
        samples=settings["bootstrap_samples"],
        seed=settings["bootstrap_seed"],
    )
    meteor, reason = open_meteor(settings["meteor"], timeout_seconds=settings["meteor_timeout_seconds"])
    rows: dict[str, Arm] = {}
    with ExitStack() as stack:
        scorer = Scorer(stack.enter_context(meteor) if meteor else None, {"meteor": reason} if reason else {})
        for folder in sorted(cells, key=lambda folder: (list(arms["arms"]).index(_arm_of(folder, arms)), str(folder))):
            name = _arm_of(folder, arms)
            arm = rows.setdefault(name, Arm(arms["arms"][name]["label"]))
            _add(arm, scorer, [reports[folder][entry] for entry in ids], counts, what=f"{name} {folder.name}")
            arm.seeds.append(int(folder.name.removeprefix("seed_")))
            arm.seconds.append(sum(line["train_seconds"] for line in read_jsonl(folder / "metrics.jsonl")))
            _ground(arm, list(reports[folder].values()), by_id[arms["arms"][name]["boxes"]], lesions, ids)
        references = [reports[cells[0]][name]["reference"] for name in ids]
        baselines = _baselines(entries["pseudo"]["train"], nearest, ids, settings)
        for name, (label, texts) in baselines.items():
            answers = [{"reference": a, "hypothesis": b} for a, b in zip(references, texts, strict=True)]
            _add(rows.setdefault(name, Arm(label)), scorer, answers, counts, what=name)
    document = _document(rows, arms["reference"], {"split": split, "n": len(ids), **_provenance(settings)}, scorer.notes)
    text = as_markdown(document)
    write_json(output / "ablation.json", document)
    write_text(output / "ablation.md", text)
    _draw(document, output / "ablation")
    inputs = {f"{folder.parent.name}_{folder.name}": folder / "reports.jsonl" for folder in cells}
    write_run_record(
        output / "run.json",
        command="ablation",
        settings=settings,
        inputs={"annotation": annotation, "design": design, **inputs},
        counts={"cells": len(cells), "reports": len(ids)},
        seeds={"bootstrap": settings["bootstrap_seed"]},
    )
    print(text, end="")


def _arm_of(folder: Path, design: Mapping[str, Any]) -> str:
    name = folder.parent.name
    if name not in design["arms"] or not folder.name.removeprefix("seed_").isdecimal():
        raise ConfigError(f"{folder}: expected <arm>/seed_<n> with an arm of the design ({', '.join(design['arms'])}).")
    return name


def _same_entries(reports: Mapping[Path, Mapping[str, Any]], splits: Mapping[str, list[Entry]]) -> tuple[list[str], str]:
    """Return the ids that every cell must hold, sorted, and their split."""
    first, ids = next((folder, sorted(found)) for folder, found in reports.items())
    for folder, found in reports.items():
        if sorted(found) != ids:
            raise DatasetError(
                f"{folder / 'reports.jsonl'}: {len(found)} reports, not those of {first} ({len(ids)}). Generate both again."
            )
    for split, entries in splits.items():
        if ids and set(ids) <= {entry["id"] for entry in entries}:
            return ids, split
    raise DatasetError(f"{first / 'reports.jsonl'}: its {len(ids)} entries are not in one split of annotation.json.")


def _add(arm: Arm, scorer: Scorer, reports: Sequence[Mapping[str, Any]], counts: NDArray[Any], *, what: str) -> None:
    """Score one cell and add it to its arm."""
    texts = [[single_spaced(report[key]) for report in reports] for key in ("reference", "hypothesis")]
    system = score_system(scorer, texts[0], texts[1], what=what)
    drawn, done = system.resampled(counts), len(arm.figures.get(LESION_F1, ()))
    for metric, value in system.figures().items():
        if metric in COLUMNS and value is not None:
            arm.figures.setdefault(metric, []).append(value)
            before = arm.drawn.get(metric, np.zeros(counts.shape[1]))
            arm.drawn[metric] = before + (drawn[metric] - before) / (done + 1)


def _ground(
    arm: Arm,
    reports: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Entry],
    lesions: Mapping[str, Sequence[TrueBox]] | None,
    ids: Sequence[str],
) -> None:
    if lesions is None:
        return
    found = grounding_score(reports, entries, {name: lesions[name] for name in ids if name in lesions})
    if any(sentence["attended"] is not None for report in reports for sentence in report["sentences"]):
        arm.grounding.append(found)


def _baselines(
    training: Sequence[Entry], nearest: Sequence[Path], ids: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, tuple[str, list[str]]]:
    """Name -> label and the answers of each baseline."""
    del settings
    cleaned = [single_spaced(clean_report(entry["report"], "r2gen")) for entry in training]
    commonest, _ = most_frequent([text for text in cleaned if text])
    answers = {COMMONEST: ("most frequent training report", [commonest] * len(ids))}
    if nearest:
        found = {line["id"]: line["hypothesis"] for line in read_jsonl(nearest[0])}
        missing = [name for name in ids if name not in found]
        if missing:
            raise DatasetError(f"{nearest[0]}: no report for {', '.join(missing[:10])} ({len(missing)}). Retrieve again.")
        answers[NEAREST] = ("report of the nearest training image", [found[name] for name in ids])
    return answers
