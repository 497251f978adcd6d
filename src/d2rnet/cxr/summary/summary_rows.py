"""Rows of the result table: each metric of a run, its baselines, and what it holds for.

Reads: metrics.json of evaluate-detector and evaluate-reports, as dictionaries. Writes: nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation import chexbert, radgraph
from d2rnet.evaluation.clinical import HEADLINE, SIDED
from d2rnet.evaluation.metric_names import COMMONEST, LESION_SET, NEAREST, NO_BOX, Group, Metric, Shown, shown_in
from d2rnet.evaluation.outside_labeller import NOT_RUN
from d2rnet.figures.summary_lines import number, thousands

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
GENERATED = "generated"
LESION_BASELINES = {COMMONEST: "commonest", NEAREST: "nearest", LESION_SET: "lesion set", NO_BOX: "no boxes"}
LABELLERS = {chexbert.NAME: "CheXbert F1", radgraph.NAME: "RadGraph F1"}  # key of the note -> name of the row
FULL = "full"
HEADER = ("metric", "result", "baseline", "measured on")
LEGEND = (
    "shuffled: the same reports against references of other studies; a model that ignores its image scores the same there. "
    "commonest: the most frequent training report as the answer to every image. nearest: that of the training image that "
    "looks most alike. lesion set: the one that names the classes of the image's boxes. Lesion F1: the 22 classes that "
    "generated and reference report name, doubtful mentions included; lesion and side F1: each with its side."
)
DETECTOR_LEGEND = (
    "brackets: bootstrap 95 % interval over test images. VOC mAP: PASCAL VOC 2010 at IoU > 0.4, 22 classes and the 14 of "
    "VinBigData. FROC mean: sensitivity, mean over 1/8 to 8 false positives per image. AUROC finding: has the image a box?"
)


@dataclass(frozen=True)
class Row:
    """One line of the table, in the order of its columns."""

    metric: str
    result: str
    baseline: str
    measured_on: str


def section(metrics: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Return an object of a metrics file.

    Raises:
        DatasetError: it is not there; names file and key.
    """
    found = metrics.get(key)
    if not isinstance(found, dict):
        raise DatasetError(f"{path}: '{key}' is {found!r}; expected an object. Make the file again with its rule.")
    return found


def detector_rows(metrics: Mapping[str, Any], path: Path) -> Iterator[Row]:
    """Yield the rows of the detector, EMA teacher with the student beside it.

    Raises:
        DatasetError: EMA teacher or student is missing, or lacks AP50 or AP40.
    """
    teacher, student = (section(metrics, key, path) for key in ("ema_teacher", "student"))
    measured_on = ", ".join(f"{thousands(metrics[key])} {key[2:]}" for key in ("n_images", "n_boxes") if key in metrics)
    for key in DETECTOR_REQUIRED:
        for name, network in (("ema_teacher", teacher), ("student", student)):
            if key not in network:
                found = ", ".join(network)
                raise DatasetError(f"{path}: {name} has no '{key}' (it has {found}); run evaluate-detector again.")
    for key, name in DETECTOR_ROWS.items():
        if key in teacher:
            result = number(teacher[key]) + _interval(teacher.get("intervals", {}).get(key))
            yield Row(f"{name}, EMA teacher", result, f"student {number(student.get(key))}", measured_on)


