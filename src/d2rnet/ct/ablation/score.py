"""ct_ablation: what each part of both stages gives, over several seeds, on the same patients.

Reads: the arms (design.py); below one folder ``cells/<arm>/seed_<n>`` (model folder of train-ct-report-model, reports.jsonl)
and ``structures/<arm>/seed_<n>`` (model folder of train-structures, ``scores`` of evaluate-structures); ct_annotation.json;
optionally the answers of retrieve-ct-reports. Writes: ablation.json, .md, .csv, .html, .svg, .png; run.json.

Shapes: N volumes, S structures, R resamples of the patients.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.ablation.design import BASELINES, ArmPlan, plan_arms, read_design
from d2rnet.ct.ablation.folders import CELLS, STRUCTURES, Folders
from d2rnet.ct.ablation.settings import AblateCtSettings
from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.evaluation.abnormalities import truths_of
from d2rnet.ct.evaluation.baselines import LABEL_SET, plain_answers, read_answers
from d2rnet.ct.evaluation.cases import Cases, read_split
from d2rnet.ct.evaluation.metric_table import CT_METRICS, HEADLINE, OWN
from d2rnet.ct.evaluation.settings import CtEvaluationSettings, EvaluateCtSettings
from d2rnet.ct.evaluation.systems import CtSystem, judge
from d2rnet.ct.structure_model.retrieval import Places
from d2rnet.errors import DatasetError
from d2rnet.evaluation.ablation_arm import Arm
from d2rnet.evaluation.ablation_cells import (
    HISTORY,
    REPORTS,
    REPORTS_RECORD,
    facts_of,
    read_cells,
    same_entries,
    train_seconds,
)
from d2rnet.evaluation.ablation_table import Layout, RateTable, make_document, write_table
from d2rnet.evaluation.caption_scores import Scorer, open_scorer, single_spaced
from d2rnet.evaluation.metric_names import NEAREST, Group, Metric
from d2rnet.evaluation.settings import MeteorRuntime
from d2rnet.evaluation.systems import study_counts
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.vocabulary import load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
SCORES = "scores"
NEAR = 5
RECALL = Metric("structures_recall_at_5", "texts found at 5", Group.STRUCTURES)
MICRO_F1 = f"{OWN}_vs_report_{HEADLINE}_micro_f1"
SHOWN = (MICRO_F1, f"{OWN}_vs_report_{HEADLINE}_macro_f1", f"{OWN}_vs_table_{HEADLINE}_micro_f1", "cider", "bleu_4", "meteor")
OF_STRUCTURES = {  # rate -> key of a structure in metrics.json of evaluate-structures
    "chance_at_5": "image_to_text_chance_at_5",
    "commonest_at_5": "image_to_text_commonest_at_5",
    "effective_rank": "effective_rank",
    "attention_ratio": "attention_ratio",
    "batch_negatives": "batch_negatives",
    "batch_false_negatives": "batch_false_negatives",
}
LAYOUT = Layout(
    title="Ablation of the chest CT method",
    metrics={RECALL.key: RECALL, **{key: CT_METRICS[key] for key in SHOWN}},
    drawn=(RECALL.key, MICRO_F1, "cider"),
    resampled="patients",
    rates=RateTable(
        key="measured",
        heading="Means over the seeds, those of stage 1 over the structures too. 'texts found at 5': a volume's own text "
        "is one of the five nearest of the distinct ones; chance: drawn blindly; commonest: the five commonest, blindly.",
        columns={
            "chance_at_5": ("chance at 5", ".2f"),
            "commonest_at_5": ("commonest at 5", ".2f"),
            "effective_rank": ("effective rank", ".1f"),
            "collapsed": ("collapsed structures", ".1f"),
            "attention_ratio": ("attention inside / share", ".1f"),
            "zero_shot_auroc": ("zero-shot AUROC", ".2f"),
            "batch_negatives": ("negatives in a batch", ".1f"),
            "batch_false_negatives": ("false ones", ".1f"),
            "queue_normal_share": ("normal texts in the queue", ".2f"),
            "queue_distinct_texts": ("distinct ones", ".0f"),
            "visual_tokens": ("visual tokens", ".1f"),
            "stage_1_minutes": ("stage 1, min", ".1f"),
            "stage_2_minutes": ("stage 2, min", ".1f"),
        },
    ),
)


def ct_ablation(
    *,
    folder: Path,
    annotation: Path,
    design: Path,
    nearest: Sequence[Path],
    label_set: Sequence[Path],
    output: Path,
    settings: AblateCtSettings,
    runtime: MeteorRuntime = MeteorRuntime(),
) -> None:
    """Score all cells on the same volumes and lay out the table.

    Args:
        folder: holds ``cells`` and ``structures``.
        annotation: ct_annotation.json.
        design: YAML file of the arms.
        nearest: nearest.jsonl of retrieve-ct-reports for the same volumes; empty: left out.
        label_set: label_set.jsonl likewise.
        output: folder for the results.
        settings: what arms are laid over, which are run, and how they are scored.
        runtime: patience with METEOR.

    Raises:
        FileNotFoundError: a file of a cell is not there.
        ConfigError: the design is not what is expected.
        DatasetError: cells differ in entries, references or steps, or are not of this ct_annotation.json.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    arms = read_design(design)
    plans = plan_arms(arms, settings)
    folders = Folders(folder, plans)
    cells = folders.all_of(CELLS)
    reports = read_cells(cells.values())
    facts = facts_of([*cells.values()])
    splits = load_ct_annotation(annotation)
    _, split = same_entries(reports, splits, annotation)
    vocabulary = load_vocabulary(next(iter(reports)) / "vocabulary.json")
    cases = read_split(next(iter(reports)) / REPORTS, splits, protocol=vocabulary.protocol).answered
    answers = _baselines(cases, splits["train"], vocabulary.protocol, settings.evaluation)
    answers |= read_answers(cases, {NEAREST: next(iter(nearest), None), LABEL_SET: next(iter(label_set), None)})[0]
    scored: dict[str, Arm] = {}
    with open_scorer(settings.evaluation, runtime) as scorer:
        score = _Score(scorer, cases, settings.evaluation)
        for (name, seed), cell in cells.items():
            arm = scored.setdefault(name, Arm(plans[name].label))
            score.cell(arm, cell, reports[cell], folders.place(STRUCTURES, name, seed))
        baselines = {name: score.baseline(name, answers[name]) for name in BASELINES if name in answers}
    held = {"level": settings.evaluation.level, **cases.sizes()}
    document = make_document(
        {**{name: _row(name, plan, scored[plan.cells]) for name, plan in plans.items()}, **baselines},
        LAYOUT,
        reference=arms.reference,
        protocol={"text": vocabulary.protocol, "section": vocabulary.section, "split": split, **held},
        facts=facts,
        notes=scorer.notes,
    )
    write_table(document, LAYOUT, output)
    write_run_record(
        output / "run.json",
        command="ct-ablation",
        settings=settings,
        inputs={"annotation": annotation, "design": design, **{str(cell): cell / REPORTS for cell in reports}},
        counts={"cells": len(cells), "structures": len(folders.all_of(STRUCTURES)), **cases.sizes()},
    )


