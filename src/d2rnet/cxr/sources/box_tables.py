"""Box tables in the VinDr-CXR layout, and the checks of corners that every source's boxes pass.

Row layout: ``image_id,[rad_id,]class_name,x_min,y_min,x_max,y_max``, corners in pixels of the original radiograph; a row
without coordinates says that a reader looked at the image (class "No finding", or a label of the whole image).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.sources.labelled_images import keep_safe_ids
from d2rnet.cxr.sources.tables import BOX_COLUMNS
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import suggest_category

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
BOX_DTYPES = {"category_id": "int64", **dict.fromkeys(CORNERS, "float64")}
NO_FINDING = "No finding"
MEND_ROW = "Mend or remove the row."


@dataclass
class BoxRows:
    """A parsed box table.

    Attributes:
        boxes: one row a valid box, columns BOX_COLUMNS.
        looked: one row for each distinct ``source_id`` and ``reader_id`` of the table, with or without a box.
        counts: rows in, exact duplicates, rows without a box, boxes kept.
    """

    boxes: pd.DataFrame
    looked: pd.DataFrame
    counts: Counter[str]


def read_box_table(
    path: Path,
    *,
    categories: Mapping[str, int],
    image_labels: frozenset[str],
    has_readers: bool,
    problems: Problems,
) -> BoxRows:
    """Read a table in the VinDr-CXR layout; what is wrong with a row goes into ``problems`` and the row is left out.

    Args:
        path: CSV file.
        categories: class names that may have a box -> category id.
        image_labels: class names that stand for the whole image and have no box, besides "No finding".
        has_readers: whether there is a column ``rad_id``; without one the table is a consensus, ``reader_id`` "".
        problems: grows.

    Raises:
        DatasetError: the table is empty or lacks a column.
    """
    table = read_table_csv(path, ["image_id", *(["rad_id"] if has_readers else []), "class_name", *CORNERS])
    table = table.rename(columns={"image_id": "source_id", "rad_id": "reader_id"})
    if has_readers:
        table["origin"] = row_origins(path, table)
        _note(table[table["reader_id"] == ""], "empty_reader", path, problems, column="reader_id", expected="a reader's name")
    else:
        table["reader_id"] = ""
    return parse_box_rows(table, path, categories=categories, image_labels=image_labels, problems=problems)


def row_origins(path: Path, table: pd.DataFrame) -> list[str]:
    """Return "file.csv:row 1", "file.csv:row 2", ... for the rows of a table as read from a file."""
    return [f"{path.name}:row {number}" for number in range(1, len(table) + 1)]


def parse_box_rows(
    table: pd.DataFrame, path: Path, *, categories: Mapping[str, int], image_labels: frozenset[str], problems: Problems
) -> BoxRows:
    """Parse rows ``source_id, reader_id, class_name`` and four corners (text or numbers); see :func:`read_box_table`."""
    table = table.assign(origin=row_origins(path, table))
    repeated = table.drop(columns="origin").duplicated()
    counts = Counter({"rows_in": len(table), "exact_duplicate_rows": int(repeated.sum())})
    table = keep_safe_ids(table[~repeated], file=path, problems=problems)
    has_box = (table[CORNERS] != "").any(axis=1)
    local = table["class_name"].isin(list(categories))
    whole_image = table["class_name"].isin([NO_FINDING, *image_labels])
    for row in table[~local & ~whole_image].itertuples():
        problems.add(
            "unknown_class",
            file=path,
            record=record_name(row),
            got=repr(row.class_name),
            expected="a class of this source",
            remedy=suggest_category(str(row.class_name), tuple(categories)),
        )
    misplaced = table[whole_image & has_box]
    _note(misplaced, "box_of_whole_image_label", path, problems, column="class_name", expected="no coordinates in such a row")
    counts["rows_without_box"] = int((whole_image & ~has_box).sum())
    rows = table[local]
    parsed = rows.assign(category_id=rows["class_name"].map(dict(categories)), **parse_numbers(rows[CORNERS]))
    boxes = parsed[list(BOX_COLUMNS)].astype(BOX_DTYPES)
    boxes = keep_valid_corners(boxes, file=path, problems=problems, written=rows)
    counts["boxes_kept"] = len(boxes)
    looked = table[["source_id", "reader_id"]].drop_duplicates(ignore_index=True)
    return BoxRows(boxes, looked, counts)


def _note(rows: pd.DataFrame, kind: str, path: Path, problems: Problems, *, column: str, expected: str) -> None:
    for row in rows.itertuples():
        got = repr(getattr(row, column))
        problems.add(kind, file=path, record=record_name(row), got=got, expected=expected, remedy=MEND_ROW)


def record_name(row: Any) -> str:
    """Name a box's row or annotation and its image: "row 17 (image abc)"."""
    return f"{row.origin.partition(':')[2]} (image {row.source_id})"


def parse_numbers(cells: pd.DataFrame) -> pd.DataFrame:
    """Turn text cells into float64; whatever is not a number becomes NaN."""
    return cells.apply(pd.to_numeric, errors="coerce").astype("float64")


def keep_valid_corners(
    boxes: pd.DataFrame, *, file: str | Path, problems: Problems, written: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the boxes whose corners are finite, in order and apart; note a problem for each other.

    Whether they lie in their image is the matter of :mod:`d2rnet.cxr.conversion.box_limits`, which knows its size.

    Args:
        boxes: columns BOX_COLUMNS.
        file: file named in the problems.
        problems: grows.
        written: the same rows as they stand in the file, for the message.
    """
    x_min, y_min, x_max, y_max = (boxes[name].to_numpy() for name in CORNERS)
    finite = np.isfinite(boxes[CORNERS].to_numpy()).all(axis=1)
    swapped = finite & ((x_max < x_min) | (y_max < y_min))
    flat = finite & ~swapped & ((x_max == x_min) | (y_max == y_min))
    expected = {
        "not_a_number": (~finite, "four finite numbers"),
        "swapped_corners": (swapped, "x_min < x_max and y_min < y_max"),
        "zero_area": (flat, "a box with an area"),
    }
    for kind, (wrong, wish) in expected.items():
        shown = (boxes if written is None else written)[wrong]
        for row in shown.itertuples():
            values = [getattr(row, name) for name in CORNERS]
            got = ", ".join(
                f"{name} {'(empty)' if value == '' else value}" for name, value in zip(CORNERS, values, strict=True)
            )
            problems.add(kind, file=file, record=record_name(row), got=got, expected=wish, remedy=MEND_ROW)
    return boxes[finite & ~swapped & ~flat].reset_index(drop=True)
