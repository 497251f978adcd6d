"""d2rnet compare RUN_A RUN_B: are the reports of one run better than those of another, or is it chance.

A run is a JSON lines file with ``id, reference, hypothesis`` (and ``study_id``), or a folder that holds one: of
evaluate-reports, of generate-reports, or the directory that a whole workflow ran in. Both are scored again, by the same
scorer on the same references, and compared by a paired bootstrap over studies.

Writes: comparison.json and comparison.md.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import open_scorer
from d2rnet.evaluation.metric_names import METRICS
from d2rnet.evaluation.report_pairs import read_reports
from d2rnet.evaluation.settings import MeteorRuntime, ScoreSettings
from d2rnet.evaluation.systems import ScoredSystem, compare_systems, score_system, study_counts
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)
PLACES = (
    "per_report.jsonl",
    "test.jsonl",
    "reports.jsonl",
    "results/cxr/evaluate_reports/per_report.jsonl",
    "results/cxr/generate_reports/test.jsonl",
)
PROTOCOL_KEYS = ("text", "section", "split")
STUDIES = ("same", "common")


@dataclass(frozen=True)
class Run:
    """Reports of one run.

    Attributes:
        file: where they were read.
        reports: id -> line of the file, with ``reference`` and ``hypothesis`` single-spaced.
        protocol: ``text``, ``section`` and ``split`` where a metrics.json lies beside the file; else empty.
    """

    file: Path
    reports: dict[str, dict[str, Any]]
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What was compared, for those who look closer.

    Attributes:
        runs: A and B.
        ids: entries, in the order of A.
        study_ids: study of each entry.
        systems: scores of A and of B, in the order of ``ids``.
        protocol: of both runs, as far as it is recorded.
    """

    runs: tuple[Run, Run]
    ids: list[str]
    study_ids: list[str]
    systems: tuple[ScoredSystem, ScoredSystem]
    protocol: dict[str, Any]


