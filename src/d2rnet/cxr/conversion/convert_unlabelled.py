"""convert_unlabelled: the report source's images (and extra unlabelled folders) as COCO json and PNG, its reports as a table.

Reads: the tables that verify_inputs has checked, and the records of convert-images-shard, which has written the PNG files.
Writes, into the output folder:

* ``unlabelled.json``: COCO without annotations. Beside the usual keys an image has ``source_height, source_width``
  (its file's own size, pixels), ``source_id, study_id, subject_id, view, split, has_report`` and ``source_path``, the
  original file relative to ``cxr.data.reports.root`` (null for extra unlabelled images);
* ``reports.jsonl``: ``subject_id, study_id, split, section, report, images`` (source_ids), one study with text a line; with
  ``cxr.data.reports.context`` also ``indication, study_time``;
* ``convert_unlabelled/{counts.json,run.json,data_card.md}``.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.conversion.cards import UNLABELLED_CARD
from d2rnet.cxr.conversion.checked_tables import REPORTS, REPORTS_WITH_CONTEXT, UNLABELLED_IMAGES
from d2rnet.cxr.conversion.image_shards import join_shards
from d2rnet.cxr.conversion.settings import ConversionSettings, UnlabelledConversionSettings, source_settings
from d2rnet.cxr.sources.sources import report_source
from d2rnet.cxr.sources.tables import CONTEXT_COLUMNS
from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import count_of, read_counts, read_table
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.table_checks import assert_patients_disjoint, assert_splits_filled
from d2rnet.report.annotation_file import SPLITS
from d2rnet.runs.cards import ORIGIN_KEY, origin_line, write_card
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

RECORD_KEYS = (
    "id",
    "file_name",
    "height",
    "width",
    "source_height",
    "source_width",
    "source_id",
    "source_path",
    "study_id",
    "subject_id",
    "view",
    "split",
    "has_report",
)


def convert_unlabelled(
    *,
    images: Path,
    reports: Path,
    counts: Path,
    shards: Sequence[Path],
    output: Path,
    settings: UnlabelledConversionSettings,
) -> None:
    """Convert the report source and the extra unlabelled folders.

    Args:
        images: ``unlabelled_images.jsonl`` of verify-inputs.
        reports: ``reports.jsonl`` of verify-inputs.
        counts: ``counts.json`` of verify-inputs.
        shards: records of convert-images-shard, all of them.
        output: folder of unlabelled.json; the rest goes below it.
        settings: sections ``cxr.data.reports``, ``cxr.data.extra_unlabelled`` and ``cxr.data.conversion``.

    Raises:
        DatasetError: a table is not the one that was checked, or was checked with other settings; too many images are
            unreadable, a shard is missing or of another size, a patient is in two splits, or nothing is left of a split.
    """
    folder = output / "convert_unlabelled"
    made_with = source_settings(settings, UnlabelledConversionSettings)
    counted, checked = read_counts(counts, "unlabelled", settings=made_with, images=images, reports=reports)
    listed = read_table(images, UNLABELLED_IMAGES)
    converted = _with_frames(listed, shards, settings.conversion, counted)
    checked_texts = read_table(reports, REPORTS_WITH_CONTEXT if settings.reports.context else REPORTS)
    texts = _with_images(checked_texts, converted, counted)
    converted["has_report"] = converted["study_id"].isin(texts["study_id"]) & converted["source_path"].notna()
    assert_patients_disjoint(converted, texts, key="cxr.data.reports")
    assert_splits_filled(checked_texts["split"], texts["split"], SPLITS, key="cxr.data.reports", what="report")
    converted["id"] = range(1, len(converted) + 1)
    write_coco(output / "unlabelled.json", _image_records(converted), [])
    write_jsonl(output / "reports.jsonl", _report_records(texts))
    counted |= {"images": len(converted), "reports": len(texts), "splits": _split_counts(converted, texts)}
    log.info("convert-unlabelled: %d images, %d reports", len(converted), len(texts))
    write_json(folder / "counts.json", counted)
    source = settings.reports
    write_run_record(
        folder / "run.json",
        command="convert-unlabelled",
        settings=settings,
        inputs=checked,
        counts=counted,
        seeds={"split": source.split_seed},
        extra={ORIGIN_KEY: origin_line(report_source(source.source).TERMS, source.source, source.root)},
    )
    write_card(UNLABELLED_CARD, folder)


def _with_frames(
    images: pd.DataFrame, shards: Sequence[Path], conversion: ConversionSettings, counts: dict[str, Any]
) -> pd.DataFrame:
    """Return the images that were readable with their sizes before and after the conversion."""
    sizes, readable = join_shards(shards, images, conversion, quarantined=count_of(counts, "images_quarantined"))
    source_hw = ["source_height", "source_width"]
    stated = images[source_hw].to_numpy()
    other = readable & (stated[:, 0] > 0) & (sizes[source_hw].to_numpy() != stated).any(axis=1)
    counts["images_unreadable"] = int((~readable).sum())
    counts["images_of_another_size_than_stated"] = int(other.sum())
    if other.any():
        log.warning("%d image(s) are not of the size that the tables state; the file's own size is taken", other.sum())
    if not readable.any():
        raise DatasetError("cxr.data.reports: no readable image is left to convert. Check cxr.data.reports.root.")
    return images.drop(columns=source_hw).join(sizes)[readable].reset_index(drop=True)


def _with_images(reports: pd.DataFrame, images: pd.DataFrame, counts: dict[str, Any]) -> pd.DataFrame:
    """Add the source_ids of each study's images; leave out and count studies whose images are all gone."""
    own = images[images["source_path"].notna()]
    of_study = own.groupby("study_id", sort=False)["source_id"].agg(list)
    joined = reports.assign(images=reports["study_id"].map(of_study))
    with_image = joined["images"].notna()
    counts["reports_without_readable_image"] = int((~with_image).sum())
    return joined[with_image].reset_index(drop=True)


def _image_records(images: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [images[key].tolist() for key in RECORD_KEYS if key != "source_path"]
    paths = [path if isinstance(path, str) else None for path in images["source_path"]]
    columns.insert(RECORD_KEYS.index("source_path"), paths)
    return [dict(zip(RECORD_KEYS, row, strict=True)) for row in zip(*columns, strict=True)]


def _report_records(reports: pd.DataFrame) -> Iterator[dict[str, Any]]:
    columns = ["subject_id", "study_id", "split", "section", "report", "images"]
    columns += [name for name in CONTEXT_COLUMNS if name in reports]
    for row in reports[columns].itertuples(index=False, name=None):
        yield dict(zip(columns, row, strict=True))


def _split_counts(images: pd.DataFrame, reports: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {
        split: {
            "images": int((images["split"] == split).sum()),
            "images_with_report": int(((images["split"] == split) & images["has_report"]).sum()),
            "reports": int((reports["split"] == split).sum()),
        }
        for split in SPLITS
    }
