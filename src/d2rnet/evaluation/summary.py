"""summarize: all figures of a run in one table, on the terminal, in Markdown and in JSON.

Reads: metrics.json of evaluate-detector and evaluate-reports, counts.json of the earlier rules (and cohort.json of
make-demo-cohort, which marks the run as synthetic). Writes: summary.md, summary.json, run.json.
"""

import logging
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation.tables import markdown_table
from d2rnet.io import read_json, write_json, write_text
from d2rnet.provenance import write_run_record

log = logging.getLogger(__name__)
COHORT_FILE = "cohort.json"
SYNTHETIC_NOTE = (
    "The data is the synthetic demo cohort: the figures show that the workflow runs and that its models learn. "
    "They say nothing about patients."
)
FEW_CASES = 50  # fewer test images or reports than this are no sample (own choice)
FEW_NOTE = (
    "Few test cases ({images} images for the detector, {reports} reports): a smoke test. The figures show that the files go "
    "all the way through, nothing more."
)
DETECTOR_ROWS = {
    "AP50": "AP50",
    "AP40": "AP40",
    "AP75": "AP75",
    "AP": "AP",
    "voc_mAP40_22": "VOC mAP 22",
    "voc_mAP40_14": "VOC mAP 14",
    "froc_mean": "FROC mean",
    "auroc_any_finding": "AUROC finding",
}
DETECTOR_REQUIRED = ("AP50", "AP40")
REPORT_ROWS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
}
LEGEND = (
    "shuffled: the same reports against references of other studies; a model that ignores its image scores the same there. "
    "commonest: the most frequent training report as the answer to every image. nearest: that of the training image that "
    "looks most alike. Lesion F1: the 22 classes that generated and reference report name, doubtful mentions included."
)
GENERATED, LESION_CONVENTION = "generated", "lesion22_uncertain_positive"
LESION_BASELINES = {"most_frequent_report": "commonest", "nearest_training_report": "nearest", "no_box_model": "no boxes"}
DETECTOR_LEGEND = (
    "brackets: bootstrap 95 % interval over test images. VOC mAP: PASCAL VOC 2010 at IoU > 0.4, 22 classes and the 14 of "
    "VinBigData. FROC mean: sensitivity, mean over 1/8 to 8 false positives an image. AUROC finding: has the image a box?"
)
MOST_LEAVES_SHOWN = 6
WIDTH = 118  # columns


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it is to be compared with, and what it holds for."""

    figure: str
    result: str
    compare: str
    measured_on: str


def summarize(*, detector_metrics: Path, report_metrics: Path, counts: Sequence[Path], output: Path) -> None:
    """Print the result table; write ``summary.md``, ``summary.json`` and ``run.json`` to ``output``.

    Args:
        detector_metrics: metrics.json of evaluate-detector.
        report_metrics: metrics.json of evaluate-reports.
        counts: counts.json of earlier rules; a cohort.json among them says that the data is synthetic.
        output: folder for the results.

    Raises:
        FileNotFoundError: an input is missing.
        DatasetError: an input is no JSON object or lacks a figure; names file and key.
    """
    detector, reports = _read_object(detector_metrics), _read_object(report_metrics)
    _section(detector, "protocol", detector_metrics)
    counted = {_step_name(path): _read_object(path) for path in counts if path.name != COHORT_FILE}
    synthetic = any(path.name == COHORT_FILE for path in counts)
    rows = [*detector_rows(detector, detector_metrics), *report_rows(reports, report_metrics)]
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
        raise DatasetError(f"{path}: got a {type(content).__name__}; expected a JSON object with figures.")
    return content


def _step_name(path: Path) -> str:
    """Name the step that wrote a counts file after its folder, or after the file if it is called otherwise."""
    return path.parent.name if path.stem == "counts" else path.stem


def _section(metrics: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    section = metrics.get(key)
    if not isinstance(section, dict):
        raise DatasetError(f"{path}: '{key}' is {section!r}; expected an object. Make the file again with its rule.")
    return section


def detector_rows(metrics: Mapping[str, Any], path: Path) -> Iterator[Row]:
    """Yield the rows of the detector, EMA teacher with the student beside it.

    Raises:
        DatasetError: EMA teacher or student is missing, or lacks AP50 or AP40.
    """
    teacher, student = (_section(metrics, key, path) for key in ("ema_teacher", "student"))
    measured_on = ", ".join(f"{_thousands(metrics[key])} {key[2:]}" for key in ("n_images", "n_boxes") if key in metrics)
    for key in DETECTOR_REQUIRED:
        for name, network in (("ema_teacher", teacher), ("student", student)):
            if key not in network:
                found = ", ".join(network)
                raise DatasetError(f"{path}: {name} has no '{key}' (it has {found}); run evaluate-detector again.")
    for key, name in DETECTOR_ROWS.items():
        if key in teacher:
            result = _number(teacher[key]) + _interval(teacher.get("intervals", {}).get(key))
            yield Row(f"{name}, EMA teacher", result, f"student {_number(student.get(key))}", measured_on)


def difference_line(metrics: Mapping[str, Any]) -> str:
    """Say by how much the EMA teacher is ahead of the student, "" where the file does not."""
    differences = metrics.get("teacher_minus_student", {})
    parts = [
        f"{name} {_number(differences[key]['difference'])}{_interval(differences[key]['interval'])}"
        for key, name in DETECTOR_ROWS.items()
        if key in differences
    ]
    return f"EMA teacher minus student, paired: {', '.join(parts)}." if parts else ""


def _interval(ends: Any) -> str:
    return f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""


def report_rows(metrics: Mapping[str, Any], path: Path) -> Iterator[Row]:
    """Yield the rows of the reports, each score with both controls beside it.

    Raises:
        DatasetError: a section or a score is missing.
    """
    names = ("scores", "shuffled", "most_frequent_report")
    scores, shuffled, commonest = (_section(metrics, key, path) for key in names)
    protocol = _section(metrics, "protocol", path)
    words = [str(protocol.get(key, f"{key} not recorded")) for key in ("section", "text")]
    measured_on = ", ".join([*words, f"n {_thousands(protocol.get('n', 'not recorded'))}"])
    for key, name in REPORT_ROWS.items():
        for section_name, section in zip(names, (scores, shuffled, commonest), strict=True):
            if key not in section:
                raise DatasetError(f"{path}: {section_name} has no '{key}'; run evaluate-reports again.")
        compare = f"shuffled {_number(shuffled[key])}, commonest {_number(commonest[key])}{_nearest(metrics, key)}"
        if scores[key] is None:
            reason = str(metrics.get("notes", {}).get(key, ""))
            yield Row(name, "not run" if reason.startswith("not run") else "-", "see below", measured_on)
        else:
            result = _number(scores[key]) + _interval(metrics.get("intervals", {}).get(key))
            yield Row(name, result, compare, measured_on)
    yield from lesion_rows(metrics, measured_on)
    if "unique_report_rate" in metrics:
        compare = f"references {_number(metrics.get('unique_reference_rate'))}"
        yield Row("different reports / n", _number(metrics["unique_report_rate"]), compare, measured_on)


def _nearest(metrics: Mapping[str, Any], key: str) -> str:
    baseline = metrics.get("nearest_training_report")
    return f", nearest {_number(baseline.get(key))}" if isinstance(baseline, dict) else ""


def lesion_rows(metrics: Mapping[str, Any], measured_on: str) -> Iterator[Row]:
    """Yield lesion F1, each baseline beside it; nothing for files of before it was there."""
    systems = metrics.get("clinical", {}).get(LESION_CONVENTION, {})
    if GENERATED not in systems:
        return
    for mean, name in (("micro_f1", "lesion F1, micro"), ("macro_f1", "lesion F1, macro")):
        ends = metrics.get("intervals", {}).get(f"{LESION_CONVENTION}_{mean}")
        beside = [f"{short} {_number(systems[key][mean])}" for key, short in LESION_BASELINES.items() if key in systems]
        yield Row(name, _number(systems[GENERATED][mean]) + _interval(ends), ", ".join(beside), measured_on)


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
    lines = ["# Results", "", *([*_wrap(SYNTHETIC_NOTE), ""] if synthetic else [])]
    sizes = {"images": detector.get("n_images"), "reports": reports["protocol"].get("n")}
    if any(isinstance(size, int) and size < FEW_CASES for size in sizes.values()):
        lines += [*_wrap(FEW_NOTE.format(**sizes)), ""]
    lines += [
        *markdown_table(("figure", "result", "beside it", "measured on"), [tuple(asdict(row).values()) for row in rows]),
        "",
    ]
    items = [f"{metric}: {note}" for metric, note in reports.get("notes", {}).items()]
    items += [DETECTOR_LEGEND, *filter(None, [difference_line(detector)])]
    items += [LEGEND, f"detector protocol: {_one_line(detector['protocol'])}."]
    items += [f"report protocol: {_one_line(reports['protocol'])}."]
    lines += [*_items(items), ""]
    if counts:
        counted = [f"{step}: {text}" for step, content in counts.items() for text in count_lines(content)]
        lines += ["Counts other than 0 (all of them: summary.json):", "", *_items(counted), ""]
    lines += ["Where to look:", "", *(f"- {what}: {path}" for what, path in paths.items())]
    return "\n".join(lines) + "\n"


def count_lines(counts: Mapping[str, Any]) -> Iterator[str]:
    """Yield "name number, name number" for a counts file: plain numbers first, then one line a group; zeros are left out."""
    plain = _one_line({key: value for key, value in counts.items() if not isinstance(value, dict)}, zeros=False)
    if plain:
        yield plain
    for key, value in counts.items():
        text = _one_line(value, zeros=False) if isinstance(value, dict) else ""
        if text:
            yield f"{key.replace('_', ' ')}: {text}"


def _one_line(values: Mapping[str, Any], *, zeros: bool = True) -> str:
    """Write a mapping in one line; a large inner one is given as its sum and the number of its entries other than 0."""
    parts = []
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            numbers = [number for number in value.values() if isinstance(number, int | float)]
            if len(value) > MOST_LEAVES_SHOWN and len(numbers) == len(value):
                value = f"{_thousands(sum(numbers))} in {sum(number != 0 for number in numbers)} entries"
            else:
                inner = _one_line(value, zeros=zeros)
                value = f"({inner})" if inner else 0
        elif isinstance(value, list):
            value = f"{len(value)} entries" if len(value) > MOST_LEAVES_SHOWN else " ".join(map(str, value))
        if zeros or value not in (0, "", None):
            parts.append(f"{name} {_thousands(value)}")
    return ", ".join(parts)


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _items(texts: Iterable[str]) -> Iterator[str]:
    """Lay out a Markdown list that fits a terminal."""
    for text in texts:
        yield from _wrap(f"- {text}", "  ")


def _paths(output: Path, detector_metrics: Path, report_metrics: Path, reports: Mapping[str, Any]) -> dict[str, str]:
    """Name the files a reader wants next."""
    files = reports.get("files", {})
    paths = {"this table": str(output / "summary.md")}
    if "generated" in files:
        paths["generated reports beside their references"] = files["generated"]
    if "annotation" in files:
        paths["images with pseudo boxes and reports"] = files["annotation"]
    paths["detector figures, per class"] = str(detector_metrics)
    if (detector_metrics.parent / "figures").is_dir():
        paths["curves of the detector"] = str(detector_metrics.parent / "figures")
    paths["report figures"] = str(report_metrics)
    return paths


def _number(value: Any) -> str:
    """Format a figure; '-' where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _thousands(value: Any) -> str:
    """Format a count with grouped digits, anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
