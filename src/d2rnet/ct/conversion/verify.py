"""verify_ct_inputs: check the configured root, tables, counts and volume headers before anything costly runs.

Reads: the source of ``ct.data.reports``; nothing is written to it. Writes, into the output folder: summary.json (counts),
quarantine.jsonl (volumes to leave out: ``path, volume_id, reason``), run.json, always problems.jsonl (empty if all is well)
and, where all is well, the tables that the next rules read (:mod:`d2rnet.ct.conversion.checked_tables`).
What a volume shows is looked at in the conversion, which reads every voxel; here a header must be sound and say that there
are three axes, enough slices and a plausible spacing.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.ct.conversion.checked_tables import PART, write_checked
from d2rnet.ct.conversion.data_settings import CtSourceDataSettings
from d2rnet.ct.sources.tables import CtTable, ct_source
from d2rnet.ct.volumes.reader import read_volume_header
from d2rnet.errors import D2RNetError, DatasetError
from d2rnet.files.checked_tables import COUNTS
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.names import is_safe_id
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import check_required_files, unlike_release
from d2rnet.files.table_checks import check_alike_ids, check_patients, check_repeats
from d2rnet.report.annotation_file import SPLITS
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

SHOWN_BAD = 10
Spacing = tuple[float, float, float]


def verify_ct_inputs(*, output: Path, workers: int, settings: CtSourceDataSettings) -> None:
    """Check the CT source of the configuration.

    Args:
        output: folder for the results.
        workers: processes that read headers.
        settings: sections ``ct.data.reports``, ``ct.data.volumes`` and ``ct.data.conversion``.

    Raises:
        DatasetError: anything is wrong with the tables or splits, or too many volumes are unreadable. The first ten of each
            kind are named; all are in ``output/problems.jsonl``.
        ConfigError: the source is unknown or a setting that it needs is missing.
    """
    (output / COUNTS).unlink(missing_ok=True)  # without it no later rule takes the tables of an earlier check
    source = settings.reports
    module = ct_source(source.source)
    problems = Problems()
    table = None
    quarantine: list[dict[str, str]] = []
    counts: dict[str, Any] = {}
    files = _required_files(settings, problems)
    if not len(problems):
        table = _read(settings, problems)
    if table is not None:
        output.mkdir(parents=True, exist_ok=True)
        quarantine = _check_headers(table, workers, settings.volumes.min_slices)
        check_table(table, source.root, output, problems, unreadable={bad["volume_id"] for bad in quarantine})
        note_too_many(quarantine, len(table.volumes), settings.max_bad_fraction, problems)
        counts = {"source": source.source, **dict(sorted(table.counts.items())), "unreadable_volumes": len(quarantine)}
        if differing := unlike_release(module.RELEASE_COUNTS, table.counts):
            counts["unlike_the_full_release"] = differing
            log.info("ct.data.reports: not the full release (a subset, or another version): %s", differing)
    write_jsonl(output / "problems.jsonl", (asdict(problem) for problem in problems.all()))
    write_jsonl(output / "quarantine.jsonl", quarantine)
    write_json(output / "summary.json", {"reports": counts, "problems": problems.counts()})
    inputs = {} if len(problems) else {path.name: path for path in files if path.is_file()}
    write_run_record(output / "run.json", command="verify-ct-inputs", settings=settings, inputs=inputs, counts=counts)
    problems.raise_if_any(details=output / "problems.jsonl")
    assert table is not None
    write_json(output / COUNTS, {PART: write_checked(output, table, {bad["volume_id"] for bad in quarantine}, settings)})
    log.info(
        "verify-ct-inputs: nothing wrong with the data; %d studies, %d volumes, %d of them unreadable",
        table.volumes["study_id"].nunique(),
        len(table.volumes),
        len(quarantine),
    )


def _required_files(settings: CtSourceDataSettings, problems: Problems) -> list[Path]:
    """Return what the source needs; note what of it is missing."""
    source = settings.reports
    try:
        needed = ct_source(source.source).required_files(source)
        check_required_files(needed, problems)
    except DatasetError as error:
        _note_unreadable(settings, error, problems)
        return []
    return [file.path for file in needed]


def _note_unreadable(settings: CtSourceDataSettings, error: Exception, problems: Problems) -> None:
    problems.add(
        "unreadable_table",
        file=settings.reports.root,
        record="ct.data.reports",
        got=str(error),
        expected=f"tables of source {settings.reports.source}",
        remedy="Mend the table, or correct the configuration.",
    )


def _read(settings: CtSourceDataSettings, problems: Problems) -> CtTable | None:
    source = settings.reports
    log.info("ct.data.reports: reading source %s from %s", source.source, source.root)
    try:
        table = ct_source(source.source).read_table(source, problems)
    except (DatasetError, FileNotFoundError) as error:
        _note_unreadable(settings, error, problems)
        return None
    log.info("ct.data.reports: %s", dict(sorted(table.counts.items())))
    return table


def check_table(
    table: CtTable, root: str, output: Path, problems: Problems, *, unreadable: Collection[str] = frozenset()
) -> None:
    """Check ids, repeats, and that no patient is in two splits and no split is empty.

    Args:
        table: what the source's module read.
        root: of the source, for messages.
        output: folder in which ids that differ in capitals alone would be one file.
        problems: grows by what is wrong.
        unreadable: ids of volumes that fill no split.
    """
    volumes = table.volumes
    for column in ("volume_id", "study_id", "subject_id"):
        for value in [value for value in volumes[column].unique() if not is_safe_id(value)]:
            problems.add(
                "bad_id",
                file=root,
                record=f"{column} {value!a:.200}",
                got="an id that can be no file name",
                expected="printable characters without '/', '\\' and '..', at most 200 bytes",
                remedy="Give ct.data.reports.id_map, or mend the table.",
            )
    check_repeats(volumes, what="volume", id_column="volume_id", file=root, problems=problems)
    check_alike_ids(volumes.rename(columns={"volume_id": "source_id"}), problems, file=root, folder=output)
    keys = ["subject_id", "study_id", "split"]
    check_patients(pd.concat([volumes[keys], table.reports[keys]]), file=root, problems=problems)
    for split in sorted(set(SPLITS) - set(volumes.loc[~volumes["volume_id"].isin(unreadable), "split"])):
        problems.add(
            "empty_split",
            file=root,
            record=split,
            got="no readable volume with a report",
            expected="at least one",
            remedy="Check root, section and quarantine.jsonl, and for a part of a source ct.data.reports.val_fraction.",
        )


def _check_headers(table: CtTable, workers: int, min_slices: int) -> list[dict[str, str]]:
    """Read the header of every volume; return those that cannot be used."""
    volumes = table.volumes
    spacings = volumes[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].to_numpy()
    items = [(path, stated_spacing(row)) for path, row in zip(volumes["path"], spacings, strict=True)]
    check = partial(_reason_against, min_slices=min_slices)
    reasons = map_in_processes(check, items, workers=workers, what="read volume headers", chunk_size=16)
    found = zip(
        volumes["volume_id"],
        volumes["path"],
        track(reasons, total=len(items), what="volume headers", unit="volume"),
        strict=True,
    )
    return [{"path": path, "volume_id": name, "reason": reason} for name, path, reason in found if reason]


def stated_spacing(row: "np.ndarray | Sequence[float]") -> Spacing | None:
    """Return the spacing (z, y, x) in mm that a table states; None where it does not state all of it."""
    z, y, x = (float(value) for value in row)
    return (z, y, x) if z > 0 and y > 0 and x > 0 else None  # a comparison with NaN is false


def _reason_against(item: tuple[str, Spacing | None], min_slices: int) -> str:
    """Return why a header rules a volume out, "" where it does not."""
    path, spacing = item
    try:
        header = read_volume_header(path, stated_spacing_mm=spacing)
    except D2RNetError as error:
        return str(error)
    if header.shape_zyx[0] < min_slices:
        return f"{path}: got {header.shape_zyx[0]} slices; expected at least {min_slices} (ct.data.volumes.min_slices)."
    return ""


def note_too_many(
    bad: Sequence[dict[str, str]], total: int, max_bad_fraction: float, problems: Problems, *, by_headers: int = 0
) -> None:
    """Make a problem of unreadable volumes that are more than a share of all; warn where they are fewer.

    Args:
        bad: those found now.
        total: number of volumes that were looked at now.
        max_bad_fraction: share of all volumes that may be unreadable, whoever found them so.
        problems: grows.
        by_headers: volumes that the check of headers set aside before, which are not among ``total``.
    """
    if bad:
        log.warning("ct.data.reports: %d of %d volumes cannot be used and are left out", len(bad), total)
        for record in bad[:SHOWN_BAD]:
            log.warning("left out: %s", record["reason"])
    found = len(bad) + by_headers
    if not bad or found <= max_bad_fraction * (total + by_headers):
        return
    earlier = f" ({by_headers} of them by headers)" if by_headers else ""
    for record in bad:
        problems.add(
            "too_many_unreadable_volumes",
            file=record["path"],
            record=f"volume {record['volume_id']}",
            got=record["reason"],
            expected=f"at most {max_bad_fraction:.2%} of {total + by_headers} volumes unreadable, not {found}{earlier}",
            remedy="Mend or remove them, or raise ct.data.max_bad_fraction.",
        )
