"""d2rnet compare RUN_A RUN_B: are the reports of one run better than those of another, or is it chance.

A run is a JSON lines file with ``id, reference, hypothesis`` (and ``study_id``), or a folder that holds one: of
evaluate-reports, of generate-reports, or the directory that a whole workflow ran in. Both are scored again, by the same
scorer on the same references, and compared by a paired bootstrap: over studies of radiographs, over patients of chest CT,
where each volume counts once.

Writes: comparison.json and comparison.md.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import open_scorer
from d2rnet.evaluation.metric_names import METRICS, Metric
from d2rnet.evaluation.report_pairs import read_reports
from d2rnet.evaluation.settings import MeteorRuntime, ScoreSettings
from d2rnet.evaluation.systems import RADIOGRAPHS, Scoring, System, compare_systems, study_counts
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)
REPORTS = ("per_report.jsonl", "test.jsonl", "reports.jsonl")  # in a folder of one command
PLACES = {  # modality -> where a whole run has them
    "cxr": ("results/cxr/evaluate_reports/per_report.jsonl", "results/cxr/generate_reports/test.jsonl"),
    "ct": ("results/ct/evaluate_ct_reports/per_report.jsonl", "results/ct/generate_ct_reports/test.jsonl"),
}
SCORED = ("evaluate_reports", "evaluate_ct_reports")
RESAMPLED = {"cxr": ("study_id", "studies"), "ct": ("subject_id", "patients")}  # key of a line, and what it names
AUTO = "auto"
PROTOCOL_KEYS = ("text", "references", "section", "split")
STUDIES = ("same", "common")


@dataclass(frozen=True)
class Run:
    """Reports of one run.

    Attributes:
        file: where they were read.
        reports: id -> line of the file, with ``reference`` and ``hypothesis`` single-spaced.
        protocol: ``text``, ``section`` and ``split`` where a metrics.json lies beside the file; else empty.
        modality: ``cxr`` or ``ct``.
    """

    file: Path
    reports: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    modality: str = "cxr"


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
    systems: tuple[System, System]
    protocol: dict[str, Any]

    @property
    def modality(self) -> str:
        """Of both runs."""
        return self.runs[0].modality


def compare_runs(
    *,
    run_a: Path,
    run_b: Path,
    studies: str,
    output: Path,
    settings: ScoreSettings,
    runtime: MeteorRuntime = MeteorRuntime(),
    modality: str = AUTO,
    scorings: Sequence[Scoring] = (RADIOGRAPHS,),
) -> Comparison:
    """Compare two runs; print the table and write comparison.json and comparison.md to ``output``.

    Args:
        run_a: JSON lines file or folder.
        run_b: JSON lines file or folder.
        studies: ``same``: both must hold the same entries; ``common``: those that both hold are compared.
        output: folder for the results.
        settings: how both are scored.
        runtime: patience with METEOR.
        modality: ``cxr``, ``ct``, or ``auto``: as the records of the runs say, else radiographs.
        scorings: how each modality is scored.

    Returns:
        What was compared.

    Raises:
        FileNotFoundError: a run is not there.
        DatasetError: a file is not what its format says, the runs hold different entries, or references or protocols differ.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    if studies not in STUDIES:
        raise DatasetError(f"--studies {studies}: expected {' or '.join(STUDIES)}.")
    first = read_run(run_a, modality=modality)
    second = read_run(run_b, modality=modality)
    scoring = {scoring.modality: scoring for scoring in scorings}[first.modality]
    ids = shared_ids(first, second, studies=studies)
    references = [first.reports[name]["reference"] for name in ids]
    groups = _groups(first, second, ids)
    with open_scorer(settings, runtime) as scorer:
        scored_a, scored_b = (
            scoring.score(scorer, references, [run.reports[name]["hypothesis"] for name in ids], what=f"run {letter}")
            for letter, run in (("A", first), ("B", second))
        )
    counts = study_counts(groups, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    document: dict[str, Any] = {
        "run_a": str(first.file),
        "run_b": str(second.file),
        "protocol": {**first.protocol, **second.protocol},
        "n": len(ids),
        f"n_{RESAMPLED[first.modality][1]}": len(set(groups)),
        "only_in_a": len(first.reports) - len(ids),
        "only_in_b": len(second.reports) - len(ids),
        "bootstrap_samples": settings.bootstrap_samples,
        "bootstrap_seed": settings.bootstrap_seed,
        "metrics": compare_systems(scored_a, scored_b, counts=counts),
        "notes": scorer.notes,
    }
    text = as_markdown(document, scoring.metrics, resampled=RESAMPLED[first.modality][1])
    write_json(output / "comparison.json", document)
    write_text(output / "comparison.md", text)
    print(text, end="")
    study_ids = [str(first.reports[name].get("study_id", second.reports[name].get("study_id", name))) for name in ids]
    return Comparison((first, second), ids, study_ids, (scored_a, scored_b), document["protocol"])


def _groups(first: Run, second: Run, ids: Sequence[str]) -> list[str]:
    """Return what each entry is drawn with: its study, of chest CT its patient; itself where neither run says."""
    key, word = RESAMPLED[first.modality]
    lines = [{**second.reports[name], **first.reports[name]} for name in ids]
    unknown = sum(key not in line for line in lines)
    if first.modality == "ct" and unknown:
        log.warning(
            "%d of %d volumes: no %s in either run; each is resampled by itself, so intervals are too narrow where a patient "
            "has several. Give folders of evaluate-ct-reports, which name %s",
            unknown,
            len(ids),
            key,
            word,
        )
    return [str(line.get(key, name)) for line, name in zip(lines, ids, strict=True)]


def read_run(path: Path, *, modality: str = AUTO) -> Run:
    """Read the reports of a run and, where it is known, their protocol.

    Args:
        path: JSON lines file or folder.
        modality: ``cxr``, ``ct``, or ``auto``: as the record or the scores beside the file say, else radiographs.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without reports.
        DatasetError: a line lacks a text, an id comes twice, a reference is empty, there is no line, or the folder of a whole
            run holds reports of both modalities.
    """
    if modality not in (AUTO, *PLACES):
        raise DatasetError(f"--modality {modality}: expected {', '.join((AUTO, *PLACES))}.")
    file = _reports_below(path, modality) if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file or folder; expected reports, one JSON object per line.")
    problems = Problems()
    reports = read_reports(file, problems)
    problems.raise_if_any()
    if not reports:
        raise DatasetError(f"{file}: holds no report; expected one JSON object per line.")
    beside = (file.with_name("metrics.json"), *(file.parent.parent / folder / "metrics.json" for folder in SCORED))
    metrics: Any = next((read_json(place) for place in beside if place.is_file()), {})
    protocol = metrics.get("protocol", {}) if isinstance(metrics, dict) else {}
    own = {key: protocol[key] for key in PROTOCOL_KEYS if key in protocol}
    return Run(file, reports, own, _recorded_modality(file, protocol) if modality == AUTO else modality)


def _reports_below(folder: Path, modality: str) -> Path:
    """Return the file of reports in a folder of one command, or of a whole run."""
    wanted = PLACES if modality == AUTO else {modality: PLACES[modality]}
    places = [[folder / place for place in (*REPORTS, *of_run)] for of_run in wanted.values()]
    found = [next((place for place in row if place.is_file()), None) for row in places]
    files = list(dict.fromkeys(filter(None, found)))
    if not files:
        expected = ", ".join((*REPORTS, *(place for of_run in wanted.values() for place in of_run)))
        raise FileNotFoundError(f"{folder}: holds none of {expected}; expected a folder of reports.")
    if len(files) > 1:
        names = " and ".join(str(file.relative_to(folder)) for file in files)
        raise DatasetError(f"{folder}: holds {names}; say which is meant with --modality cxr or --modality ct.")
    return files[0]


def _recorded_modality(file: Path, protocol: Mapping[str, Any]) -> str:
    """Return the modality that the scores or the run record beside a file of reports tell; radiographs where none does."""
    for place in (file.with_suffix(".run.json"), file.with_name("run.json")):
        record: Any = read_json(place) if place.is_file() else {}
        if isinstance(record, dict) and "ct" in str(record.get("command", "")).split("-"):
            return "ct"
    return "ct" if protocol.get("modality") == "ct" else "cxr"


def shared_ids(first: Run, second: Run, *, studies: str) -> list[str]:
    """Return the ids to compare, in the order of the first run.

    Raises:
        DatasetError: the runs hold different entries and ``studies`` is ``same``, none in common, other references for the
            same entry, or other protocols.
    """
    files = f"{first.file} and {second.file}"
    if first.modality != second.modality:
        kinds = " and ".join(f"{run.modality} ({run.file})" for run in (first, second))
        raise DatasetError(f"reports of {kinds}; expected one modality. Say it with --modality, if a file has no record.")
    for key in first.protocol.keys() & second.protocol.keys():
        if first.protocol[key] != second.protocol[key]:
            raise DatasetError(
                f"{files}: {key} is '{first.protocol[key]}' in one and '{second.protocol[key]}' in the other; scores of "
                "different protocols cannot be compared. Generate both under one protocol."
            )
    ids = [name for name in first.reports if name in second.reports]
    common = set(ids)
    alone = {run.file: [name for name in run.reports if name not in common] for run in (first, second)}
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


def as_markdown(document: Mapping[str, Any], metrics: Mapping[str, Metric] = METRICS, *, resampled: str = "studies") -> str:
    """Lay out a comparison as a table for a terminal and for Markdown.

    Args:
        document: comparison.json.
        metrics: the table of metrics.
        resampled: what was drawn: studies or patients.
    """
    header = ("metric", "A", "B", "A - B", "95 % interval", "p")
    rows = [
        (
            metrics[key].heading,
            metrics[key].text(found["first"], more_digits=1),
            metrics[key].text(found["second"], more_digits=1),
            metrics[key].text(found["difference"], more_digits=1, sign="+"),
            " to ".join(metrics[key].text(end, more_digits=1, sign="+") for end in found["interval"] or [None]),
            f"{found['p']:.3f}",
        )
        for key, found in document["metrics"].items()
    ]
    protocol = ", ".join(f"{key} {value}" for key, value in document["protocol"].items()) or "protocol not recorded"
    size = (
        f"n {document['n']:,} in {document[f'n_{resampled}']:,} {resampled}, resampled {document['bootstrap_samples']:,} times"
    )
    lines = [
        f"A: {document['run_a']}",
        f"B: {document['run_b']}",
        f"{protocol}, {size}.",
        *(f"{metric}: {note}" for metric, note in document["notes"].items()),
        "",
        *markdown_table(header, rows),
    ]
    return "\n".join(lines) + "\n"
