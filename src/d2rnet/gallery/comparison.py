"""d2rnet compare with a gallery of the studies in which two runs differ most.

The statistics are those of d2rnet.evaluation.compare. Writes beside them: gallery/index.html and gallery/parts/*.js.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.data.annotation_file import Entry, load_annotation
from d2rnet.data.true_boxes import read_true_boxes
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.compare import Comparison, Run, compare_runs
from d2rnet.gallery.build import METRIC_NAMES, corpus_rows, write_gallery
from d2rnet.gallery.studies import Answer, Sentence, Study, true_boxes_of
from d2rnet.io import read_json, read_jsonl, sha256_file

log = logging.getLogger(__name__)
LETTERS = ("A", "B")
Sentences = Mapping[str, Sequence[Sentence]]


def compare_and_show(
    *,
    run_a: Path,
    run_b: Path,
    studies: str,
    annotation: Path | None,
    image_root: Path | None,
    gallery_studies: int,
    gallery_metric: str,
    output: Path,
    workers: int,
    settings: dict[str, Any],
) -> None:
    """Compare two runs, then write a gallery of the studies whose scores differ most to ``output/gallery``.

    Args:
        run_a: JSON lines file or folder.
        run_b: JSON lines file or folder.
        studies: ``same`` or ``common``, as in :func:`d2rnet.evaluation.compare.compare_runs`.
        annotation: annotation.json of both runs; None, with ``image_root`` None, for a gallery of texts only.
        image_root: folder that ``image_path`` is relative to.
        gallery_studies: entries in the gallery; 0 writes none.
        gallery_metric: score whose difference orders the entries.
        output: folder for the results.
        workers: processes that read radiographs.
        settings: section ``evaluation``.

    Raises:
        ConfigError: only one of annotation and image root is given, a negative number, or a metric that was not computed.
        FileNotFoundError: an input is not there.
        DatasetError: as ``compare_runs``, an entry is not in the annotation, or no radiograph can be shown.
        ToolError: as ``compare_runs``.
    """
    if (annotation is None) != (image_root is None):
        raise ConfigError("--annotation and --image-root: got one of them; expected both, or none for a gallery of texts.")
    if gallery_studies < 0:
        raise ConfigError(f"--gallery-studies {gallery_studies}: expected 0 (no gallery) or more.")
    entries = None if annotation is None else _entries_by_id(annotation)
    comparison = compare_runs(run_a=run_a, run_b=run_b, studies=studies, output=output, settings=settings)
    if not gallery_studies:
        return
    rows = rank_by_difference(comparison, gallery_metric)[:gallery_studies]
    shown = _studies(comparison, rows, entries, annotation, settings["gallery"])
    name = METRIC_NAMES.get(gallery_metric, gallery_metric)
    inputs = {f"run_{letter.lower()}": run.file for letter, run in zip(LETTERS, comparison.runs, strict=True)}
    write_gallery(
        shown,
        output=output / "gallery",
        image_root=image_root,
        meta=_meta(comparison, gallery_metric),
        known=len(comparison.ids),
        how=f"those with the largest difference of {name}" if len(rows) < len(comparison.ids) else "",
        workers=workers,
        inputs=inputs | ({} if annotation is None else {"annotation": annotation}),
        settings={**settings["gallery"], "max_studies": gallery_studies, "metric": gallery_metric},
    )


def rank_by_difference(comparison: Comparison, metric: str) -> list[int]:
    """Return the rows of a comparison, largest absolute difference of a score first, of equals in their order.

    Raises:
        ConfigError: reports have no such score of their own.
    """
    first, second = (system.captions.pairs for system in comparison.systems)
    if metric not in first:
        raise ConfigError(f"--gallery-metric {metric}: not computed for single reports; computed are {', '.join(first)}.")
    differences: NDArray[np.float64] = np.abs(first[metric] - second[metric])
    return np.argsort(-differences, kind="stable").tolist()


def _entries_by_id(annotation: Path) -> dict[str, Entry]:
    return {entry["id"]: entry for entries in load_annotation(annotation).values() for entry in entries}


def _studies(
    comparison: Comparison,
    rows: Sequence[int],
    entries: Mapping[str, Entry] | None,
    annotation: Path | None,
    settings: Mapping[str, Any],
) -> list[Study]:
    """Return the studies of some rows of a comparison; ``entries`` None makes them texts only."""
    if entries is None:
        log.info("the gallery holds texts only: --annotation and --image-root were not given")
    truth = read_true_boxes(Path(settings["true_boxes"])) if entries is not None and settings["true_boxes"] else {}
    listed = [_sentences(run, annotation) for run in comparison.runs]
    studies = []
    for row in rows:
        name = comparison.ids[row]
        if entries is not None and name not in entries:
            raise DatasetError(
                f"report {name}: not in the annotation; give the annotation.json that the runs were written for."
            )
        entry = None if entries is None else entries[name]
        answers = tuple(
            Answer(
                run.reports[name]["hypothesis"],
                sentences.get(name, ()),
                {metric: float(values[row]) for metric, values in system.captions.pairs.items()},
            )
            for run, sentences, system in zip(comparison.runs, listed, comparison.systems, strict=True)
        )
        true_boxes = None if entry is None else true_boxes_of(entry, truth)
        reference = comparison.runs[0].reports[name]["reference"]
        studies.append(Study(name, comparison.study_ids[row], reference, answers, entry, true_boxes))
    return studies


def _sentences(run: Run, annotation: Path | None) -> dict[str, Sequence[Sentence]]:
    """Return the sentences with their boxes of a run that was written for this very annotation; else nothing, and say so."""
    if annotation is None:
        return {}
    scored = run.file.parent.name == "evaluate_reports"  # its folder holds scores of the reports in generate_reports
    place = run.file.parent.parent / "generate_reports" / "test.jsonl" if scored else run.file
    file = place if place.is_file() and "sentences" in next(read_jsonl(place), {}) else None
    record: Any = read_json(file.with_name("run.json")) if file and file.with_name("run.json").is_file() else {}
    made_for = record.get("inputs", {}).get("annotation", {}).get("sha256")
    if file is None or made_for != sha256_file(annotation):
        log.warning("%s: no record that its reports were written for %s; its sentences get no boxes", run.file, annotation)
        return {}
    return {line["id"]: line["sentences"] for line in read_jsonl(file)}


def _meta(comparison: Comparison, metric: str) -> dict[str, Any]:
    tables = [
        [{"metric": key, "value": value, "interval": None} for key, value in system.figures().items()]
        for system in comparison.systems
    ]
    return {
        "title": "D2R-Net, two runs compared",
        "mode": "compare",
        "systems": [f"{letter}: {run.file}" for letter, run in zip(LETTERS, comparison.runs, strict=True)],
        "protocol": {**comparison.protocol, "n": len(comparison.ids)},
        "corpus": corpus_rows(tables),
        "sort": f"size:{metric}",
        "missing": 0,
    }
