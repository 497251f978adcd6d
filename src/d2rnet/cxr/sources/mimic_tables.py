"""The image tables of MIMIC-CXR and MIMIC-CXR-JPG: ids, splits, views, sizes. Part of the report source ``mimic``."""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.limits import MAX_SIDE_PX
from d2rnet.files.problems import Problems
from d2rnet.files.splits import three_way_split
from d2rnet.files.table_checks import DIGITS, SAFE_ID, drop_bad_ids, drop_duplicates, find_table, normalise_splits

log = logging.getLogger(__name__)

SPLIT_TABLE = "mimic-cxr-*-split.csv"
METADATA_TABLE = "mimic-cxr-*-metadata.csv"
RECORD_LIST = "cxr-record-list.csv"
STUDY_LIST = "cxr-study-list.csv"
FILES_FOLDER = "files"
_IDS = ("dicom_id", "study_id", "subject_id")
COLUMNS = {
    SPLIT_TABLE: (*_IDS, "split"),
    METADATA_TABLE: (*_IDS, "ViewPosition", "Rows", "Columns"),
    RECORD_LIST: (*_IDS, "path"),
    STUDY_LIST: ("subject_id", "study_id"),
}
NEEDED_TABLES = {"jpg": (SPLIT_TABLE, METADATA_TABLE), "dicom": (RECORD_LIST, STUDY_LIST)}


