"""Tables that one rule has checked and others read: JSON lines of stated columns, and the hashes that prove them unchanged.

The checking rule writes each table and, last, ``counts.json``: by part what was counted on the way, the settings of the check
and the hashes of its tables. Who reads takes no other tables: what was edited after the check, is left of an earlier one, or
was checked with other settings, has not been checked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.errors import DatasetError
from d2rnet.files.comparison import differences, first_few
from d2rnet.files.documents import read_json, read_jsonl, write_jsonl
from d2rnet.files.hashes import HashedFile, sha256_file
from d2rnet.files.limits import MAX_COORDINATE

COUNTS = "counts.json"
HASHES = "sha256"  # keys in each part of counts.json: of the hashes
SETTINGS = "settings"  # and of the settings
Columns = Mapping[str, tuple[type, ...]]
TEXT = (str,)
WHOLE = (int,)
NUMBER = (float, int)


def write_table(target: Path, table: pd.DataFrame, columns: Columns) -> str:
    """Write a table; return its SHA-256."""
    rows = table[list(columns)].itertuples(index=False, name=None)
    write_jsonl(target, (dict(zip(columns, row, strict=True)) for row in rows))
    return sha256_file(target)


def read_table(path: Path, columns: Columns, *, command: str = "verify-inputs") -> pd.DataFrame:
    """Read a table that :func:`write_table` wrote.

    Args:
        path: the table.
        columns: column -> the types that a value may have; all of them must be there.
        command: the sub-command that checks and writes it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a line lacks a column or has a value of another type or beyond all bounds.
    """
    found: dict[str, list[object]] = {name: [] for name in columns}
    for number, record in enumerate(read_jsonl(path), start=1):
        for name, types in columns.items():
            value = record.get(name, ...)
            is_beyond = isinstance(value, int | float) and abs(value) > MAX_COORDINATE
            if type(value) not in types or is_beyond:
                got = "nothing" if value is ... else repr(value)[:80]
                wanted = " or ".join(kind.__name__ for kind in types)
                raise DatasetError(
                    f"{path}: line {number}: got {got} under '{name}'; expected {wanted}. Run 'd2rnet {command}' again."
                )
            found[name].append(value)
    table = pd.DataFrame(found, columns=list(columns))
    return table.astype(
        {name: "float64" for name, types in columns.items() if types == NUMBER}
        | {name: "int64" for name, types in columns.items() if types == WHOLE}
    )


def read_counts(
    path: Path, part: str, *, settings: Mapping[str, Any] | None = None, command: str = "verify-inputs", **tables: Path
) -> tuple[dict[str, Any], dict[str, HashedFile]]:
    """Read what the checking rule counted in a part, and prove that the tables are those that it checked.

    Args:
        path: counts.json.
        part: such as ``labelled``.
        settings: those of the part as JSON values, which the check must have been made with; None for a command that has none
            of them.
        command: the sub-command that checks and writes them, for messages.
        tables: the part's tables by name, such as ``images`` and ``boxes``.

    Returns:
        The counts, and file name -> table with its hash, for the run record.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it does not hold the part, was made with other settings, or a table is another one.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(part), dict):
        raise DatasetError(f"{path}: no object under '{part}'; expected counts.json of {command}. Run it again.")
    counts = dict(content[part])
    hashes = counts.pop(HASHES, None)
    checked_with = counts.pop(SETTINGS, None)
    if settings is not None and (differing := differences(checked_with, dict(settings))):
        raise DatasetError(
            f"{path}: {part}: {command} was run with other settings than these: {first_few(differing)}. Give the same "
            f"--settings, or run 'd2rnet {command}' again with these."
        )
    for name, table in tables.items():
        if not isinstance(hashes, dict) or name not in hashes:
            raise DatasetError(f"{path}: no hash of '{name}' under '{part}'; expected counts.json of {command}. Run it again.")
        if hashes[name] != sha256_file(table):
            raise DatasetError(
                f"{table}: is not the table that {command} checked when it wrote {path}. Change the source where "
                f"something should be otherwise, and run 'd2rnet {command}' again."
            )
    return counts, {table.name: HashedFile(table, hashes[name]) for name, table in tables.items()}


def count_of(counts: Mapping[str, Any], name: str, *, command: str = "verify-inputs") -> int:
    """Return one number of what :func:`read_counts` returned.

    Raises:
        DatasetError: it is not there, or no number of records.
    """
    value = counts.get(name)
    if type(value) is not int or value < 0:
        raise DatasetError(f"counts.json: got {value!r:.80} under '{name}'; expected a number. Run 'd2rnet {command}' again.")
    return value
