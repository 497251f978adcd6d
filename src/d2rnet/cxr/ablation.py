"""ablation: what each part of the report model gives, over several seeds, on one split.

Reads: the cells, folders ``<arm>/seed_<n>`` with reports.jsonl, metrics.jsonl and vocabulary.json; annotation.json; the arms'
names and order (workflow/ablation.yaml); optionally the retrieval baseline and the demo cohort's true boxes.
Writes: ablation.json, .md, .csv, .html, .svg, .png; run.json.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from d2rnet.cxr.ablation_design import ArmDesign, CxrAblationDesign, read_design
from d2rnet.cxr.boxes.grounding import grounding_score
from d2rnet.cxr.boxes.true_boxes import TrueBoxes, read_true_boxes
from d2rnet.errors import ConfigError
from d2rnet.evaluation.ablation_arm import Arm
from d2rnet.evaluation.ablation_cells import (
    REPORTS,
    check_reference,
    facts_of,
    in_order,
    read_cells,
    same_entries,
    train_seconds,
)
from d2rnet.evaluation.ablation_table import Layout, RateTable, make_document, write_table
from d2rnet.evaluation.boxed_classes import boxed_classes
from d2rnet.evaluation.caption_scores import Scorer, open_scorer, single_spaced
from d2rnet.evaluation.clinical import Named
from d2rnet.evaluation.lesion_lookup import lesion_set_answers
from d2rnet.evaluation.metric_names import COMMONEST, LESION_SET, NEAREST, Group, Shown, shown_in
from d2rnet.evaluation.report_pairs import answers_of, commonest_answer
from d2rnet.evaluation.settings import MeteorRuntime, ScoreSettings
from d2rnet.evaluation.systems import score_system, study_counts
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.text.vocabulary import load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
GROUNDING = RateTable(
    key="grounding",
    heading="Grounding: sentences whose attended, and whose linked box lies on a true lesion of the class that they name.",
    columns={
        "sentences": ("sentences per seed", ".0f"),
        "sentences_of_entries_without_boxes": ("left out: no box", ".0f"),
        "hit_rate": ("attended hits", ".2f"),
        "linked_hit_rate": ("linked hits", ".2f"),
        "random_hit_rate": ("random box", ".2f"),
        "reachable_rate": ("best box", ".2f"),
        "true_hit_rate": ("attended hits, lesion is there", ".2f"),
        "true_linked_hit_rate": ("linked hits, lesion is there", ".2f"),
        "true_random_hit_rate": ("random box, lesion is there", ".2f"),
        "true_reachable_rate": ("best box, lesion is there", ".2f"),
        "other_side_rate": ("attended on the other side", ".2f"),
        "linked_other_side_rate": ("linked on the other side", ".2f"),
    },
    others=("ratio", "linked_rate", "true_sentences", "side_sentences", "entries_without_truth"),
)
LAYOUT = Layout(
    title="Ablation of the report model",
    metrics={
        metric.key: metric for metric in sorted(shown_in(Shown.ABLATION), key=lambda metric: metric.group is not Group.LESIONS)
    },
    drawn=("lesion22_uncertain_positive_micro_f1", "bleu_4", "cider"),
    resampled="studies",
    rates=GROUNDING,
)


def ablation(
    *,
    cells: Sequence[Path],
    annotation: Path,
    design: Path,
    nearest: Sequence[Path],
    truth: Sequence[Path],
    oracle: Sequence[Path],
    sure: Sequence[Path],
    output: Path,
    settings: ScoreSettings,
    runtime: MeteorRuntime = MeteorRuntime(),
) -> None:
    """Score all cells on the same studies and lay out the table.

    Args:
        cells: folders ``<arm>/seed_<n>``.
        annotation: annotation.json of the arms with pseudo boxes.
        design: YAML file of the arms, see :func:`d2rnet.cxr.ablation_design.read_design`.
        nearest: reports of retrieve-reports for the same entries; empty: left out.
        truth: truth.jsonl of the demo cohort, for grounding; empty: left out.
        oracle: annotation.json of the arms with oracle boxes; empty if there is none.
        sure: annotation.json of the arms with sure boxes; empty if there is none.
        output: folder for the results.
        settings: how every cell is scored.
        runtime: patience with METEOR.

    Raises:
        FileNotFoundError: a file is not there.
        ConfigError: the design is not what is expected, or arms, cells and files do not go together.
        DatasetError: cells differ in entries, references or steps, or are not of this annotation.json.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    plan = read_design(design)
    order = in_order(cells, [*plan.arms])
    check_reference(order, plan.reference)
    others = {kind: given[0] for kind, given in (("oracle", oracle), ("sure", sure)) if given}
    _check_boxes({folder.parent.name for folder in order}, plan, {"pseudo", *others})
    reports = read_cells(order)
    facts = facts_of(order)
    splits = load_annotation(annotation)
    ids, split = same_entries(reports, splits, annotation)
    entries = {kind: _by_id(load_annotation(path)[split]) for kind, path in others.items()}
    entries["pseudo"] = _by_id(splits[split])
    lesions = read_true_boxes(truth[0]) if truth else None
    vocabulary = load_vocabulary(order[0] / "vocabulary.json")
    references = {name: single_spaced(reports[order[0]][name]["reference"]) for name in ids}
    boxed = boxed_classes(splits["train"], [entries["pseudo"][name] for name in ids])
    baselines = _baselines(splits["train"], boxed, nearest, references, vocabulary.protocol)
    studies = [str(entries["pseudo"][name]["study_id"]) for name in ids]
    counts = study_counts(studies, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    with open_scorer(settings, runtime) as scorer:
        rows = _score(scorer, plan.arms, reports, references, baselines, counts)
    if lesions is not None:
        _ground(rows, plan.arms, reports, entries, lesions)
    protocol = {"text": vocabulary.protocol, "section": vocabulary.section, "split": split, "n": len(ids)}
    document = make_document(rows, LAYOUT, reference=plan.reference, protocol=protocol, facts=facts, notes=scorer.notes)
    write_table(document, LAYOUT, output)
    write_run_record(
        output / "run.json",
        command="ablation",
        settings=settings,
        inputs={"annotation": annotation, "design": design, **{str(folder): folder / REPORTS for folder in order}},
        counts={"cells": len(order), "reports": len(ids)},
    )


def _score(
    scorer: Scorer,
    arms: Mapping[str, ArmDesign],
    reports: Mapping[Path, Mapping[str, Mapping[str, Any]]],
    references: Mapping[str, str],
    baselines: Mapping[str, tuple[str, list[str]]],
    counts: NDArray[Any],
) -> dict[str, Arm]:
    """Score every cell and baseline on the same (N, S) resamples; return the rows of the table."""
    rows: dict[str, Arm] = {}
    texts = list(references.values())
    for folder, lines in reports.items():
        name = folder.parent.name
        arm = rows.setdefault(name, Arm(arms[name].label))
        written = [single_spaced(lines[entry]["hypothesis"]) for entry in references]
        system = score_system(scorer, texts, written, what=f"{name} {folder.name}")
        arm.add(system, counts, LAYOUT.metrics, seed=folder.name)
        arm.seconds.append(train_seconds(folder))
    for name, (label, answers) in baselines.items():
        rows[name] = Arm(label)
        rows[name].add(score_system(scorer, texts, answers, what=name), counts, LAYOUT.metrics)
    return rows


def _check_boxes(named: Set[str], plan: CxrAblationDesign, given: Set[str]) -> None:
    """Raise before anything is scored if boxes are missing that cells were trained with."""
    for kind in sorted({plan.arms[name].boxes for name in named} - given):
        arms = sorted(name for name in named if plan.arms[name].boxes == kind)
        raise ConfigError(f"arms with {kind} boxes ({', '.join(arms)}) need their annotation.json. Give it with --{kind}.")


def _by_id(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {entry["id"]: entry for entry in entries}


def _ground(
    rows: Mapping[str, Arm],
    arms: Mapping[str, ArmDesign],
    reports: Mapping[Path, Mapping[str, Mapping[str, Any]]],
    entries: Mapping[str, Mapping[str, Entry]],
    lesions: TrueBoxes,
) -> None:
    """Add the grounding of each cell whose model sees boxes."""
    for folder, lines in reports.items():
        name = folder.parent.name
        if any(sentence["attended"] is not None for line in lines.values() for sentence in line["sentences"]):
            rows[name].rates.append(grounding_score(list(lines.values()), entries[arms[name].boxes], lesions))


def _baselines(
    training: Sequence[Entry],
    boxed: Named,
    nearest: Sequence[Path],
    references: Mapping[str, str],
    protocol: str,
) -> dict[str, tuple[str, list[str]]]:
    """Name -> label and answers of each baseline."""
    commonest = commonest_answer(training, protocol)["report"]
    answers = {
        COMMONEST: ("most frequent training report", [commonest] * len(references)),
        LESION_SET: ("report that names the classes of the boxes", lesion_set_answers(training, boxed, protocol)),
    }
    if nearest:
        answers[NEAREST] = ("report of the nearest training image", answers_of(nearest[0], references))
    return answers
