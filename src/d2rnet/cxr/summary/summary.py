"""summarize: all metrics of a run in one table, on the terminal, in Markdown and in JSON.

Reads: metrics.json of evaluate-detector and evaluate-reports, counts.json of the earlier rules (and cohort.json of
make-demo-cohort, which marks the run as synthetic), run.json of the trainings. Writes: summary.md, summary.json, run.json, and
detector_card.md and report_model_card.md, the model cards with scores.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from d2rnet.cxr.summary.scored_cards import write_scored_cards
from d2rnet.cxr.summary.summary_rows import (
    DETECTOR_LEGEND,
    HEADER,
    LEGEND,
    Row,
    detector_rows,
    difference_line,
    report_rows,
    section,
)
from d2rnet.errors import DatasetError
from d2rnet.figures.summary_lines import count_lines, listed, one_line, wrapped
from d2rnet.figures.tables import markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.cards import COHORT_FILE
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
SYNTHETIC_NOTE = (
    "The data is the synthetic demo cohort: the numbers show that the workflow runs and that its models learn. "
    "They say nothing about patients."
)
FEW_CASES = 50  # fewer test images or reports than this are no sample (own choice)
FEW_NOTE = (
    "Few test cases ({images} images for the detector, {reports} reports): a smoke test. The numbers show that the files go "
    "all the way through, nothing more."
)


def summarize(
    *, detector_metrics: Path, report_metrics: Path, counts: Sequence[Path], models: Sequence[Path], output: Path
) -> None:
    """Print the result table; write ``summary.md``, ``summary.json``, ``run.json`` and the models' cards to ``output``.

    Args:
        detector_metrics: metrics.json of evaluate-detector.
        report_metrics: metrics.json of evaluate-reports.
        counts: counts.json of earlier rules; a cohort.json among them says that the data is synthetic.
        models: folders of train-detector and train-report-model, for their cards; may be empty.
        output: folder for the results.

    Raises:
        FileNotFoundError: an input is missing.
        DatasetError: an input is no JSON object or lacks a metric; names file and key.
    """
    detector = _read_object(detector_metrics)
    reports = _read_object(report_metrics)
    section(detector, "protocol", detector_metrics)
    counted = {_step_name(path): _read_object(path) for path in counts if path.name != COHORT_FILE}
    synthetic = any(path.name == COHORT_FILE for path in counts)
    by_model = {
        "train-detector": list(detector_rows(detector, detector_metrics)),
        "train-report-model": list(report_rows(reports, report_metrics)),
    }
    rows = [row for found in by_model.values() for row in found]
    write_scored_cards(models, counts, by_model, dict(zip(by_model, (detector, reports), strict=True)), output)
    paths = _paths(output, detector_metrics, report_metrics, reports)
    text = as_markdown(rows, counted, detector, reports, paths, synthetic=synthetic)
    document = {
        "synthetic": synthetic,
        "table": [asdict(row) for row in rows],
        "detector": detector,
        "reports": reports,
        "counts": counted,
        "paths": paths,
    }
    write_json(output / "summary.json", document)
    write_text(output / "summary.md", text)
    inputs = {"detector_metrics": detector_metrics, "report_metrics": report_metrics}
    inputs |= {f"counts_{number}": path for number, path in enumerate(counts, start=1)}
    write_run_record(output / "run.json", command="summarize", settings={}, inputs=inputs)
    print(text, end="")


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run the rule that makes it.")
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: got a {type(content).__name__}; expected a JSON object with metrics.")
    return content


def _step_name(path: Path) -> str:
    """Name the step that wrote a counts file after its folder, or after the file if it is called otherwise."""
    return path.parent.name if path.stem == "counts" else path.stem


def as_markdown(
    rows: Sequence[Row],
    counts: Mapping[str, Mapping[str, Any]],
    detector: Mapping[str, Any],
    reports: Mapping[str, Any],
    paths: Mapping[str, str],
    *,
    synthetic: bool,
) -> str:
    """Lay out the summary; the same text goes to the terminal and to summary.md.

    Args:
        rows: the result table.
        counts: step -> its counts.json.
        detector: metrics.json of the detector, for its protocol.
        reports: metrics.json of the reports, for their protocol.
        paths: what it is -> where it is.
        synthetic: the data is the demo cohort.
    """
    lines = ["# Results", "", *([*wrapped(SYNTHETIC_NOTE), ""] if synthetic else [])]
    sizes = {"images": detector.get("n_images"), "reports": reports["protocol"].get("n")}
    if any(isinstance(size, int) and size < FEW_CASES for size in sizes.values()):
        lines += [*wrapped(FEW_NOTE.format(**sizes)), ""]
    lines += [
        *markdown_table(HEADER, [astuple(row) for row in rows]),
        "",
    ]
    items = [f"{metric}: {note}" for metric, note in reports.get("notes", {}).items()]
    items += [DETECTOR_LEGEND, *filter(None, [difference_line(detector)])]
    items += [LEGEND, f"detector protocol: {one_line(detector['protocol'])}."]
    items += [f"report protocol: {one_line(reports['protocol'])}."]
    lines += [*listed(items), ""]
    if counts:
        counted = [f"{step}: {text}" for step, content in counts.items() for text in count_lines(content)]
        lines += ["Counts other than 0 (all of them: summary.json):", "", *listed(counted), ""]
    lines += ["Where to look:", "", *(f"- {what}: {path}" for what, path in paths.items())]
    return "\n".join(lines) + "\n"


def _paths(output: Path, detector_metrics: Path, report_metrics: Path, reports: Mapping[str, Any]) -> dict[str, str]:
    """Name the files a reader wants next."""
    files = reports.get("files", {})
    paths = {"this table": str(output / "summary.md")}
    if "generated" in files:
        paths["generated reports beside their references"] = files["generated"]
    if "annotation" in files:
        paths["images with pseudo boxes and reports"] = files["annotation"]
    paths["metrics of the detector, per class"] = str(detector_metrics)
    if (detector_metrics.parent / "figures").is_dir():
        paths["curves of the detector"] = str(detector_metrics.parent / "figures")
    paths["metrics of the reports"] = str(report_metrics)
    return paths
