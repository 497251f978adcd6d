"""``model-index`` of a model card: the scores of a test split, so that a hub shows them, with data set, n and protocol.

Reads: metrics.json of evaluate-detector, evaluate-reports and evaluate-ct-reports, and the run records beside them, which say
of which weights the scores are. Writes: nothing.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1 (the fields).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.ct.evaluation.metric_table import CT_METRICS
from d2rnet.cxr.summary.summary_rows import DETECTOR_ROWS
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.metric_names import CHEXBERT_METRICS, METRICS, Shown
from d2rnet.files.documents import read_json

DEMO = {"cxr": "drawn demo cohort of chest radiographs (synthetic)", "ct": "drawn demo cohort of chest CTs (synthetic)"}
DETECTION = ("object-detection", "Lesion boxes")
WRITING = ("image-to-text", "Findings of a radiology report")


@dataclass(frozen=True)
class Evaluation:
    """What scores are of, by the sub-command that computed them.

    Attributes:
        task: type, as the hub calls it, and name.
        scored: name in the run record of a file that is exported -> its path in the exported folder.
    """

    task: tuple[str, str]
    scored: tuple[str, str]


EVALUATIONS = {
    "evaluate-detector": Evaluation(DETECTION, ("ema_teacher", "detector/model_final.pth")),
    "evaluate-reports": Evaluation(WRITING, ("vocabulary", "report_model/vocabulary.json")),
    "evaluate-ct-reports": Evaluation(WRITING, ("vocabulary", "report_model/vocabulary.json")),
}


def model_index(title: str, scores: Sequence[Path], dataset: str, hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the ``model-index`` of a card.

    Args:
        title: name of the model.
        scores: metrics.json files, each with the run.json of its evaluation beside it.
        dataset: name of the test data.
        hashes: path in the exported folder -> SHA-256.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: the scores are of other weights, or of a command that scores none of these models.
        DatasetError: a file is not of its evaluation.
    """
    return [{"name": title, "results": [_result(path, dataset, hashes) for path in scores]}]


def _result(path: Path, dataset: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    evaluation, command = _evaluation(path, hashes)
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("protocol"), dict):
        raise DatasetError(f"{path}: no object with 'protocol'; expected metrics.json of 'd2rnet {command}'.")
    protocol = metrics["protocol"]
    try:
        found = list(_of_detector(metrics) if command == "evaluate-detector" else _of_reports(metrics))
        sizes = {"n": metrics["n_images"], "n_boxes": metrics["n_boxes"]} if "n_images" in metrics else {"n": protocol["n"]}
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: lacks {error}; expected metrics.json of 'd2rnet {command}'. Make it again.") from error
    kind, name = evaluation.task
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")
    return {
        "task": {"type": kind, "name": name},
        "dataset": {"name": dataset, "type": slug, "split": protocol["split"], "args": {**sizes, "protocol": protocol}},
        "metrics": found,
    }


def _evaluation(path: Path, hashes: Mapping[str, str]) -> tuple[Evaluation, str]:
    """Return what scores are of, and by which command, by the record beside them."""
    record = read_json(path.parent / "run.json")
    command = record.get("command") if isinstance(record, dict) else None
    if command not in EVALUATIONS:
        raise ConfigError(f"--scores {path}: of {command}; expected metrics.json of {' or '.join(EVALUATIONS)}.")
    evaluation = EVALUATIONS[command]
    name, exported = evaluation.scored
    scored = record.get("inputs", {}).get(name, {}).get("sha256")
    if scored != hashes.get(exported):
        raise ConfigError(
            f"--scores {path}: its run record names {name} of SHA-256 {scored}, {exported} has {hashes.get(exported)}; "
            "expected the scores of these models. Evaluate them, or leave the scores out."
        )
    return evaluation, command


def _of_detector(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    teacher = metrics["ema_teacher"]
    for key, name in DETECTOR_ROWS.items():
        if teacher.get(key) is not None:
            yield _metric(key, f"{name}, EMA teacher", teacher[key], teacher.get("intervals", {}).get(key))


def _of_reports(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    known = {**METRICS, **CHEXBERT_METRICS, **CT_METRICS}
    for row in metrics["table"]:
        metric = known.get(row["metric"])
        if metric and Shown.SUMMARY not in metric.left_out_of and row["value"] is not None:
            yield _metric(metric.key, metric.heading, row["value"], row.get("interval"))


def _metric(key: str, name: str, value: float, interval: Sequence[float] | None) -> dict[str, Any]:
    """Lay out one score; the interval covers 95 %."""
    shown = {"type": key, "name": name, "value": round(value, 4)}
    return shown | ({"args": {"interval_95": [round(end, 4) for end in interval]}} if interval else {})
