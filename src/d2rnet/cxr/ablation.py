"""ablation: what each part of the report model gives, over several seeds, on one split.

Reads: the cells, folders ``<arm>/seed_<n>`` with reports.jsonl, metrics.jsonl and vocabulary.json; annotation.json; the arms'
names and order (workflow/ablation.yaml); optionally the retrieval baseline and the demo cohort's true boxes.
Writes: ablation.json, ablation.md, ablation.svg, ablation.png, run.json.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from d2rnet.cxr.ablation_design import AblationDesign, ArmDesign, read_design
from d2rnet.cxr.boxes.grounding import grounding_score
from d2rnet.cxr.boxes.true_boxes import TrueBoxes, read_true_boxes
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.ablation_arm import Arm
from d2rnet.evaluation.ablation_table import make_document, write_table
from d2rnet.evaluation.caption_scores import Scorer, open_scorer, single_spaced
from d2rnet.evaluation.metric_names import COMMONEST, NEAREST
from d2rnet.evaluation.report_pairs import answers_of, commonest_answer
from d2rnet.evaluation.settings import MeteorRuntime, ScoreSettings
from d2rnet.evaluation.systems import study_counts
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.text.vocabulary import load_vocabulary
from d2rnet.runs.provenance import code_version, write_run_record

log = logging.getLogger(__name__)


def ablation(
    *,
    cells: Sequence[Path],
    annotation: Path,
    design: Path,
    nearest: Sequence[Path],
    truth: Sequence[Path],
    oracle: Sequence[Path],
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
    order = sorted(cells, key=lambda folder: (_place(folder, plan.arms), folder.name))
    _check_arms({folder.parent.name for folder in order}, plan, has_oracle=bool(oracle))
    reports = {folder: {line["id"]: line for line in read_jsonl(folder / "reports.jsonl")} for folder in order}
    facts = _facts(order)
    splits = load_annotation(annotation)
    ids, split = _same_entries(reports, splits, annotation)
    entries = {"pseudo": {entry["id"]: entry for entry in splits[split]}}
    if oracle:
        entries["oracle"] = {entry["id"]: entry for entry in load_annotation(oracle[0])[split]}
    lesions = read_true_boxes(truth[0]) if truth else None
    vocabulary = load_vocabulary(order[0] / "vocabulary.json")
    references = {name: single_spaced(reports[order[0]][name]["reference"]) for name in ids}
    baselines = _baselines(splits["train"], nearest, references, vocabulary.protocol)
    studies = [str(entries["pseudo"][name]["study_id"]) for name in ids]
    counts = study_counts(studies, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    with open_scorer(settings, runtime) as scorer:
        rows = _score(scorer, plan.arms, reports, references, baselines, counts)
    if lesions is not None:
        _ground(rows, plan.arms, reports, entries, lesions)
    protocol = {"text": vocabulary.protocol, "section": vocabulary.section, "split": split, "n": len(ids)}
    document = make_document(rows, reference=plan.reference, protocol=protocol, facts=facts, notes=scorer.notes)
    write_table(document, output)
    write_run_record(
        output / "run.json",
        command="ablation",
        settings=settings,
        inputs={"annotation": annotation, "design": design, **{str(folder): folder / "reports.jsonl" for folder in order}},
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
    for folder, lines in reports.items():
        name = folder.parent.name
        arm = rows.setdefault(name, Arm(arms[name].label))
        written = [single_spaced(lines[entry]["hypothesis"]) for entry in references]
        arm.add(scorer, list(references.values()), written, counts, what=f"{name} {folder.name}")
        arm.seconds.append(sum(line["train_seconds"] for line in read_jsonl(folder / "metrics.jsonl")))
    for name, (label, answers) in baselines.items():
        rows[name] = Arm(label)
        rows[name].add(scorer, list(references.values()), answers, counts, what=name)
    return rows


def _place(folder: Path, arms: Mapping[str, ArmDesign]) -> int:
    """Return the row of a cell's arm."""
    name = folder.parent.name
    if name not in arms or not folder.name.removeprefix("seed_").isdecimal():
        raise ConfigError(f"{folder}: expected a folder <arm>/seed_<n>, with an arm of the design ({', '.join(arms)}).")
    return list(arms).index(name)


