"""verify_inputs: check every configured root, table, count and image header before anything costly runs.

Reads: the sources of ``cxr.data``; nothing is written to them. Writes, into the output folder: summary.json (counts),
quarantine.jsonl (images to leave out: ``path, source, source_id, reason``), listed_boxes.jsonl (boxes to leave out),
run.json, unreadable_reports.jsonl, always problems.jsonl (empty if all is well) and, where all is well, the tables that the
converters read (:mod:`d2rnet.cxr.conversion.checked_tables`).
Problems are collected over all sources and end the run together; an unreadable image alone does not end it, unless they are
more than ``cxr.data.conversion.max_bad_fraction`` of a source.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.conversion.absent import take_present
from d2rnet.cxr.conversion.bad_fraction import limit_bad, limit_listed
from d2rnet.cxr.conversion.box_limits import check_boxes
from d2rnet.cxr.conversion.checked_tables import write_labelled, write_unlabelled
from d2rnet.cxr.conversion.copies import identify
from d2rnet.cxr.conversion.disk_space import check_space
from d2rnet.cxr.conversion.frames import UPRIGHT, check_frames
from d2rnet.cxr.conversion.input_checks import check_labelled, check_reports
from d2rnet.cxr.conversion.instances import join_instances
from d2rnet.cxr.conversion.leakage import check_leakage, check_own_copies, count_reasons, overlaps
from d2rnet.cxr.conversion.settings import (
    DataSettings,
    LabelledConversionSettings,
    UnlabelledConversionSettings,
    source_settings,
)
from d2rnet.cxr.images.gate import find_doubts, no_chest_radiograph
from d2rnet.cxr.images.reader import Checked, check_headers
from d2rnet.cxr.sources.sources import labelled_source, report_source, unlabelled_source
from d2rnet.cxr.sources.tables import LabelledTable, ReportTable, SourceModule
from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import COUNTS, SETTINGS
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile, check_required_files, unlike_release
from d2rnet.files.table_checks import check_alike_ids
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)


@dataclass
class Source:
    """One configured source while it is checked.

    Attributes:
        name: ``labelled``, ``reports`` or ``extra_unlabelled[0]``: its key under ``data``.
        settings: its section of the configuration.
        reader: the module that reads it.
        table: what the module read, None where it could not.
        files: what it needs.
        images: the table's images with ``file``, the path to open, as text, and ``left_out``, why another source's copy is
            taken in its place, "" for an image to convert.
        quarantine: one record an image that is unreadable or no chest radiograph.
        listed_boxes: one record a box outside its image that is left out.
        counts: what goes into summary.json.
    """

    name: str
    settings: Any
    reader: SourceModule[Any, Any]
    files: list[RequiredFile] = field(default_factory=list)
    table: LabelledTable | ReportTable | None = None
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    listed_boxes: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)


def verify_inputs(*, output: Path, workers: int, settings: DataSettings, kept_side: int = 0) -> None:
    """Check all sources of the configuration.

    Args:
        output: folder for the results.
        workers: processes that read image headers.
        settings: the section ``data``.
        kept_side: side of the square that a later training keeps of each image, pixels, for the estimate of free disk.

    Raises:
        DatasetError: anything is wrong with the tables, the splits or the boxes, too many images are left out, or the disk
            is too small. The first ten of each kind are named; all are in ``output/problems.jsonl``.
        ConfigError: a source name is unknown or a setting that a source needs is missing.
    """
    (output / COUNTS).unlink(missing_ok=True)  # without it no converter takes the tables of an earlier check
    problems = Problems()
    sources = list(_configured(settings))
    for source in sources:
        _check_files(source, problems)
    if not len(problems):
        for source in sources:
            _read(source, problems)
        output.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if source.table is not None:
                check_alike_ids(source.table.images, problems, file=source.settings.root, folder=output)
        _check_images(sources, workers, settings)
        _check_space(sources, problems, output, settings.conversion.max_side_px, kept_side)
        _check_unreadable(sources, settings.conversion.max_bad_fraction, problems)
        _identify(sources, workers)
        _check_across(sources, settings.conversion.max_bad_fraction, problems)
    _write_results(sources, problems, output, settings)
    problems.raise_if_any(details=output / "problems.jsonl")
    _write_tables(sources, output, settings)
    log.info(
        "verify-inputs: nothing wrong with the data: %d sources, %d images, %d unreadable, %d extra that other sources have",
        len(sources),
        sum(len(source.images) for source in sources),
        sum(len(source.quarantine) for source in sources),
        sum(int((source.images["left_out"] != "").sum()) for source in sources),
    )


def _configured(settings: DataSettings) -> Iterator[Source]:
    labelled = settings.labelled
    reports = settings.reports
    yield Source("labelled", labelled, labelled_source(labelled.source))
    yield Source("reports", reports, report_source(reports.source))
    for number, extra in enumerate(settings.extra_unlabelled):
        yield Source(f"extra_unlabelled[{number}]", extra, unlabelled_source(extra.source))


def _check_files(source: Source, problems: Problems) -> None:
    try:
        source.files = source.reader.required_files(source.settings)
        check_required_files(source.files, problems)
    except DatasetError as error:
        _note_unreadable(source, error, problems)


def _note_unreadable(source: Source, error: Exception, problems: Problems) -> None:
    problems.add(
        "unreadable_table",
        file=source.settings.root,
        record=f"cxr.data.{source.name}",
        got=str(error),
        expected=f"tables of source {source.settings.source}",
        remedy="Mend the table, or correct the configuration.",
    )


def _read(source: Source, problems: Problems) -> None:
    """Parse a source's tables and check them by themselves."""
    root = source.settings.root
    log.info("cxr.data.%s: reading source %s from %s", source.name, source.settings.source, root)
    try:
        table = source.reader.read_table(source.settings, problems)
        if not getattr(source.settings, "require_all", True):
            table = take_present(table, root)
    except (DatasetError, FileNotFoundError) as error:
        _note_unreadable(source, error, problems)
        return
    source.table = table
    source.counts = {"source": source.settings.source, **dict(sorted(table.counts.items())), "images": len(table.images)}
    if isinstance(table, LabelledTable):
        source.images = table.images.assign(file=table.images["path"].astype(str), left_out="")
        check_labelled(table, problems, file=root)
    else:
        files = [str(Path(root, path)) for path in table.images["path"]]
        source.images = table.images.assign(file=files, left_out="")
        check_reports(table, problems, file=root, with_text=source.name == "reports")
        source.counts |= {"reports": len(table.reports), "unreadable_reports": len(table.unreadable_reports)}
    log.info("cxr.data.%s: %s", source.name, source.counts)
    differing = unlike_release(source.reader.RELEASE_COUNTS, table.counts)
    if differing:
        source.counts["unlike_the_full_release"] = differing
        log.info("cxr.data.%s: not the full release (a subset, or another version): %s", source.name, differing)


