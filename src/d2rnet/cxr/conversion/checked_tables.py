"""The tables that verify_inputs has checked: written once, read by the converters in place of the sources' own.

So no later job parses a source's tables or opens a report. verify_inputs writes, one object per line:

* ``labelled_images.jsonl``, ``unlabelled_images.jsonl``: the images to convert, without those left out. ``source`` is the
  file, ``file_name`` its PNG, relative to the folder of the COCO json that will name it: all that convert-images-shard reads;
* ``labelled_boxes.jsonl``: the boxes of the readers, in the frame of the source;
* ``reports.jsonl``: the wanted section of each study;

and, last, ``counts.json``: by part (``labelled``, ``unlabelled``) what was counted on the way and the hashes of its tables. A
converter takes no other tables: what was edited after the check, or is left of an earlier one, has not been checked.
"""

import hashlib
import os
from collections.abc import Container, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.sources.tables import LabelledTable
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.files.limits import MAX_COORDINATE

COUNTS = "counts.json"
HASHES = "sha256"  # key of the hashes in each part of counts.json
IMAGE_FOLDER = "unlabelled_images"
Columns = Mapping[str, tuple[type, ...]]
_TEXT = (str,)
_WHOLE = (int,)
_NUMBER = (float, int)
LABELLED_IMAGES: Columns = {
    "source": _TEXT,
    "file_name": _TEXT,
    "source_id": _TEXT,
    "split": _TEXT,
    "subject_id": _TEXT,
    "source_height": _WHOLE,
    "source_width": _WHOLE,
    "n_readers": _WHOLE,
}
LABELLED_BOXES: Columns = {
    "source_id": _TEXT,
    "reader_id": _TEXT,
    "category_id": _WHOLE,
    "x_min": _NUMBER,
    "y_min": _NUMBER,
    "x_max": _NUMBER,
    "y_max": _NUMBER,
    "origin": _TEXT,
}
UNLABELLED_IMAGES: Columns = {
    "source": _TEXT,
    "file_name": _TEXT,
    "source_id": _TEXT,
    "source_path": (str, NoneType),  # relative to the root of the reports; None for an image without a report source
    "study_id": _TEXT,
    "subject_id": _TEXT,
    "view": _TEXT,
    "split": _TEXT,
    "source_height": _WHOLE,
    "source_width": _WHOLE,
}
REPORTS: Columns = dict.fromkeys(("study_id", "subject_id", "split", "section", "report"), _TEXT)


def labelled_file_name(source_id: str) -> str:
    """Return the PNG of a labelled image, relative to the folder of ``{train,val,test}.json``."""
    return f"images/{source_id}.png"


def unlabelled_file_name(source_id: str) -> str:
    """Return the PNG of an image of the report source, relative to the folder of ``unlabelled.json``.

    The images are spread over 256 folders by a hash of the id: file systems are slow with 377,110 files in one.
    """
    folder = hashlib.md5(source_id.encode(), usedforsecurity=False).hexdigest()[:2]
    return f"{IMAGE_FOLDER}/{folder}/{source_id}.png"


def write_labelled(output: Path, table: LabelledTable, bad: Container[str]) -> dict[str, Any]:
    """Write the images and boxes of the labelled source.

    Args:
        output: folder of the tables.
        table: what the source's module read.
        bad: absolute paths of files that cannot be read; their images are left out.

    Returns:
        What to say of them in counts.json: hashes and counts.
    """
    images, quarantined = _without(bad, table.images.rename(columns={"path": "source"}))
    images = images.assign(file_name=images["source_id"].map(labelled_file_name))
    hashes = {
        "images": _write(output / "labelled_images.jsonl", images, LABELLED_IMAGES),
        "boxes": _write(output / "labelled_boxes.jsonl", table.boxes, LABELLED_BOXES),
    }
    counts = {"source": dict(table.counts), "images_in": len(table.images), "images_quarantined": quarantined}
    return {HASHES: hashes, **counts}


def write_unlabelled(output: Path, images: pd.DataFrame, reports: pd.DataFrame, bad: Container[str]) -> dict[str, Any]:
    """Write the images of the report source and of the extra folders, and the reports.

    Args:
        output: folder of the tables.
        images: columns ``file``, path to open, and those of UNLABELLED_IMAGES but the first two.
        reports: columns of REPORTS.
        bad: absolute paths of files that cannot be read; their images are left out.

    Returns:
        What to say of them in counts.json: hashes and counts.
    """
    images, quarantined = _without(bad, images.rename(columns={"file": "source"}))
    images = images.assign(file_name=images["source_id"].map(unlabelled_file_name))
    hashes = {
        "images": _write(output / "unlabelled_images.jsonl", images, UNLABELLED_IMAGES),
        "reports": _write(output / "reports.jsonl", reports, REPORTS),
    }
    return {HASHES: hashes, "images_quarantined": quarantined}


def _without(bad: Container[str], images: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the images whose file is not bad, and the number of the others."""
    is_bad = np.array([os.path.abspath(file) in bad for file in images["source"]], dtype=bool)  # noqa: PTH100 - links stay
    return images[~is_bad], int(is_bad.sum())


def _write(target: Path, table: pd.DataFrame, columns: Columns) -> str:
    """Write a table; return its SHA-256."""
    rows = table[list(columns)].itertuples(index=False, name=None)
    write_jsonl(target, (dict(zip(columns, row, strict=True)) for row in rows))
    return sha256_file(target)


def read_table(path: Path, columns: Columns) -> pd.DataFrame:
    """Read a table that :func:`write_labelled` or :func:`write_unlabelled` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a line lacks a column or has a value of another type or beyond all bounds.
    """
    found: dict[str, list[object]] = {name: [] for name in columns}
    for number, record in enumerate(read_jsonl(path), start=1):
        for name, types in columns.items():
            value = record.get(name, ...)
            if type(value) not in types or (types[0] is not str and abs(value) > MAX_COORDINATE):
                got = "nothing" if value is ... else repr(value)[:80]
                wanted = " or ".join(kind.__name__ for kind in types)
                raise DatasetError(
                    f"{path}: line {number}: got {got} under '{name}'; expected {wanted}. Run 'd2rnet verify-inputs' again."
                )
            found[name].append(value)
    table = pd.DataFrame(found, columns=list(columns))
    return table.astype(
        {name: "float64" for name, types in columns.items() if types == _NUMBER}
        | {name: "int64" for name, types in columns.items() if types == _WHOLE}
    )


def read_counts(path: Path, part: str, **tables: Path) -> dict[str, Any]:
    """Read what verify_inputs counted in a part, and prove that the tables are those that it checked.

    Args:
        path: counts.json.
        part: ``labelled`` or ``unlabelled``.
        tables: the part's tables by name: ``images`` and ``boxes`` or ``reports``.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it does not hold the part, or a table is another one.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(part), dict):
        raise DatasetError(f"{path}: no object under '{part}'; expected counts.json of verify-inputs. Run it again.")
    counts = dict(content[part])
    hashes = counts.pop(HASHES, None)
    for name, table in tables.items():
        if not isinstance(hashes, dict) or name not in hashes:
            raise DatasetError(
                f"{path}: no hash of '{name}' under '{part}'; expected counts.json of verify-inputs. Run it again."
            )
        if hashes[name] != sha256_file(table):
            raise DatasetError(
                f"{table}: is not the table that verify-inputs checked when it wrote {path}. Change the source where "
                "something should be otherwise, and run 'd2rnet verify-inputs' again."
            )
    return counts