class _Score:
    """Scores cells and baselines on the same N volumes and the same R resamples of their patients."""

    def __init__(self, scorer: Scorer, cases: Cases, settings: CtEvaluationSettings) -> None:
        self._scorer = scorer
        self._cases = cases
        self._settings = settings
        self._truths = truths_of(cases.references, cases.entries)
        self._counts = self._resamples(cases.patients)

    def cell(self, arm: Arm, cell: Path, lines: Mapping[str, Mapping[str, Any]], structures: Path) -> None:
        """Add the scores of one seed of an arm, and what was measured beside them.

        Args:
            arm: to add to.
            cell: folder of its stage 2.
            lines: its reports by id.
            structures: folder of its stage 1.
        """
        texts = [single_spaced(lines[name]["hypothesis"]) for name in self._cases.ids]
        arm.add(self._system(texts, f"{cell.parent.name} {cell.name}"), self._counts, LAYOUT.metrics, seed=cell.name)
        found = self._texts_found(structures / SCORES / "per_volume.jsonl")
        if found is not None:
            arm.add_score(RECALL.key, *found, seed=cell.name)
        minutes = {"stage_1_minutes": train_seconds(structures) / 60, "stage_2_minutes": train_seconds(cell) / 60}
        arm.rates.append({**_of_structures(structures), **_visual_tokens(cell), **minutes})
        arm.seconds.append(60 * sum(minutes.values()))

    def baseline(self, name: str, texts: Sequence[str]) -> Arm:
        """Return the row of a baseline that answers with N texts."""
        arm = Arm(BASELINES[name])
        arm.add(self._system(texts, name), self._counts, LAYOUT.metrics)
        return arm

    def _system(self, texts: Sequence[str], what: str) -> CtSystem:
        captions = self._scorer.score(self._cases.references, texts, what=what)
        return CtSystem(captions, judge(self._truths, texts), self._cases.weights(self._settings.level))

    def _resamples(self, patients: Sequence[str]) -> NDArray[np.float32]:
        return study_counts(patients, samples=self._settings.bootstrap_samples, seed=self._settings.bootstrap_seed)

    def _texts_found(self, path: Path) -> tuple[float, NDArray[np.float64]] | None:
        """Return how often a volume's own text is among the five nearest, mean over the structures, and (R,) resamples of it.

        Structures that no report speaks of are left out; texts that are equally near count as in random order.

        Raises:
            FileNotFoundError: there is no such file.
            DatasetError: it is of a version that did not count such texts.
        """
        lines = list(read_jsonl(path))
        if any("equals" not in line for line in lines):
            raise DatasetError(
                f"{path}: lacks equals; expected per_volume.jsonl of 'd2rnet evaluate-structures' of this version. Make it "
                "again: --forcerun evaluate_ct_ablation_structures."
            )
        of_lines = ([[value or 0 for value in line[key].values()] for line in lines] for key in ("ranks", "equals"))
        ranks, equals = (np.array(values).T for values in of_lines)  # (S, N), 0: not mentioned
        spoken_of = (ranks > 0).any(axis=1)
        if not spoken_of.any():
            return None
        ranks, equals = ranks[spoken_of], equals[spoken_of]
        told = ranks > 0
        mentioned, near = told.astype(np.float64), np.zeros(told.shape)
        near[told] = Places(ranks[told] - 1, equals[told], np.ones_like(equals[told])).found(NEAR)
        counts = self._resamples([line["subject_id"] for line in lines])
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (near @ counts) / (mentioned @ counts)  # (S, R), NaN where a resample mentions none
        return float((near.sum(axis=1) / mentioned.sum(axis=1)).mean()), np.nanmean(drawn, axis=0)