def difference_line(metrics: Mapping[str, Any]) -> str:
    """Say by how much the EMA teacher is ahead of the student, "" where the file does not."""
    differences = metrics.get("teacher_minus_student", {})
    parts = [
        f"{name} {number(differences[key]['difference'])}{_interval(differences[key]['interval'])}"
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
    names = ("scores", "shuffled", COMMONEST)
    scores, shuffled, commonest = (section(metrics, key, path) for key in names)
    protocol = section(metrics, "protocol", path)
    words = [str(protocol.get(key, f"{key} not recorded")) for key in ("section", "text")]
    references = protocol.get("references", FULL)
    words += [f"references {references}"] if references != FULL else []
    measured_on = ", ".join([*words, f"n {thousands(protocol.get('n', 'not recorded'))}"])
    for metric in shown_in(Shown.SUMMARY):
        if metric.group is not Group.WORDS:
            continue
        key = metric.key
        for section_name, found in zip(names, (scores, shuffled, commonest), strict=True):
            if key not in found:
                raise DatasetError(f"{path}: {section_name} has no '{key}'; run evaluate-reports again.")
        if scores[key] is None:
            reason = str(metrics.get("notes", {}).get(key, ""))
            yield Row(metric.heading, "not run" if reason.startswith("not run") else "-", "see below", measured_on)
            continue
        baselines = {"shuffled": shuffled, "commonest": commonest, "nearest": metrics.get(NEAREST)}
        baselines["lesion set"] = metrics.get(LESION_SET)
        beside = [f"{name} {metric.text(found.get(key))}" for name, found in baselines.items() if isinstance(found, dict)]
        yield Row(metric.heading, with_interval(metric, scores[key], metrics), ", ".join(beside), measured_on)
    yield from lesion_rows(metrics, measured_on)
    yield from labeller_rows(metrics, measured_on)
    if "unique_report_rate" in metrics:
        references = f"references {number(metrics.get('unique_reference_rate'))}"
        yield Row("different reports / n", number(metrics["unique_report_rate"]), references, measured_on)


def lesion_rows(metrics: Mapping[str, Any], measured_on: str) -> Iterator[Row]:
    """Yield lesion F1, with and without sides, each baseline beside it; nothing for files of before it was there."""
    for metric in shown_in(Shown.SUMMARY):
        if metric.group is Group.LESIONS:
            labels = next(name for name in (HEADLINE, SIDED) if metric.key.startswith(f"{name}_"))
            systems = metrics.get("clinical", {}).get(labels, {})
            if GENERATED in systems:
                yield _label_row(metric, metric.key.removeprefix(f"{labels}_"), systems, metrics, measured_on)


def _label_row(metric: Metric, mean: str, systems: Mapping[str, Any], metrics: Mapping[str, Any], measured_on: str) -> Row:
    """Return a mean of labels of the generated reports, each baseline beside it."""
    beside = [f"{name} {metric.text(systems[key][mean])}" for key, name in LESION_BASELINES.items() if key in systems]
    return Row(metric.heading, with_interval(metric, systems[GENERATED][mean], metrics), ", ".join(beside), measured_on)


def labeller_rows(metrics: Mapping[str, Any], measured_on: str) -> Iterator[Row]:
    """Yield the scores by labellers whose weights are given; "not run" for one that failed, nothing for one not asked for."""
    clinical = metrics.get("clinical", {})
    for metric in shown_in(Shown.SUMMARY):
        if metric.group is Group.CHEXBERT:
            protocol = next(name for name in chexbert.PROTOCOLS if metric.key.startswith(f"{name}_"))
            systems = clinical.get(protocol, {})
            mean = metric.key.removeprefix(f"{protocol}_")
            if GENERATED in systems:
                yield _label_row(metric, mean, systems, metrics, measured_on)
    for key, value in clinical.items():
        if key.startswith(radgraph.NAME):
            yield Row(f"RadGraph F1, {key.rpartition('_')[2]}", number(value), "-", measured_on)
    for name, words in LABELLERS.items():
        note = str(metrics.get("notes", {}).get(name, ""))
        if note.startswith(NOT_RUN) and not note.endswith(" is null") and not any(key.startswith(name) for key in clinical):
            yield Row(words, NOT_RUN.strip(": "), "see below", measured_on)


def with_interval(metric: Metric, value: float | None, metrics: Mapping[str, Any]) -> str:
    """Format a value of metrics.json with the interval that stands there."""
    ends = metrics.get("intervals", {}).get(metric.key)
    return metric.text(value) + (f" [{metric.text(ends[0])}, {metric.text(ends[1])}]" if ends else "")