def _check_images(sources: list[Source], workers: int, settings: DataSettings) -> None:
    """Look at every image file; put what is unreadable or no chest radiograph into quarantine, note sizes of the others."""
    for source in sources:
        if source.table is None:
            continue
        results = check_headers([Path(file) for file in source.images["file"]], workers)
        headers = [header for _, header, _ in results]
        source.images["file_height"] = [header.height if header else 0 for header in headers]
        source.images["file_width"] = [header.width if header else 0 for header in headers]
        source.images["uid_hash"] = pd.Series([header.uid_hash if header else None for header in headers], dtype=object)
        source.images["exif_orientation"] = [header.exif_orientation if header else UPRIGHT for header in headers]
        _note_doubts(source, results, settings)
        _count_other_sizes(source)


def _check_space(sources: list[Source], problems: Problems, output: Path, max_side_px: int, kept_side: int) -> None:
    """Compare the free disk with the images that can be read."""
    images = pd.concat([source.images for source in sources if source.table is not None])
    heights, widths = (images[key].to_numpy(dtype="int64") for key in ("file_height", "file_width"))
    check_space(heights, widths, problems, folder=output, max_side_px=max_side_px, kept_side_px=kept_side)


def _note_doubts(source: Source, results: Sequence[Checked], settings: DataSettings) -> None:
    """Put what is unreadable or no chest radiograph into quarantine; count the kinds of that, and of what is doubtful."""
    unreadable = 0
    refused: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    views = settings.reports.views
    for source_id, (path, header, error) in zip(source.images["source_id"], results, strict=True):
        doubts = find_doubts(header, views=views, max_side_px=settings.conversion.max_side_px) if header else []
        if reason := error or no_chest_radiograph(doubts, path):
            source.quarantine.append({"path": str(path), "source": source.name, "source_id": source_id, "reason": reason})
            unreadable += header is None
            refused.update({doubt.kind for doubt in doubts if doubt.is_certain})
        else:
            doubtful.update(doubt.kind for doubt in doubts)
    source.counts["unreadable_images"] = unreadable
    source.counts["stored_in_colour_not_looked_at"] = sum(
        header is not None and header.is_coloured is None for _, header, _ in results
    )
    source.counts["no_chest_radiographs"] = dict(sorted(refused.items()))
    source.counts["doubtful_images"] = dict(sorted(doubtful.items()))
    if doubtful:
        counts = source.counts["doubtful_images"]
        log.warning("cxr.data.%s: doubtful as frontal chest radiographs, yet taken: %s", source.name, counts)


