"""summarize_ct: all scores of a chest CT run, every baseline beside them; on the terminal, in Markdown and in JSON.

Reads: metrics.json of evaluate-structures and evaluate-ct-reports, counts.json of the earlier rules (and cohort.json of
make-ct-demo-cohort, which marks the run as synthetic), run.json of the trainings. Writes: summary.md, summary.json, run.json,
and structure_model_card.md and report_model_card.md, the model cards with scores.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.ct.evaluation.baselines import BASELINES, LABEL_SET
from d2rnet.ct.evaluation.metric_table import CT_METRICS
from d2rnet.ct.evaluation.scored_cards import write_scored_cards
from d2rnet.ct.evaluation.structure_rows import REQUIRED as STRUCTURES_REQUIRED
from d2rnet.ct.evaluation.structure_rows import structure_heading, structure_lines, structure_rows
from d2rnet.errors import DatasetError
from d2rnet.evaluation.metric_names import Metric, Shown
from d2rnet.figures.summary_lines import count_lines, listed, number, one_line, wrapped
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.cards import COHORT_FILE
from d2rnet.runs.provenance import write_run_record

REQUIRED = ("protocol", "scores", "baselines", "intervals", "against", "missing", "notes")
SYNTHETIC_NOTE = (
    "The data is the synthetic CT cohort: the numbers show that the workflow runs and that its models learn. They say nothing "
    "about patients."
)
LEGEND = (
    "commonest: the most frequent training report to every volume. shuffled: each report given to another patient. nearest: "
    "the report of the training volume with the nearest features. label set: 18 labels by a linear classifier on the same "
    "features, answered with a stored report of that label set; a generator that is not above it would be served by a lookup. "
    "true label set: the same with the true labels, its upper bound. Abnormality scores: what our rules read in the generated "
    "report, against what they read in the reference, and against the source's table of labels; doubtful mentions included."
)
HELD = ("data", "section", "text", "split", "level", "n")
Row = dict[str, str]


def summarize_ct(
    *, structure_metrics: Path, report_metrics: Path, counts: Sequence[Path], models: Sequence[Path], output: Path
) -> None:
    """Print the result tables; write ``summary.md``, ``summary.json``, ``run.json`` and the models' cards to ``output``.

    Args:
        structure_metrics: metrics.json of evaluate-structures.
        report_metrics: metrics.json of evaluate-ct-reports.
        counts: counts.json of earlier rules; a cohort.json among them says that the data is synthetic.
        models: folders of train-structures and train-ct-report-model, for their cards; may be empty.
        output: folder for the results.

    Raises:
        FileNotFoundError: an input is missing.
        DatasetError: an input is no JSON object or lacks a section; names file and key.
    """
    structures = _read_metrics(structure_metrics, STRUCTURES_REQUIRED, "evaluate-structures")
    metrics = _read_metrics(report_metrics, REQUIRED, "evaluate-ct-reports")
    counted = {path.parent.name: _read_object(path) for path in counts if path.name != COHORT_FILE}
    synthetic = len(counted) < len(counts)
    rows = list(result_rows(metrics))
    sections = {"train-structures": _structure_section(structures), "train-ct-report-model": _report_section(rows, metrics)}
    write_scored_cards(models, counts, sections, output)
    paths = (structure_metrics, report_metrics)
    text = as_markdown(sections.values(), counted, paths, synthetic=synthetic)
    document = {
        "synthetic": synthetic,
        "structure_table": structure_rows(structures),
        "table": rows,
        "structures": structures,
        "reports": metrics,
        "counts": counted,
    }
    write_json(output / "summary.json", document)
    write_text(output / "summary.md", text)
    inputs = {"structure_metrics": structure_metrics, "report_metrics": report_metrics}
    inputs |= {f"counts_{n}": path for n, path in enumerate(counts, start=1)}
    write_run_record(output / "run.json", command="summarize-ct", settings={}, inputs=inputs)
    print(text, end="")


def _read_metrics(path: Path, required: Sequence[str], command: str) -> dict[str, Any]:
    metrics = _read_object(path)
    missing = [key for key in required if key not in metrics]
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(missing)}; expected metrics.json of 'd2rnet {command}'.")
    return metrics


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run the rule that makes it.")
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: got a {type(content).__name__}; expected a JSON object.")
    return content


def result_rows(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Yield ``metric``, ``result`` with its interval and each baseline that was run, for each metric that was scored."""
    shown = {name: word for name, word in BASELINES.items() if name in metrics["baselines"]}
    for metric in shown_metrics(metrics):
        value = metrics["scores"][metric.key]
        ends = metrics["intervals"].get(metric.key)
        result = metric.text(value) + (f" [{metric.text(ends[0])}, {metric.text(ends[1])}]" if ends else "")
        if str(metrics["notes"].get(metric.key, "")).startswith("not run"):
            result = "not run"
        beside = {word: metric.text(metrics["baselines"][name].get(metric.key)) for name, word in shown.items()}
        yield {"metric": metric.heading, "result": result, **beside}
    if "unique_report_rate" in metrics:
        references = f"(references {number(metrics['unique_reference_rate'])})"
        row = {"metric": "different reports / n", "result": f"{number(metrics['unique_report_rate'])} {references}"}
        yield {**row, **dict.fromkeys(shown.values(), "")}


