"""render_ct_gallery: a static page of CT volumes, with generated beside reference findings, structure by structure.

Reads: test.jsonl of generate-ct-reports, ct_annotation.json, metrics.json and per_report.jsonl of evaluate-ct-reports,
converted volumes. Writes: index.html, run.json (docs/reference/formats.md).
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.structures.table import StructureTable, load_table, structure_title
from d2rnet.gallery.build import read_metrics, write_gallery
from d2rnet.gallery.ct_pictures import read_volume_sources, volume_pictures
from d2rnet.gallery.modality import CT
from d2rnet.gallery.render import head_of_page, read_answers
from d2rnet.gallery.selection import choose_studies
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Study
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)


def render_ct_gallery(
    *,
    generated: Path,
    annotation: Path,
    scores: Path,
    volumes: Path,
    output: Path,
    workers: int,
    settings: PageSettings,
    table: str = "ten",
    source_root: str = "",
) -> None:
    """Write the gallery of one run to ``output``.

    Args:
        generated: test.jsonl of generate-ct-reports.
        annotation: ct_annotation.json that the reports were written for.
        scores: folder of evaluate-ct-reports: metrics.json and per_report.jsonl.
        volumes: volumes.jsonl of convert-ct; the arrays lie beside it.
        output: folder of index.html.
        workers: processes that read volumes.
        settings: which studies, how large.
        table: table of structures that sentences are dealt out to (``ct.structures.table``).
        source_root: folder that the volumes were converted from, by which those of the demo cohort are called synthetic. It
            need not be there any more; "": the volumes are taken for patients'.

    Raises:
        FileNotFoundError: an input is not there.
        DatasetError: an input is not what its format says, the files belong to different runs, or no volume can be shown.
        ConfigError: there is no such table.
    """
    metrics = read_metrics(scores / "metrics.json")
    inputs = {
        "generated": generated,
        "annotation": annotation,
        "metrics": scores / "metrics.json",
        "per_report": scores / "per_report.jsonl",
        "volumes": volumes,
    }
    structures = load_table(table)
    studies, missing = read_ct_studies(inputs, structures)
    shown, how = choose_studies(studies, settings)
    head = head_of_page(metrics, missing=missing, title="Chest CT gallery", modality=CT)
    counts = write_gallery(
        shown,
        volume_pictures([study.name for study in shown], read_volume_sources(volumes), settings, workers=workers),
        output=output,
        meta={**head, "structures": [structure_title(name) for name in structures.structures]},
        known=len(studies),
        how=how,
        settings=settings,
        modality=CT,
        synthetic=source_root != "" and is_of_demo_cohort(source_root),
    )
    write_run_record(
        output / "run.json",
        command="render-ct-gallery",
        settings=settings,
        inputs=inputs,
        counts=counts,
        seeds={"choice": settings.seed},
    )


def read_ct_studies(inputs: Mapping[str, Path], structures: StructureTable) -> tuple[list[Study], int]:
    """Read the studies of a run (see :func:`d2rnet.gallery.render.read_studies`)."""
    pairs, answers = read_answers(inputs, load_ct_annotation(inputs["annotation"]))
    rows = zip(pairs.ids, pairs.study_ids, pairs.references, answers, strict=True)
    studies = [Study(*row, modality=CT, structures=structures) for row in rows]
    return studies, pairs.missing