def _count_other_sizes(source: Source) -> None:
    """Count images whose file is not of the size that the tables say, as in a re-encoded and reduced copy."""
    images = source.images
    stated = (images["source_height"] > 0) & (images["file_height"] > 0)
    other = images[
        stated & ((images["source_height"] != images["file_height"]) | (images["source_width"] != images["file_width"]))
    ]
    source.counts["images_of_another_size_than_stated"] = len(other)
    if len(other):
        first = other.iloc[0]
        log.warning(
            "cxr.data.%s: %d of %d images are not of the size that the tables state (%s: %d x %d stated, %d x %d in the file, "
            "height x width); labelled boxes are taken to be in the stated frame, predicted ones in the file's",
            source.name,
            len(other),
            len(images),
            first["file"],
            first["source_height"],
            first["source_width"],
            first["file_height"],
            first["file_width"],
        )


def _identify(sources: list[Source], workers: int) -> None:
    """Add ``identity``, what an image file holds, to the images of every source."""
    read = [source for source in sources if source.table is not None]
    uids = {file: uid for source in read for file, uid in zip(source.images["file"], source.images["uid_hash"], strict=True)}
    found = join_instances(identify(uids, workers), uids, workers)
    for source in read:
        files = source.images["file"]
        source.images["identity"] = pd.Series([found.identities[file] for file in files], index=files.index, dtype=object)
        contents = source.images["identity"].dropna()
        source.counts["images_of_equal_content"] = len(contents) - contents.nunique()
        source.counts["copies_by_uid"] = int(files.isin(list(found.copies)).sum())
        source.counts["images_of_a_shared_uid"] = int(files.isin(list(found.of_shared_uids)).sum())
        source.counts["dicom_images_without_uid"] = int((source.images["uid_hash"] == "").sum())
        if source.counts["images_of_a_shared_uid"]:
            log.warning(
                "cxr.data.%s: %d images share their SOPInstanceUID with other pictures; by it alone none of them is a copy",
                source.name,
                source.counts["images_of_a_shared_uid"],
            )


def _check_across(sources: list[Source], max_bad_fraction: float, problems: Problems) -> None:
    """Compare boxes with image sizes, and the labelled test split with what is trained on without labels."""
    labelled = sources[0]
    if not isinstance(labelled.table, LabelledTable):
        return
    boxed = labelled.images["source_id"].isin(labelled.table.boxes["source_id"])
    check_frames(labelled.images, boxed, problems)
    images = labelled.images[labelled.images["file_height"] > 0]
    from_table = images["source_height"] > 0
    heights = images["source_height"].where(from_table, images["file_height"])
    widths = images["source_width"].where(from_table, images["file_width"])
    sizes = dict(zip(images["source_id"], zip(heights, widths, strict=True), strict=True))
    checked = check_boxes(labelled.table.boxes, sizes, labelled.settings, problems)
    labelled.counts["boxes"] = dict(sorted(checked.counts.items()))
    labelled.listed_boxes = checked.listed
    limit_listed(checked, problems, root=labelled.settings.root, most=max_bad_fraction)
    reports = sources[1]
    extras = sources[2:]
    check_own_copies(labelled.images, problems)
    if reports.table is not None:
        check_leakage(
            labelled.images,
            _by_own_ids(reports),
            problems,
            file=reports.settings.root,
            one_collection=Path(labelled.settings.root).resolve() == Path(reports.settings.root).resolve(),
        )
    _mark_overlaps(labelled, reports, [source for source in extras if source.table is not None])


def _mark_overlaps(labelled: Source, reports: Source, extras: list[Source]) -> None:
    """Mark and count the extra images that are left out because another source has them."""
    if not extras:
        return
    images = pd.concat([_by_own_ids(source).assign(origin=source.name) for source in extras], ignore_index=True)
    reasons = overlaps(images, labelled.images, _by_own_ids(reports))
    for source in extras:
        source.images["left_out"] = reasons[images["origin"] == source.name].to_numpy()
        source.counts["left_out"] = count_reasons(source.images["left_out"])
        if any(source.counts["left_out"].values()):
            left_out = source.counts["left_out"]
            log.warning("cxr.data.%s: of %d images are left out: %s", source.name, len(source.images), left_out)


