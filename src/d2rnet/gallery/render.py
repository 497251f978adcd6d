"""render_gallery: a static page of radiographs with pseudo and true boxes, and generated beside reference findings.

Reads: test.jsonl of generate-reports, annotation.json, metrics.json and per_report.jsonl of evaluate-reports, radiographs,
true boxes where they are known. Writes: index.html, run.json (docs/reference/formats.md).
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.true_boxes import read_true_boxes, true_boxes_of
from d2rnet.evaluation.metric_names import Group, keys_of
from d2rnet.evaluation.report_pairs import ReportPairs, read_pairs
from d2rnet.files.documents import read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.gallery.build import corpus_rows, read_metrics, write_gallery
from d2rnet.gallery.modality import RADIOGRAPHS, Modality
from d2rnet.gallery.pictures import radiograph_pictures
from d2rnet.gallery.selection import choose_studies
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Answer, Study
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)


def render_gallery(
    *,
    generated: Path,
    annotation: Path,
    scores: Path,
    image_root: Path,
    output: Path,
    workers: int,
    settings: PageSettings,
    true_boxes: Path | None = None,
) -> None:
    """Write the gallery of one run to ``output``.

    Args:
        generated: test.jsonl of generate-reports.
        annotation: annotation.json that the reports were written for.
        scores: folder of evaluate-reports: metrics.json and per_report.jsonl.
        image_root: folder that ``image_path`` is relative to.
        output: folder of index.html.
        workers: processes that read radiographs.
        settings: which studies, how large.
        true_boxes: true boxes to draw; None where they are not known.

    Raises:
        FileNotFoundError: an input is not there.
        DatasetError: an input is not what its format says, the files belong to different runs, or no radiograph can be shown.
    """
    metrics = read_metrics(scores / "metrics.json")
    inputs = {
        "generated": generated,
        "annotation": annotation,
        "metrics": scores / "metrics.json",
        "per_report": scores / "per_report.jsonl",
        **({"true_boxes": true_boxes} if true_boxes else {}),
    }
    studies, missing = read_studies(inputs)
    shown, how = choose_studies(studies, settings)
    counts = write_gallery(
        shown,
        radiograph_pictures([study.entry for study in shown], image_root, settings, workers=workers),
        output=output,
        meta=head_of_page(metrics, missing=missing),
        known=len(studies),
        how=how,
        settings=settings,
        synthetic=is_of_demo_cohort(image_root),
    )
    write_run_record(
        output / "run.json",
        command="render-gallery",
        settings=settings,
        inputs=inputs,
        counts=counts,
        seeds={"choice": settings.seed},
    )


def head_of_page(
    metrics: Mapping[str, Any], *, missing: int, title: str = "D2R-Net gallery", modality: Modality = RADIOGRAPHS
) -> dict[str, Any]:
    """Return the head of the page of one run.

    Args:
        metrics: metrics.json of evaluate-reports.
        missing: entries without a report.
        title: of the page.
        modality: names the metrics.
    """
    return {
        "title": title,
        "mode": "run",
        "systems": ["Generated"],
        "protocol": metrics["protocol"],
        "corpus": corpus_rows([metrics["table"]], modality),
        "sort": "order",
        "missing": missing,
    }


def read_studies(inputs: Mapping[str, Path]) -> tuple[list[Study], int]:
    """Read the studies of a run.

    Args:
        inputs: ``generated``, ``annotation``, ``per_report`` and, where the truth is known, ``true_boxes``.

    Returns:
        The studies in the order of the reports, and how many entries of their split have no report.

    Raises:
        FileNotFoundError: an input is not there.
        DatasetError: an input is not what its format says, or the files belong to different runs.
    """
    splits = load_annotation(inputs["annotation"])
    pairs, answers = read_answers(inputs, splits)
    entries = {entry["id"]: entry for entry in splits[pairs.split]}
    truth = read_true_boxes(inputs["true_boxes"]) if "true_boxes" in inputs else {}
    studies = []
    for row, name in enumerate(pairs.ids):
        true_boxes = true_boxes_of(entries[name], truth)
        studies.append(Study(name, pairs.study_ids[row], pairs.references[row], answers[row], entries[name], true_boxes))
    return studies, pairs.missing


def read_answers(
    inputs: Mapping[str, Path], splits: Mapping[str, Sequence[Entry]]
) -> tuple[ReportPairs, list[tuple[Answer, ...]]]:
    """Read the generated reports of a run with their scores.

    Args:
        inputs: ``generated`` and ``per_report``.
        splits: of the annotation that they were written for.

    Returns:
        The pairs, and of each the generated report.

    Raises:
        FileNotFoundError: an input is not there.
        DatasetError: an input is not what its format says, or the files belong to different runs.
    """
    pairs = read_pairs(inputs["generated"], splits)
    log_probs = {line["id"]: {"log_prob": line["log_prob"]} for line in read_jsonl(inputs["generated"]) if "log_prob" in line}
    scores = _read_scores(inputs["per_report"], pairs)
    answers: list[tuple[Answer, ...]] = [
        (Answer(pairs.hypotheses[row], pairs.sentences[row], scores[name] | log_probs.get(name, {})),)
        for row, name in enumerate(pairs.ids)
    ]
    return pairs, answers


def _read_scores(path: Path, pairs: ReportPairs) -> dict[str, dict[str, float]]:
    """Return id -> metric -> value for each report.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a report is missing there, or another text was scored.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet evaluate-reports'.")
    lines = {line.get("id"): line for line in read_jsonl(path)}
    problems = Problems()
    for name, text in zip(pairs.ids, pairs.hypotheses, strict=True):
        line = lines.get(name)
        if line is None or line.get("hypothesis") != text:
            problems.add(
                "other_report",
                file=path,
                record=f"id {name}",
                got="no line" if line is None else "scores of another text",
                expected="scores of the given reports",
                remedy="Run 'd2rnet evaluate-reports' on them.",
            )
    problems.raise_if_any()
    keys = keys_of(Group.WORDS)
    return {name: {key: lines[name][key] for key in keys if lines[name].get(key) is not None} for name in pairs.ids}
