"""convert_unlabelled: the report source's images (and extra unlabelled folders) as COCO json and PNG, its reports as a table.

Reads: the records of convert-images-shard, which has written the PNG files, the sources ``cxr.data.reports`` and
``cxr.data.extra_unlabelled``, the image list of ``cxr.data.labelled`` (to prove that no labelled test image is among them),
quarantine.jsonl of verify_inputs. Writes, into the output folder:

* ``unlabelled.json``: COCO without annotations. Beside the usual keys an image has ``source_height, source_width``
  (its file's own size, pixels), ``source_id, study_id, subject_id, view, split, has_report`` and ``source_path``, the
  original file relative to ``cxr.data.reports.root`` (null for extra unlabelled images);
* ``reports.jsonl``: ``subject_id, study_id, split, section, report, images`` (source_ids), one study with text a line;
* ``convert_unlabelled/{counts.json,run.json,data_card.md,unreadable_reports.jsonl}``.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.conversion.cards import UNLABELLED_CARD
from d2rnet.cxr.conversion.image_conversion import ConversionJob
from d2rnet.cxr.conversion.image_lists import unlabelled_file_name
from d2rnet.cxr.conversion.image_shards import SIZES, join_shards
from d2rnet.cxr.conversion.input_checks import leave_out_quarantined
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.conversion.unlabelled_images import leave_out_overlaps, read_sources
from d2rnet.cxr.sources.sources import labelled_source, origin_line, report_source
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.problems import Problems
from d2rnet.report.annotation_file import SPLITS
from d2rnet.runs.cards import ORIGIN_KEY, write_card
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

RECORD_KEYS = (
    "id", "file_name", "height", "width", "source_height", "source_width", "source_id", "source_path", "study_id",
    "subject_id", "view", "split", "has_report",
)  # fmt: skip


def convert_unlabelled(*, quarantine: Path, shards: Sequence[Path], output: Path, settings: DataSettings) -> None:
    """Convert the report source and the extra unlabelled folders.

    Args:
        quarantine: images to leave out, JSON lines with ``path`` (written by verify_inputs).
        shards: records of convert-images-shard, all of them.
        output: folder of unlabelled.json; the rest goes below it.
        settings: the section ``data``.

    Raises:
        DatasetError: the tables are wrong, too many images or reports are unreadable, a shard is missing, a patient is in two
            splits, a labelled test image would be trained on, or nothing is left.
        ConfigError: a source is unknown, or no image has a wanted view.
    """
    folder = output / "convert_unlabelled"
    problems = Problems()
    sources = read_sources(settings, problems)
    problems.raise_if_any(details=folder / "problems.jsonl")
    counts: dict[str, Any] = dict(sources.counts)
    _check_unreadable_reports(sources.unreadable_reports, sources.n_studies, settings.conversion.max_bad_fraction)
    write_jsonl(folder / "unreadable_reports.jsonl", sources.unreadable_reports)
    labelled = settings.labelled
    # what is wrong with the labelled tables is for verify_inputs and convert_labelled to say
    labelled_images = labelled_source(labelled.source).read_table(labelled, Problems()).images
    images = leave_out_overlaps(sources.images, labelled_images, counts)
    images = leave_out_quarantined(images, images["file"], quarantine, counts)
    images = _with_frames(images, shards, output, settings.conversion.max_bad_fraction, counts)
    reports = _with_images(sources.reports, images, counts)
    images["has_report"] = images["study_id"].isin(reports["study_id"]) & images["source_path"].notna()
    assert_patients_disjoint(images, reports)
    images["id"] = range(1, len(images) + 1)
    write_coco(output / "unlabelled.json", _image_records(images), [])
    write_jsonl(output / "reports.jsonl", _report_records(reports))
    counts |= {"images": len(images), "reports": len(reports), "splits": _split_counts(images, reports)}
    log.info("convert-unlabelled: %d images, %d reports", len(images), len(reports))
    write_json(folder / "counts.json", counts)
    _write_run_record(folder / "run.json", quarantine, settings, counts)
    write_card(UNLABELLED_CARD, folder)


def assert_patients_disjoint(images: pd.DataFrame, reports: pd.DataFrame) -> None:
    """Prove that no patient is in two splits.

    Args:
        images: columns ``subject_id, split``.
        reports: columns ``subject_id, split``.

    Raises:
        DatasetError: names the first ten patients.
    """
    pairs = pd.concat([images[["subject_id", "split"]], reports[["subject_id", "split"]]]).drop_duplicates()
    repeated = sorted(pairs.loc[pairs["subject_id"].duplicated(), "subject_id"].unique())
    if repeated:
        raise DatasetError(
            f"cxr.data.reports: {len(repeated)} patient(s) are in more than one split: {', '.join(repeated[:10])}; expected one. "
            "Mend the split table of the report source."
        )


def _check_unreadable_reports(unreadable: list[dict[str, str]], n_studies: int, max_bad_fraction: float) -> None:
    for record in unreadable[:10]:
        log.warning("%s: report left out: %s", record["path"], record["reason"])
    if len(unreadable) > max_bad_fraction * n_studies:
        shown = "\n  ".join(f"{record['path']}: {record['reason']}" for record in unreadable[:10])
        raise DatasetError(
            f"cxr.data.reports: {len(unreadable)} of {n_studies} report texts are unreadable, more than "
            f"cxr.data.conversion.max_bad_fraction ({max_bad_fraction:.2%}) allows. Mend them, or raise it.\n  {shown}"
        )


def _with_frames(
    images: pd.DataFrame, shards: Sequence[Path], output: Path, max_bad_fraction: float, counts: dict[str, Any]
) -> pd.DataFrame:
    """Return the images that were readable with file_name and their sizes before and after the conversion."""
    names = [unlabelled_file_name(source_id) for source_id in images["source_id"]]
    jobs = [ConversionJob(Path(file), output / name) for file, name in zip(images["file"], names, strict=True)]
    results = join_shards(shards, jobs, output, max_bad_fraction=max_bad_fraction)
    stated = images[["source_height", "source_width"]].to_numpy()
    sizes = pd.DataFrame({column: [getattr(result, column) for result in results] for column in SIZES}, index=images.index)
    readable = pd.Series([result.reason is None for result in results], index=images.index, dtype=bool)
    other = readable & (stated[:, 0] > 0) & (sizes[["source_height", "source_width"]].to_numpy() != stated).any(axis=1)
    counts["images_unreadable"] = int((~readable).sum())
    counts["images_of_another_size_than_stated"] = int(other.sum())
    if other.any():
        log.warning("%d image(s) are not of the size that the tables state; the file's own size is taken", other.sum())
    if not readable.any():
        raise DatasetError(
            "cxr.data.reports: no readable image is left to convert. Check cxr.data.reports.root and the quarantine list."
        )
    return images.assign(file_name=names, **dict(sizes.items()))[readable].reset_index(drop=True)


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


def _write_run_record(target: Path, quarantine: Path, settings: DataSettings, counts: dict[str, Any]) -> None:
    """Record the run; the hashes cover the tables, not the images."""
    reports = settings.reports
    source = report_source(reports.source)
    needed = source.required_files(reports)
    inputs = {file.path.name: file.path for file in needed if file.path.is_file()}
    write_run_record(
        target,
        command="convert-unlabelled",
        settings=settings,
        inputs={"quarantine": quarantine, **inputs},
        counts=counts,
        seeds={"split": reports.split_seed},
        extra={ORIGIN_KEY: origin_line(source, reports.source, reports.root)},
    )