def shown_metrics(metrics: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics of the table that were scored."""
    return [one for key, one in CT_METRICS.items() if Shown.SUMMARY not in one.left_out_of and key in metrics["scores"]]


def as_markdown(
    sections: Iterable[Sequence[str]], counts: Mapping[str, Any], paths: Sequence[Path], *, synthetic: bool
) -> str:
    """Lay out the summary; the same text goes to the terminal and to summary.md.

    Args:
        sections: lines of each stage.
        counts: step -> its counts.json.
        paths: of the metrics.
        synthetic: the data is the demo cohort.
    """
    lines = ["# Results, chest CT", "", *([*wrapped(SYNTHETIC_NOTE), ""] if synthetic else [])]
    for section in sections:
        lines += [*section, ""]
    if counts:
        counted = [f"{step}: {text}" for step, content in counts.items() for text in count_lines(content)]
        lines += ["Counts other than 0 (all of them: summary.json):", "", *listed(counted), ""]
    return "\n".join([*lines, f"All metrics, every protocol, per class: {', '.join(map(str, paths))}"]) + "\n"


def _structure_section(metrics: Mapping[str, Any]) -> list[str]:
    """Lay out the table of stage 1 and what stands under it."""
    rows = structure_rows(metrics)
    table = markdown_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    return [*wrapped(structure_heading(metrics)), "", *table, "", *listed(structure_lines(metrics))]


def _report_section(rows: Sequence[Row], metrics: Mapping[str, Any]) -> list[str]:
    """Lay out the table of the reports and what stands under it."""
    protocol = metrics["protocol"]
    held = ", ".join(f"{key} {protocol.get(key, 'not recorded')}" for key in HELD)
    heading = f"Stage 2, the reports: {held}; brackets: 95 % interval over patients."
    items = [*_missing_lines(metrics), *_difference_lines(metrics)]
    items += [f"{name}: {note}" for name, note in metrics["notes"].items()]
    items += [LEGEND, f"protocol: {one_line(protocol)}."]
    table = markdown_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    return [*wrapped(heading), "", *table, "", *listed(items)]


def _missing_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Say how many predictions are missing, and what the scores are with an empty report for each."""
    missing = metrics["missing"]
    if missing["predictions"]:
        scores = missing["scores_with_empty_reports"]
        shown = ", ".join(f"{metric.heading} {metric.text(scores.get(metric.key))}" for metric in shown_metrics(metrics))
        count = f"{missing['predictions']:,}"
        yield f"volumes without a generated report, which are not in the table: {count}; with empty reports for them: {shown}."


def _difference_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Say how far the reports are above the baseline that is hardest to beat, paired."""
    found = metrics["against"].get(LABEL_SET)
    if not found:
        return
    parts = []
    for metric in shown_metrics(metrics):
        if metric.key in found and found[metric.key]["interval"]:
            difference, ends = found[metric.key]["difference"], found[metric.key]["interval"]
            low, high = (metric.text(end, sign="+") for end in ends)
            parts.append(f"{metric.heading} {metric.text(difference, sign='+')} [{low}, {high}]")
    yield f"minus label set, paired: {', '.join(parts)}."
