"""d2rnet compare with a gallery of the studies in which two runs differ most.

The statistics are those of d2rnet.evaluation.compare. Writes beside them: gallery/index.html.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.evaluation.systems import CHEST_CT
from d2rnet.cxr.boxes.true_boxes import read_true_boxes, true_boxes_of
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.compare import AUTO, Comparison, Run, compare_runs
from d2rnet.evaluation.settings import MeteorRuntime
from d2rnet.evaluation.systems import RADIOGRAPHS as RADIOGRAPH_REPORTS
from d2rnet.files.documents import read_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.gallery.build import corpus_rows, write_gallery
from d2rnet.gallery.modality import CT, RADIOGRAPHS
from d2rnet.gallery.pictures import radiograph_pictures
from d2rnet.gallery.run_inputs import RunInputs, entries_by_id, find_inputs, record_of
from d2rnet.gallery.settings import CompareSettings, PageSettings
from d2rnet.gallery.studies import Answer, Sentence, Study
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.cards import is_of_demo_cohort

log = logging.getLogger(__name__)
LETTERS = ("A", "B")
MODALITIES = {modality.name: modality for modality in (RADIOGRAPHS, CT)}
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
    settings: CompareSettings,
    runtime: MeteorRuntime = MeteorRuntime(),
    modality: str = AUTO,
) -> None:
    """Compare two runs, then write a gallery of the studies whose scores differ most to ``output/gallery``.

    Args:
        run_a: JSON lines file or folder.
        run_b: JSON lines file or folder.
        studies: ``same`` or ``common``, as in :func:`d2rnet.evaluation.compare.compare_runs`.
        annotation: annotation.json of both runs; None: the one that the run records of A name, or else of B.
        image_root: folder that ``image_path`` is relative to; None: the one that these records name. Where one of both is
            not to be found, and of chest CT, the gallery holds texts only.
        gallery_studies: entries in the gallery; 0 writes none.
        gallery_metric: score whose difference orders the entries.
        output: folder for the results.
        workers: processes that read radiographs.
        settings: how both are scored, and what the page looks like.
        runtime: patience with METEOR.
        modality: ``cxr``, ``ct``, or ``auto``: as the records of the runs say, else radiographs.

    Raises:
        ConfigError: a negative number, or a metric that was not computed.
        FileNotFoundError: an input is not there.
        DatasetError: as ``compare_runs``, an entry is not in the annotation, or no radiograph can be shown.
        ToolError: as ``compare_runs``.
    """
    if gallery_studies < 0:
        raise ConfigError(f"--gallery-studies {gallery_studies}: expected 0 (no gallery) or more.")
    given = entries_by_id(annotation) if annotation else None
    comparison = compare_runs(
        run_a=run_a,
        run_b=run_b,
        studies=studies,
        output=output,
        settings=settings,
        runtime=runtime,
        modality=modality,
        scorings=(RADIOGRAPH_REPORTS, CHEST_CT),
    )
    if not gallery_studies:
        return
    rows = rank_by_difference(comparison, gallery_metric)[:gallery_studies]
    of_ct = comparison.modality == CT.name
    inputs, entries = (None, {}) if of_ct else _inputs(comparison, annotation, image_root, given)
    shown = _studies(comparison, rows, entries, inputs)
    _write(comparison, shown, gallery_metric, inputs, output / "gallery", settings.gallery, workers)


def _write(
    comparison: Comparison,
    shown: Sequence[Study],
    metric: str,
    inputs: RunInputs | None,
    output: Path,
    page: PageSettings,
    workers: int,
) -> None:
    modality = MODALITIES[comparison.modality]
    known = len(comparison.ids)
    page = page.replaced(max_studies=len(shown))
    write_gallery(
        shown,
        radiograph_pictures([study.entry for study in shown], inputs.image_root if inputs else None, page, workers=workers),
        output=output,
        meta=_meta(comparison, metric),
        known=known,
        how=f"those with the largest difference of {modality.scores.get(metric, metric)}" if len(shown) < known else "",
        settings=page,
        modality=modality,
        synthetic=inputs is not None and is_of_demo_cohort(inputs.image_root),
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


def _inputs(
    comparison: Comparison, annotation: Path | None, image_root: Path | None, given: Mapping[str, Entry] | None
) -> tuple[RunInputs | None, Mapping[str, Entry]]:
    """Find radiographs and boxes from the records of A, or else of B; None, and a line in the log, where there are none."""
    name = comparison.ids[0]
    problems = []
    for run in comparison.runs:
        try:
            found = find_inputs(run.file, annotation=annotation, image_root=image_root)
        except DatasetError as error:
            problems.append(str(error))
            continue
        entries = given or entries_by_id(found.annotation)
        if not image_root and name in entries and not (picture := found.image_root / entries[name]["image_path"][0]).is_file():
            problems.append(f"{picture}: no such file")
            continue
        log.info("the gallery shows boxes of %s on radiographs of %s", found.annotation, found.image_root)
        return found, entries
    log.warning("the gallery holds texts only, give --annotation and --image-root: %s", "; ".join(problems))
    return None, {}


def _studies(
    comparison: Comparison,
    rows: Sequence[int],
    entries: Mapping[str, Entry],
    inputs: RunInputs | None,
) -> list[Study]:
    """Return the studies of some rows of a comparison; ``inputs`` None makes them texts only."""
    truth = read_true_boxes(inputs.true_boxes) if inputs and inputs.true_boxes else {}
    listed = [_sentences(run, inputs.annotation if inputs else None) for run in comparison.runs]
    studies = []
    for row in rows:
        name = comparison.ids[row]
        if inputs and name not in entries:
            raise DatasetError(
                f"report {name}: not in the annotation; give the annotation.json that the runs were written for."
            )
        entry = entries[name] if inputs else None
        answers = tuple(
            Answer(
                run.reports[name]["hypothesis"],
                sentences.get(name, ()),
                {metric: float(values[row]) for metric, values in system.captions.pairs.items()},
            )
            for run, sentences, system in zip(comparison.runs, listed, comparison.systems, strict=True)
        )
        drawn = None if entry is None else true_boxes_of(entry, truth)
        reference = comparison.runs[0].reports[name]["reference"]
        modality = MODALITIES[comparison.modality]
        studies.append(Study(name, comparison.study_ids[row], reference, answers, entry, drawn, modality))
    return studies


def _sentences(run: Run, annotation: Path | None) -> dict[str, Sequence[Sentence]]:
    """Return the sentences with their boxes of a run that was written for this very annotation; else nothing, and say so."""
    if annotation is None:
        return {}
    scored = run.file.parent.name == "evaluate_reports"  # its folder holds scores of the reports in generate_reports
    place = run.file.parent.parent / "generate_reports" / "test.jsonl" if scored else run.file
    file = place if place.is_file() and "sentences" in next(read_jsonl(place), {}) else None
    made_for = (record_of(file) if file else {}).get("inputs", {}).get("annotation", {}).get("sha256")
    if file is None or made_for != sha256_file(annotation):
        log.warning("%s: no record that its reports were written for %s; its sentences get no boxes", run.file, annotation)
        return {}
    return {line["id"]: line["sentences"] for line in read_jsonl(file)}


def _meta(comparison: Comparison, metric: str) -> dict[str, Any]:
    tables = [
        [{"metric": key, "value": value, "interval": None} for key, value in system.scores().items()]
        for system in comparison.systems
    ]
    return {
        "title": "D2R-Net, two runs compared",
        "mode": "compare",
        "systems": [f"{letter}: {run.file}" for letter, run in zip(LETTERS, comparison.runs, strict=True)],
        "protocol": {**comparison.protocol, "n": len(comparison.ids)},
        "corpus": corpus_rows(tables, MODALITIES[comparison.modality]),
        "sort": f"size:{metric}",
        "missing": 0,
    }
