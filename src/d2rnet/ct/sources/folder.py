"""Volumes of one's own hospital: a table of paths and reports.

Layout: ``ct.data.reports.table`` (CSV, UTF-8, relative to root) with columns ``path`` (relative to root: a NIfTI, MHA or NRRD
file, or the folder of a DICOM series) and ``report``, or ``findings`` and ``impression``; and, if known, ``subject_id``,
``study_id``, ``split`` (train, val, test). Without subject_id each study counts as its own patient; without split the patients
get a seeded 70/10/20 split. Rows of one study are its volumes and must have one report.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import CtTable, report_table, volume_table
from d2rnet.ct.sources.volume_paths import find_volume, id_of, note_absent, own_name, read_id_map, with_splits
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import csv_columns, read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.table_checks import SAFE_ID, drop_bad_ids, drop_duplicates, normalise_splits

log = logging.getLogger(__name__)

TERMS = "as its owner says"
RELEASE_COUNTS: Mapping[str, int] = {}
_SAFE = "letters, digits, '.', '_' and '-', without '..'"


def required_files(settings: CtSourceSettings) -> list[RequiredFile]:
    """List the root and the table."""
    table = RequiredFile(Path(settings.root, settings.table), "ct.data.reports.table", "table of paths and reports", ("path",))
    return [RequiredFile(Path(settings.root), "ct.data.reports.root", "folder of the volumes"), table]


def read_table(settings: CtSourceSettings, problems: Problems) -> CtTable:
    """Read the table and find the volumes; see :mod:`d2rnet.ct.sources.tables`.

    Args:
        settings: ``ct.data.reports``.
        problems: grows by paths that leave root, repeated paths and ids, unknown splits, studies of two patients or with two
            reports, and missing volumes.

    Raises:
        FileNotFoundError: there is no such table.
        DatasetError: it lacks a column, or no volume is there.
    """
    root = Path(settings.root)
    file = root / settings.table
    counts: Counter[str] = Counter()
    table = _read_rows(file, settings, problems)
    counts["volumes_in_table"] = len(table)
    if (table["split"] != "").any():
        table = normalise_splits(table, file=file, problems=problems)
    table = with_splits(table, settings)
    paths = _find(table, root, file, settings, counts, problems)
    table = table.assign(path=paths)[[path is not None for path in paths]]
    if table.empty:
        raise DatasetError(f"{root}: none of the volumes of {settings.table} is below this folder. Set ct.data.reports.root.")
    texts = _reports(table, file, settings.section, counts, problems)
    volumes = table[table["study_id"].isin(texts["study_id"])]
    counts["volumes_kept"] = len(volumes)
    return CtTable(volume_table(volumes), texts, counts=counts)


def _read_rows(file: Path, settings: CtSourceSettings, problems: Problems) -> pd.DataFrame:
    """Return the sound rows: volume_id, study_id, subject_id, split, path as written, report."""
    text_column = _text_column(file, settings.section)
    table = read_table_csv(file, ["path", text_column], optional=["subject_id", "study_id", "split"])
    table = table.rename(columns={text_column: "report"})
    aliases = read_id_map(settings)
    table = drop_duplicates(table, "path", file=file, problems=problems)
    volume_ids = table["path"].map(id_of)
    study_ids = volume_ids if "study_id" not in table else table["study_id"].mask(table["study_id"] == "", volume_ids)
    table = table.assign(study_id=[own_name(study_id, aliases, file) for study_id in study_ids])
    number = table.groupby("study_id").cumcount() + 1
    table["volume_id"] = table["study_id"] + "_" + number.astype(str) if aliases else volume_ids
    subjects = table["subject_id"] if "subject_id" in table else pd.Series("", index=table.index)
    table["subject_id"] = subjects.mask(subjects == "", table["study_id"])
    table["split"] = table.get("split", "")
    for column in ("study_id", "subject_id", "volume_id"):
        table = drop_bad_ids(table, column, SAFE_ID, _SAFE, file=file, problems=problems)
    return drop_duplicates(table, "volume_id", file=file, problems=problems)


def _text_column(file: Path, section: str) -> str:
    """Return the column of the wanted section: its own name, or report.

    Raises:
        DatasetError: neither is there.
    """
    columns = csv_columns(file)
    for name in (section, "report"):
        if name in columns:
            return name
    raise DatasetError(f"{file}: columns found: {', '.join(columns)[:300]}; expected '{section}' or 'report'. Rename one.")


def _find(
    table: pd.DataFrame, root: Path, file: Path, settings: CtSourceSettings, counts: Counter[str], problems: Problems
) -> list[Path | None]:
    """Return the volume of each row, None where there is none."""
    found: list[Path | None] = []
    absent: list[str] = []
    for row, path in table["path"].items():
        try:
            found.append(find_volume(root, path))
        except DatasetError as error:
            found.append(None)
            problems.add(
                "no_volume",
                file=file,
                record=f"row {int(str(row)) + 1}",
                got=str(error),
                expected="a volume",
                remedy="Correct the path.",
            )
            continue
        if found[-1] is None:
            absent.append(path)
    note_absent(absent, len(table), settings, counts, problems)
    return found


def _reports(table: pd.DataFrame, file: Path, section: str, counts: Counter[str], problems: Problems) -> pd.DataFrame:
    """Return the text of each study that has one; note studies with two."""
    texts = table.assign(report=table["report"].str.split().str.join(" "))
    differing = texts.groupby("study_id")["report"].nunique()
    for study_id in differing[differing > 1].index:
        problems.add(
            "duplicate_study",
            file=file,
            record=f"study {study_id}",
            got="two reports",
            expected="one report per study",
            remedy="Give all rows of the study its report, or other study_ids.",
        )
    return report_table(texts[~texts["study_id"].duplicated()], section, counts)