def _by_own_ids(source: Source) -> pd.DataFrame:
    """Return ``name, patient, file, identity, split`` of a source's images; no row where its tables could not be read."""
    columns = {"source_id": "name", "subject_id": "patient", "file": "file", "identity": "identity", "split": "split"}
    return source.images.reindex(columns=list(columns)).rename(columns=columns)


def _write_results(sources: list[Source], problems: Problems, output: Path, settings: DataSettings) -> None:
    counts = {source.name: source.counts for source in sources} | {"problems": problems.counts()}
    write_jsonl(output / "problems.jsonl", (asdict(problem) for problem in problems.all()))
    write_jsonl(output / "quarantine.jsonl", (record for source in sources for record in source.quarantine))
    write_jsonl(output / "listed_boxes.jsonl", (record for source in sources for record in source.listed_boxes))
    unreadable = (
        record for source in sources if isinstance(source.table, ReportTable) for record in source.table.unreadable_reports
    )
    write_jsonl(output / "unreadable_reports.jsonl", unreadable)
    write_json(output / "summary.json", counts)
    inputs = {}
    if not len(problems):
        files = ((source, file.path) for source in sources for file in source.files)
        inputs = {f"{source.name}: {path.name}": path for source, path in files if path.is_file()}
    write_run_record(output / "run.json", command="verify-inputs", settings=settings, inputs=inputs, counts=counts)


def _write_tables(sources: list[Source], output: Path, settings: DataSettings) -> None:
    """Write what the converters read; the tables are there, since nothing is wrong."""
    labelled, reports = (source.table for source in sources[:2])
    assert isinstance(labelled, LabelledTable) and isinstance(reports, ReportTable)
    bad = {os.path.abspath(record["path"]) for source in sources for record in source.quarantine}  # noqa: PTH100 - links stay
    images, counts = _join_unlabelled(*sources[1:])
    made_with = [source_settings(settings, part) for part in (LabelledConversionSettings, UnlabelledConversionSettings)]
    counted = {
        "labelled": {SETTINGS: made_with[0], **write_labelled(output, labelled, bad)},
        "unlabelled": {SETTINGS: made_with[1], **counts, **write_unlabelled(output, images, reports.reports, bad)},
    }
    write_json(output / COUNTS, counted)


def _join_unlabelled(reports: Source, *extras: Source) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Join the images of the report source and of the extra folders, without those that another source has; and count them.

    Ids of extra images begin with ``extra<n>_``, so that no two sources collide.
    """
    assert reports.table is not None
    counts: dict[str, Any] = {"source": reports.settings.source, "from_reports": dict(sorted(reports.table.counts.items()))}
    parts = [reports.images.assign(source_path=reports.images["path"])]
    for number, extra in enumerate(extras, start=1):
        assert extra.table is not None
        ids = {key: f"extra{number}_" + extra.images[key] for key in ("source_id", "study_id", "subject_id")}
        parts.append(extra.images.assign(**ids, source_path=None))
        counts[f"from_extra_unlabelled_{number}"] = dict(sorted(extra.table.counts.items()))
    images = pd.concat(parts, ignore_index=True)
    counts["extra_images_left_out"] = count_reasons(images["left_out"])
    return images[images["left_out"] == ""], counts


def _check_unreadable(sources: list[Source], max_bad_fraction: float, problems: Problems) -> None:
    """Make problems of the unreadable images, and of the unreadable reports, of a source that has too many of them."""
    for source in sources:
        limit_bad(
            source.quarantine,
            len(source.images),
            what="images",
            name=source.name,
            root=source.settings.root,
            most=max_bad_fraction,
            problems=problems,
        )
        if isinstance(source.table, ReportTable) and source.table.unreadable_reports:
            table = source.table
            without_section = table.counts[f"studies_without_{source.settings.section}"]
            studies = len(table.reports) + len(table.unreadable_reports) + without_section
            root = getattr(source.settings, "report_root", None) or source.settings.root
            limit_bad(
                table.unreadable_reports,
                studies,
                what="reports",
                name=source.name,
                root=root,
                most=max_bad_fraction,
                problems=problems,
            )
