"""Checks and filters that every source of images with reports shares: ids, splits of patients, views.

Works on whole columns, so that 377,110 rows take seconds; only offending rows are looked at one by one.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.tables import REPORT_COLUMNS
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)

SAFE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
IMAGE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")
DIGITS = re.compile(r"[0-9]{1,100}")
SPLIT_NAMES = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


def find_table(folders: Sequence[Path], pattern: str) -> Path | None:
    """Find the one table of a name pattern, in the first folder that has any.

    Args:
        folders: folders to look in, in this order, not below them.
        pattern: glob that ends in ``.csv``; a gzipped table (``.csv.gz``) matches too.

    Raises:
        DatasetError: a folder holds more than one such table (two releases, or a packed and an unpacked copy).
    """
    for folder in folders:
        found = sorted([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")])
        if len(found) > 1:
            raise DatasetError(
                f"{folder}: {len(found)} tables fit {pattern}[.gz]: {', '.join(path.name for path in found)}; expected one. "
                "Keep the one of the release whose images you have."
            )
        if found:
            return found[0]
    return None


def drop_bad_ids(
    table: pd.DataFrame, column: str, form: re.Pattern[str], expected: str, *, file: Path, problems: Problems
) -> pd.DataFrame:
    """Report and drop rows whose id is not of the form, such as one with a path separator or ``..``.

    Args:
        table: rows of ``file``; index ``i`` is its row ``i + 1``.
        column: id column.
        form: pattern that the whole id must match.
        expected: that pattern in words.
        file: named in problems.
        problems: grows by kind ``bad_id``.
    """
    values = table[column]
    bad = values.isin([value for value in set(values.tolist()) if not form.fullmatch(value)])
    for row in table.index[bad]:
        problems.add(
            "bad_id",
            file=file,
            record=f"row {row + 1}",
            got=f"{column} '{values[row]}'",
            expected=expected,
            remedy="Mend or remove the row.",
        )
    return table[~bad]


def drop_duplicates(table: pd.DataFrame, column: str, *, file: Path, problems: Problems) -> pd.DataFrame:
    """Report rows whose id occurred before (kind ``duplicate_id``) and keep the first; arguments as in drop_bad_ids."""
    repeated = table[column].duplicated()
    for row in table.index[repeated]:
        problems.add(
            "duplicate_id",
            file=file,
            record=f"row {row + 1}",
            got=f"{column} '{table[column][row]}' again",
            expected="each once",
            remedy="Remove one of the rows.",
        )
    return table[~repeated]


def normalise_splits(table: pd.DataFrame, *, file: Path, problems: Problems) -> pd.DataFrame:
    """Give splits our names (``validate`` is ``val``); report (kind ``unknown_split``) and drop rows of any other name."""
    named = table["split"].str.lower().map(SPLIT_NAMES)
    for row in table.index[named.isna()]:
        problems.add(
            "unknown_split",
            file=file,
            record=f"row {row + 1}",
            got=f"split '{table['split'][row]}'",
            expected="train, validate or test",
            remedy="Mend the row.",
        )
    return table.assign(split=named)[named.notna()]


def check_patients(rows: pd.DataFrame, *, file: str | Path, problems: Problems) -> None:
    """Report patients in more than one split and studies of more than one patient.

    Args:
        rows: columns ``subject_id``, ``split`` and, where there are studies, ``study_id``.
        file: named in problems.
        problems: grows by kinds ``patient_in_two_splits`` and ``study_of_two_patients``, unless it has that kind already.
    """
    already = problems.counts()
    for kind, group, other in (
        ("patient_in_two_splits", "subject_id", "split"),
        ("study_of_two_patients", "study_id", "subject_id"),
    ):
        if kind in already or group not in rows:
            continue
        pairs = rows[[group, other]].drop_duplicates()
        repeated = pairs[pairs[group].duplicated(keep=False)]
        for value, found in repeated.groupby(group)[other]:
            problems.add(
                kind,
                file=file,
                record=f"{group} {value}",
                got=f"{other} {', '.join(sorted(found))}",
                expected=f"one {other}",
                remedy="Give it one, or leave its rows out.",
            )


def keep_views(
    images: pd.DataFrame, views: Sequence[str], counts: Counter[str], *, keep_anyway: "pd.Series[bool] | None" = None
) -> pd.DataFrame:
    """Keep the images of the wanted views and count the others by view.

    Args:
        images: with column ``view``, "" where unknown.
        views: ``cxr.data.reports.views``; empty keeps all.
        counts: grows by ``images_dropped_view_<view>``, ``images_kept`` and ``studies_without_wanted_view``.
        keep_anyway: images whose view could not be read because the file is broken: left for the conversion to report.

    Raises:
        ConfigError: images were there and none is left; the message names the views found.
    """
    seen = images["view"].str.upper()
    keep = pd.Series(True, index=images.index) if not views else seen.isin([view.upper() for view in views])
    if keep_anyway is not None:
        keep |= keep_anyway
    dropped = seen[~keep].replace("", "unknown").value_counts()
    counts.update({f"images_dropped_view_{view}": int(number) for view, number in dropped.items()})
    kept = images[keep]
    if len(images) and not len(kept):
        raise ConfigError(
            f"cxr.data.reports.views: no image has a view of {', '.join(views)}; views found: "
            f"{', '.join(f'{view} ({number})' for view, number in dropped.items())}. Sources that do not tell the view "
            "(Open-i, annotation.json of R2Gen) need views: []."
        )
    counts["images_kept"] = len(kept)
    counts["studies_without_wanted_view"] = images["study_id"].nunique() - kept["study_id"].nunique()
    return kept


def report_table(rows: Sequence[tuple[str, ...]]) -> pd.DataFrame:
    """Build the reports table from rows in the order of REPORT_COLUMNS; string columns even where there is no row."""
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS), dtype=str)
