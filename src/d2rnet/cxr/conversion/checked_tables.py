"""The tables that verify_inputs has checked: written once, read by the converters in place of the sources' own.

So no later job parses a source's tables or opens a report. verify_inputs writes, one object per line:

* ``labelled_images.jsonl``, ``unlabelled_images.jsonl``: the images to convert, without those left out. ``source`` is the
  file, ``file_name`` its PNG, relative to the folder of the COCO json that will name it: all that convert-images-shard reads;
* ``labelled_boxes.jsonl``: the boxes of the readers, in the frame of the source;
* ``reports.jsonl``: the wanted section of each study;

and ``counts.json``: what was counted on the way, by part (``labelled``, ``unlabelled``).
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
from d2rnet.files.limits import MAX_COORDINATE

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
        What to say of them in counts.json.
    """
    images, quarantined = _without(bad, table.images.rename(columns={"path": "source"}))
    _write(
        output / "labelled_images.jsonl", images.assign(file_name=images["source_id"].map(labelled_file_name)), LABELLED_IMAGES
    )
    _write(output / "labelled_boxes.jsonl", table.boxes, LABELLED_BOXES)
    return {"source": dict(table.counts), "images_in": len(table.images), "images_quarantined": quarantined}


def write_unlabelled(output: Path, images: pd.DataFrame, reports: pd.DataFrame, bad: Container[str]) -> dict[str, int]:
    """Write the images of the report source and of the extra folders, and the reports.

    Args:
        output: folder of the tables.
        images: columns ``file``, path to open, and those of UNLABELLED_IMAGES but the first two.
        reports: columns of REPORTS.
        bad: absolute paths of files that cannot be read; their images are left out.

    Returns:
        What to say of them in counts.json.
    """
    images, quarantined = _without(bad, images.rename(columns={"file": "source"}))
    images = images.assign(file_name=images["source_id"].map(unlabelled_file_name))
    _write(output / "unlabelled_images.jsonl", images, UNLABELLED_IMAGES)
    _write(output / "reports.jsonl", reports, REPORTS)
    return {"images_quarantined": quarantined}


def _without(bad: Container[str], images: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the images whose file is not bad, and the number of the others."""
    is_bad = np.array([os.path.abspath(file) in bad for file in images["source"]], dtype=bool)  # noqa: PTH100 - links stay
    return images[~is_bad], int(is_bad.sum())


def _write(target: Path, table: pd.DataFrame, columns: Columns) -> None:
    rows = table[list(columns)].itertuples(index=False, name=None)
    write_jsonl(target, (dict(zip(columns, row, strict=True)) for row in rows))


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


def read_counts(path: Path, part: str) -> dict[str, Any]:
    """Read what verify_inputs counted in a part, ``labelled`` or ``unlabelled``.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it does not hold the part.
    """
    counts = read_json(path)
    if not isinstance(counts, dict) or not isinstance(counts.get(part), dict):
        raise DatasetError(f"{path}: no object under '{part}'; expected counts.json of verify-inputs. Run it again.")
    return dict(counts[part])