@dataclass(frozen=True)
class MimicFolders:
    """Where ``cxr.data.reports`` says the images (``root``) and the report texts (``report_root``) are."""

    root: Path
    report_root: Path
    image_format: str

    @classmethod
    def of(cls, settings: ReportSourceSettings) -> "MimicFolders":
        """Take them from ``cxr.data.reports``."""
        root = Path(settings.root)
        return cls(root, Path(settings.report_root or root), settings.format)

    def optional_table(self, pattern: str) -> Path | None:
        """Find a table beside the images, else beside the reports."""
        return find_table([self.root, self.report_root], pattern)

    def needed_table(self, pattern: str) -> Path:
        """Find a table beside the images, else beside the reports.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self.optional_table(pattern)
        if found is None:
            raise FileNotFoundError(
                f"{self.root / pattern}[.gz]: no such table; expected with cxr.data.reports.source: mimic, format: "
                f"{self.image_format}. Set cxr.data.reports.root to the folder that holds it and the folder '{FILES_FOLDER}'."
            )
        return found


def read_images(folders: MimicFolders, *, split_seed: int, problems: Problems, counts: Counter[str]) -> pd.DataFrame:
    """Read the images of a release with their splits; views and sizes are added by :func:`add_views`.

    Args:
        folders: where to look, and for which format.
        split_seed: seed of the split where no split table exists.
        problems: grows by bad ids, repeated ids, unknown splits and images that the tables disagree on.
        counts: grows by ``images_in_table``, ``studies_in_table``.

    Returns:
        Columns ``source_id, subject_id, study_id, split, path``; path relative to the root.
    """
    pattern = SPLIT_TABLE if folders.image_format == "jpg" else RECORD_LIST
    file = folders.needed_table(pattern)
    images = _read_checked(file, pattern, problems)
    counts.update(images_in_table=len(images), studies_in_table=images["study_id"].nunique())
    log.info("%s: %d images of %d studies", file, len(images), counts["studies_in_table"])
    subject = images["subject_id"]
    study = images["study_id"]
    stem = FILES_FOLDER + "/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + images["source_id"]
    if folders.image_format == "jpg":
        return images.assign(path=stem + ".jpg")
    images = _with_standard_paths(images, stem + ".dcm", file, problems)
    split_file = folders.optional_table(SPLIT_TABLE)
    if split_file is not None:
        return _join(images, _read_checked(split_file, SPLIT_TABLE, problems), "split", split_file, problems, counts)
    log.info("%s: no table %s: seeded 70/10/20 split by patient", folders.root, SPLIT_TABLE)
    return images.assign(split=subject.map(three_way_split(subject.unique(), seed=split_seed)))


def add_views(
    images: pd.DataFrame, folders: MimicFolders, *, need_views: bool, problems: Problems, counts: Counter[str]
) -> "tuple[pd.DataFrame, pd.Series[bool]]":
    """Add ``view, source_height, source_width``, from the metadata table or else from the DICOM headers.

    Args:
        images: result of :func:`read_images`.
        folders: where to look.
        need_views: False spares the headers where there is no table; views are then "" and sizes 0.
        problems: grows by images without metadata and by sizes that are no numbers.
        counts: grows by ``metadata_rows_without_image`` or ``unreadable_headers``.

    Returns:
        The images, and a mask of those whose header could not be read (their view is unknown through no fault of theirs).
    """
    needed = folders.image_format == "jpg"
    file = folders.needed_table(METADATA_TABLE) if needed else folders.optional_table(METADATA_TABLE)
    if file is not None:
        metadata = _read_checked(file, METADATA_TABLE, problems).rename(columns={"ViewPosition": "view"})
        for ours, theirs in (("source_height", "Rows"), ("source_width", "Columns")):
            metadata[ours] = _sizes(metadata.pop(theirs), file, problems)
        images = _join(images, metadata, "metadata", file, problems, counts)
        return images, pd.Series(False, index=images.index)
    images = images.assign(view="", source_height=0, source_width=0)
    if not need_views:
        return images, pd.Series(False, index=images.index)
    from d2rnet.cxr.images.reader import (
        check_headers,  # DICOM decoders: only here, not for every command that reads the tables
    )

    log.info("%s: no table %s: reading views from the DICOM headers", folders.root, METADATA_TABLE)
    workers = len(os.sched_getaffinity(0))
    headers = [header for _, header, _ in check_headers([folders.root / path for path in images["path"]], workers)]
    unread = pd.Series([header is None for header in headers], index=images.index)
    counts["unreadable_headers"] = int(unread.sum())
    return images.assign(view=["" if header is None else header.view for header in headers]), unread


def _read_checked(file: Path, pattern: str, problems: Problems) -> pd.DataFrame:
    """Read a table with one row per image; report and drop rows with a bad id, a repeated id or an unknown split."""
    table = read_table_csv(file, COLUMNS[pattern])
    table = drop_bad_ids(table, "dicom_id", SAFE_ID, "letters, digits, '.', '_' and '-'", file=file, problems=problems)
    for column in ("study_id", "subject_id"):
        table = drop_bad_ids(table, column, DIGITS, "digits", file=file, problems=problems)
    table = drop_duplicates(table, "dicom_id", file=file, problems=problems).rename(columns={"dicom_id": "source_id"})
    return normalise_splits(table, file=file, problems=problems) if "split" in table else table


def _with_standard_paths(images: pd.DataFrame, expected: "pd.Series[str]", file: Path, problems: Problems) -> pd.DataFrame:
    """Report (kind ``bad_path``) and drop rows whose path is not the one that their ids make."""
    differing = images["path"] != expected
    for row in images.index[differing]:
        problems.add(
            "bad_path",
            file=file,
            record=f"row {row + 1}",
            got=f"path '{images['path'][row]}'",
            expected=f"'{expected[row]}'",
            remedy="Take the original record list.",
        )
    return images[~differing]


def _join(
    images: pd.DataFrame, table: pd.DataFrame, what: str, file: Path, problems: Problems, counts: Counter[str]
) -> pd.DataFrame:
    """Add a table's columns by source_id; report and drop images that it lacks or files under another study or patient."""
    joined = images.merge(table, on="source_id", how="left", suffixes=("", "_other"), indicator=True)
    absent = joined["_merge"] != "both"
    differing = ~absent & (
        (joined["study_id"] != joined["study_id_other"]) | (joined["subject_id"] != joined["subject_id_other"])
    )
    for kind, rows, got, expected in (
        (f"no_{what}", absent, "no row", "a row for each image"),
        (f"{what}_of_another_study", differing, "another study_id or subject_id", "those of the image list"),
    ):
        for source_id in joined.loc[rows, "source_id"]:
            problems.add(
                kind,
                file=file,
                record=f"image {source_id}",
                got=got,
                expected=expected,
                remedy="Take all tables from one release, and remove rows of images you lack.",
            )
    counts[f"{what}_rows_without_image"] = len(table) - int((~absent).sum())
    return joined[~absent & ~differing].drop(columns=["_merge", "study_id_other", "subject_id_other"])


def _sizes(column: "pd.Series[str]", file: Path, problems: Problems) -> "pd.Series[int]":
    """Turn sizes into whole pixels; an empty cell is 0 (the file tells), anything else but a positive number a problem."""
    numbers = pd.to_numeric(column.where(column != "", "0"), errors="coerce")
    bad = numbers.isna() | (numbers < 0) | (numbers % 1 != 0) | (numbers > MAX_SIDE_PX)
    for row in column.index[bad]:
        problems.add(
            "bad_size",
            file=file,
            record=f"row {row + 1}",
            got=f"{column.name} '{column[row]}'",
            expected=f"a whole number of pixels, 1 to {MAX_SIDE_PX}",
            remedy="Mend the row, or empty the cell.",
        )
    return numbers.where(~bad, 0).astype("int64")