def _check_arms(named: Set[str], plan: AblationDesign, *, has_oracle: bool) -> None:
    """Raise before anything is scored if the arms that cells are of cannot be compared."""
    if plan.reference not in named:
        raise ConfigError(f"no cell of the arm '{plan.reference}', which the others are compared with. Give its cells too.")
    oracle = sorted(name for name in named if plan.arms[name].boxes == "oracle")
    if oracle and not has_oracle:
        raise ConfigError(f"arms with oracle boxes ({', '.join(oracle)}) need their annotation.json. Give it with --oracle.")


def _same_entries(
    reports: Mapping[Path, Mapping[str, Any]], splits: Mapping[str, list[Entry]], annotation: Path
) -> tuple[list[str], str]:
    """Return the ids that every cell holds, with the same references, sorted, and their split."""
    first = next(iter(reports))
    ids = sorted(reports[first])
    for folder, found in reports.items():
        if sorted(found) != ids:
            raise DatasetError(
                f"{folder / 'reports.jsonl'}: its {len(found)} entries are not the {len(ids)} of {first / 'reports.jsonl'}. "
                "Write the reports of both again."
            )
        other = [name for name in ids if found[name]["reference"] != reports[first][name]["reference"]]
        if other:
            raise DatasetError(
                f"{folder / 'reports.jsonl'}: {len(other)} of {len(ids)} references are not those of "
                f"{first / 'reports.jsonl'}, such as {other[0]}. Write the reports of both again under one text protocol."
            )
    for split, entries in splits.items():
        if ids and {entry["id"] for entry in entries} == set(ids):
            return ids, split
    raise DatasetError(
        f"{first / 'reports.jsonl'}: its {len(ids)} entries are not those of a split of {annotation}. Give the file that the "
        "reports were written for."
    )


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
            rows[name].grounding.append(grounding_score(list(lines.values()), entries[arms[name].boxes], lesions))


def _baselines(
    training: Sequence[Entry], nearest: Sequence[Path], references: Mapping[str, str], protocol: str
) -> dict[str, tuple[str, list[str]]]:
    """Name -> label and answers of each baseline."""
    commonest = commonest_answer(training, protocol)["report"]
    answers = {COMMONEST: ("most frequent training report", [commonest] * len(references))}
    if nearest:
        answers[NEAREST] = ("report of the nearest training image", answers_of(nearest[0], references))
    return answers


def _facts(cells: Sequence[Path]) -> dict[str, Any]:
    """Return what the scores rest on: seeds, steps of every cell, and the machines and commits that made them.

    Raises:
        DatasetError: cells trained for different numbers of steps.
    """
    steps = {folder: max(line["step"] for line in read_jsonl(folder / "metrics.jsonl")) for folder in cells}
    if len(set(steps.values())) > 1:
        least = min(steps, key=steps.__getitem__)
        most = max(steps, key=steps.__getitem__)
        raise DatasetError(
            f"{least} trained for {steps[least]} steps, {most} for {steps[most]}; expected equal steps of every cell. "
            "Train those of other settings again."
        )
    trained, written = ([read_json(folder / name) for folder in cells] for name in ("run.json", "reports.run.json"))
    machines = {
        ", ".join(hardware["gpus"]) if record["device"].startswith("cuda") else hardware["processor"]
        for record in trained
        for hardware in [record["hardware"]]
    }
    commits = {"trained": trained, "written": written, "scored": [{"code": code_version()}]}
    return {
        "seeds": len({folder.name for folder in cells}),
        "steps": next(iter(steps.values())),
        "machine": " and ".join(sorted(machines)),
        "commit": ", ".join(f"{what} at {_commits(records)}" for what, records in commits.items()),
    }


def _commits(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the commits of run records; one whose tracked files had been changed says so."""
    codes = (record["code"] for record in records)
    return " and ".join(sorted({f"{code['commit']}{' with changes' if code['dirty'] else ''}" for code in codes}))