def compare_runs(
    *,
    run_a: Path,
    run_b: Path,
    studies: str,
    output: Path,
    settings: ScoreSettings,
    runtime: MeteorRuntime = MeteorRuntime(),
) -> Comparison:
    """Compare two runs; print the table and write comparison.json and comparison.md to ``output``.

    Args:
        run_a: JSON lines file or folder.
        run_b: JSON lines file or folder.
        studies: ``same``: both must hold the same entries; ``common``: those that both hold are compared.
        output: folder for the results.
        settings: how both are scored.
        runtime: patience with METEOR.

    Returns:
        What was compared.

    Raises:
        FileNotFoundError: a run is not there.
        DatasetError: a file is not what its format says, the runs hold different entries, or references or protocols differ.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    if studies not in STUDIES:
        raise DatasetError(f"--studies {studies}: expected {' or '.join(STUDIES)}.")
    first = read_run(run_a)
    second = read_run(run_b)
    ids = shared_ids(first, second, studies=studies)
    references = [first.reports[name]["reference"] for name in ids]
    study_ids = [str(first.reports[name].get("study_id", second.reports[name].get("study_id", name))) for name in ids]
    with open_scorer(settings, runtime) as scorer:
        scored_a, scored_b = (
            score_system(scorer, references, [run.reports[name]["hypothesis"] for name in ids], what=f"run {letter}")
            for letter, run in (("A", first), ("B", second))
        )
    counts = study_counts(study_ids, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    document: dict[str, Any] = {
        "run_a": str(first.file),
        "run_b": str(second.file),
        "protocol": {**first.protocol, **second.protocol},
        "n": len(ids),
        "n_studies": len(set(study_ids)),
        "only_in_a": len(first.reports) - len(ids),
        "only_in_b": len(second.reports) - len(ids),
        "bootstrap_samples": settings.bootstrap_samples,
        "bootstrap_seed": settings.bootstrap_seed,
        "metrics": compare_systems(scored_a, scored_b, counts=counts),
        "notes": scorer.notes,
    }
    text = as_markdown(document)
    write_json(output / "comparison.json", document)
    write_text(output / "comparison.md", text)
    print(text, end="")
    return Comparison((first, second), ids, study_ids, (scored_a, scored_b), document["protocol"])


def read_run(path: Path) -> Run:
    """Read the reports of a run and, where it is known, their protocol.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without reports.
        DatasetError: a line lacks a text, an id comes twice, a reference is empty, or there is no line.
    """
    if path.is_dir():
        file = next((path / place for place in PLACES if (path / place).is_file()), None)
        if file is None:
            raise FileNotFoundError(f"{path}: holds none of {', '.join(PLACES)}; expected a folder of reports.")
    else:
        file = path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file or folder; expected reports, one JSON object per line.")
    problems = Problems()
    reports = read_reports(file, problems)
    problems.raise_if_any()
    if not reports:
        raise DatasetError(f"{file}: holds no report; expected one JSON object per line.")
    beside = (file.with_name("metrics.json"), file.parent.parent / "evaluate_reports" / "metrics.json")
    metrics: Any = next((read_json(place) for place in beside if place.is_file()), {})
    protocol = metrics.get("protocol", {}) if isinstance(metrics, dict) else {}
    return Run(file, reports, {key: protocol[key] for key in PROTOCOL_KEYS if key in protocol})


def shared_ids(first: Run, second: Run, *, studies: str) -> list[str]:
    """Return the ids to compare, in the order of the first run.

    Raises:
        DatasetError: the runs hold different entries and ``studies`` is ``same``, none in common, other references for the
            same entry, or other protocols.
    """
    files = f"{first.file} and {second.file}"
    for key in first.protocol.keys() & second.protocol.keys():
        if first.protocol[key] != second.protocol[key]:
            raise DatasetError(
                f"{files}: {key} is '{first.protocol[key]}' in one and '{second.protocol[key]}' in the other; scores of "
                "different protocols cannot be compared. Generate both under one protocol."
            )
    ids = [name for name in first.reports if name in second.reports]
    alone = {run.file: [name for name in run.reports if name not in set(ids)] for run in (first, second)}
    if any(alone.values()) and studies == "same":
        shown = "; ".join(f"{len(names)} only in {file}, such as {names[0]}" for file, names in alone.items() if names)
        raise DatasetError(
            f"{files}: {len(ids)} entries in common, {shown}; expected the same entries. Compare those in common with "
            "--studies common."
        )
    if not ids:
        raise DatasetError(f"{files}: no entry in common; expected runs on the same cohort.")
    other = [name for name in ids if first.reports[name]["reference"] != second.reports[name]["reference"]]
    if other:
        texts = [run.reports[other[0]]["reference"][:60] for run in (first, second)]
        raise DatasetError(
            f"{files}: {len(other)} of {len(ids)} entries have another reference, such as {other[0]}: '{texts[0]}' and "
            f"'{texts[1]}'. Text protocol, section or cohort differ; generate both under one protocol."
        )
    return ids


def as_markdown(document: Mapping[str, Any]) -> str:
    """Lay out a comparison as a table for a terminal and for Markdown."""
    header = ("metric", "A", "B", "A - B", "95 % interval", "p")
    rows = [
        (
            METRICS[key].heading,
            METRICS[key].text(found["first"], more_digits=1),
            METRICS[key].text(found["second"], more_digits=1),
            METRICS[key].text(found["difference"], more_digits=1, sign="+"),
            " to ".join(METRICS[key].text(end, more_digits=1, sign="+") for end in found["interval"] or [None]),
            f"{found['p']:.3f}",
        )
        for key, found in document["metrics"].items()
    ]
    protocol = ", ".join(f"{key} {value}" for key, value in document["protocol"].items()) or "protocol not recorded"
    size = f"n {document['n']:,} in {document['n_studies']:,} studies, resampled {document['bootstrap_samples']:,} times"
    lines = [
        f"A: {document['run_a']}",
        f"B: {document['run_b']}",
        f"{protocol}, {size}.",
        *(f"{metric}: {note}" for metric, note in document["notes"].items()),
        "",
        *markdown_table(header, rows),
    ]
    return "\n".join(lines) + "\n"
