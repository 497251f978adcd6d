"""Checks of tables that every source of patients shares: ids, splits, patients in one split alone, names of files to be.

Works on whole columns, so that 377,110 rows take seconds; only offending rows are looked at one by one.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems

SAFE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
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


def check_repeats(rows: pd.DataFrame, *, what: str, id_column: str, file: str | Path, problems: Problems) -> None:
    """Report ids and paths that stand in more than one row.

    Args:
        rows: columns ``id_column`` and ``path``.
        what: what a row is, such as "image".
        id_column: column of its id.
        file: named in problems.
        problems: grows by kinds ``duplicate_<what>_id`` and ``duplicate_<what>_path``, unless it has that kind already.
    """
    for column, kind in ((id_column, f"duplicate_{what}_id"), ("path", f"duplicate_{what}_path")):
        if kind in problems.counts():
            continue
        for value in rows.loc[rows[column].duplicated(), column].unique():
            problems.add(
                kind,
                file=file,
                record=f"{what} {value}",
                got=f"{column} more than once",
                expected=f"each {what} once",
                remedy="Remove the repeated rows.",
            )


def assert_patients_disjoint(images: pd.DataFrame, reports: pd.DataFrame, *, key: str) -> None:
    """Prove that no patient is in two splits.

    Args:
        images: columns ``subject_id, split``.
        reports: columns ``subject_id, split``.
        key: the source's section of the configuration, for the message.

    Raises:
        DatasetError: names the first ten patients.
    """
    pairs = pd.concat([images[["subject_id", "split"]], reports[["subject_id", "split"]]]).drop_duplicates()
    repeated = sorted(pairs.loc[pairs["subject_id"].duplicated(), "subject_id"].unique())
    if repeated:
        raise DatasetError(
            f"{key}: {len(repeated)} patient(s) are in more than one split: {', '.join(repeated[:10])}; expected "
            "one. Mend the split table of the report source."
        )


def assert_splits_filled(before: Iterable[str], left: Iterable[str], splits: Iterable[str], *, key: str, what: str) -> None:
    """Prove that no split has lost everything to what could not be read.

    Args:
        before: the split of each record that was listed.
        left: the split of each record that is left.
        splits: those that must have a record.
        key: the source's section of the configuration, for the message.
        what: what a record is, for the message.

    Raises:
        DatasetError: names the first split without a record.
    """
    listed = Counter(before)
    for split in sorted(set(splits) - set(left)):
        raise DatasetError(
            f"{key}: no {what} of split {split} is left of {listed[split]}; expected at least one. See quarantine.jsonl of "
            "the check and of the conversion for what could not be read, and mend or fetch it."
        )


def check_alike_ids(images: pd.DataFrame, problems: Problems, *, file: str, folder: Path) -> None:
    """Note ids whose PNGs would be one file where the file system takes names that look alike for the same.

    Args:
        images: column ``source_id``.
        problems: grows.
        file: root of the source, named in problems.
        folder: existing folder on the file system that the PNGs will be written to.
    """
    ids = images["source_id"]
    alike = ids.str.normalize("NFC").str.casefold().duplicated() & ~ids.duplicated()
    if not alike.any() or not folds_names(folder):
        return
    for source_id in ids[alike]:
        problems.add(
            "alike_image_id",
            file=file,
            record=f"image {source_id}",
            got="the id of an image before it, but for capitals or the coding of accents",
            expected=f"ids that are names of different files in {folder}",
            remedy="Rename one, or run on another file system.",
        )


def folds_names(folder: Path) -> bool:
    """Try whether two names that differ in capitals, or in the coding of an accent, are one file in a folder."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        for written, asked in (("a", "A"), ("\u00e9", "e\u0301")):
            (place / written).touch()
            if (place / asked).exists():
                return True
    return False