def _baselines(cases: Cases, training: Sequence[Entry], protocol: str, settings: EvaluateCtSettings) -> dict[str, list[str]]:
    """Return the answers of the baselines that need no model."""
    candidates, seed = settings.label_set.medoid_candidates, settings.shuffle_seed
    return plain_answers(cases, training, protocol=protocol, candidates=candidates, seed=seed)[0]


def _row(name: str, plan: ArmPlan, scored: Arm) -> Arm:
    """Return the row of an arm; one that is alike another altogether says so."""
    return scored if plan.cells == name else replace(scored, label=f"{plan.label} (= {plan.cells})")


def _of_structures(folder: Path) -> dict[str, float | None]:
    """Return what evaluate-structures and the history say of a stage 1; None where there is nothing to say.

    Raises:
        FileNotFoundError: a file is not there.
    """
    metrics = read_json(folder / SCORES / "metrics.json")
    found: dict[str, float | None] = {}
    for rate, key in OF_STRUCTURES.items():
        values = [row[key] for row in metrics["structures"].values() if row.get(key) is not None]
        found[rate] = float(np.mean(values)) if values else None
    last = list(read_jsonl(folder / HISTORY))[-1]
    return {
        **found,
        "collapsed": float(len(metrics["collapsed"])),
        "zero_shot_auroc": metrics["zero_shot_auroc_macro"],
        **{key: last.get(key) for key in ("queue_normal_share", "queue_distinct_texts")},
    }


def _visual_tokens(cell: Path) -> dict[str, float]:
    """Return how many tokens of a volume the decoder saw, on the mean."""
    counts = read_json(cell / REPORTS_RECORD)["counts"]
    return {"visual_tokens": counts["visual_tokens"] / counts["reports"]}
