"""What a source needs to be there before it is read: files, folders, and columns of tables."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import csv_columns
from d2rnet.files.problems import Problems

TABLE_SUFFIXES = (".csv", ".csv.gz")


@dataclass(frozen=True)
class RequiredFile:
    """A file or folder that a source needs."""

    path: Path
    config_key: str  # dotted key that led here, such as "cxr.data.labelled.root"
    what: str  # such as "VinDr-CXR training boxes"
    columns: tuple[str, ...] = ()  # columns a CSV must have; () for folders and other files


def check_required_files(files: Iterable[RequiredFile], problems: Problems) -> None:
    """Note files that are missing, tables that cannot be read and columns that a table lacks."""
    for needed in files:
        if not needed.path.exists():
            problems.add(
                "missing_file",
                file=needed.path,
                record=needed.config_key,
                got="no such file or folder",
                expected=needed.what,
                remedy=f"Set {needed.config_key}, or put the file there.",
            )
        elif needed.columns and needed.path.name.endswith(TABLE_SUFFIXES):
            _check_columns(needed, problems)


def _check_columns(needed: RequiredFile, problems: Problems) -> None:
    try:
        found = csv_columns(needed.path)
    except DatasetError as error:
        problems.add(
            "unreadable_table",
            file=needed.path,
            record=needed.config_key,
            got=str(error),
            expected=needed.what,
            remedy="Mend the table.",
        )
        return
    for column in needed.columns:
        if column not in found:
            close = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
            problems.add(
                "missing_column",
                file=needed.path,
                record="header",
                got=", ".join(found),
                expected=f"a column '{column}'" + (f" (closest: '{close[0]}')" if close else ""),
                remedy="Rename the column or take the original file.",
            )


def unlike_release(published: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, str]:
    """Compare counts with those of the full release; return the ones that differ as "got of published".

    A subset is a legitimate input, so that this is for the log and for summary.json, not a problem.
    """
    return {name: f"{counts.get(name, 0)} of {full}" for name, full in published.items() if counts.get(name, 0) != full}
