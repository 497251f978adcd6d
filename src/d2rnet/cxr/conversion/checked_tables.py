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
from collections.abc import Container
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.sources.tables import CONTEXT_COLUMNS, REPORT_COLUMNS, LabelledTable
from d2rnet.files.checked_tables import HASHES, NUMBER, TEXT, WHOLE, Columns, write_table

IMAGE_FOLDER = "unlabelled_images"
LABELLED_IMAGES: Columns = {
    "source": TEXT,
    "file_name": TEXT,
    "source_id": TEXT,
    "split": TEXT,
    "subject_id": TEXT,
    "source_height": WHOLE,
    "source_width": WHOLE,
    "n_readers": WHOLE,
}
LABELLED_BOXES: Columns = {
    "source_id": TEXT,
    "reader_id": TEXT,
    "category_id": WHOLE,
    "x_min": NUMBER,
    "y_min": NUMBER,
    "x_max": NUMBER,
    "y_max": NUMBER,
    "origin": TEXT,
}
UNLABELLED_IMAGES: Columns = {
    "source": TEXT,
    "file_name": TEXT,
    "source_id": TEXT,
    "source_path": (str, NoneType),  # relative to the root of the reports; None for an image without a report source
    "study_id": TEXT,
    "subject_id": TEXT,
    "view": TEXT,
    "split": TEXT,
    "source_height": WHOLE,
    "source_width": WHOLE,
}
REPORTS: Columns = dict.fromkeys(REPORT_COLUMNS, TEXT)
REPORTS_WITH_CONTEXT: Columns = dict.fromkeys((*REPORT_COLUMNS, *CONTEXT_COLUMNS), TEXT)


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
        "images": write_table(output / "labelled_images.jsonl", images, LABELLED_IMAGES),
        "boxes": write_table(output / "labelled_boxes.jsonl", table.boxes, LABELLED_BOXES),
    }
    counts = {"source": dict(table.counts), "images_in": len(table.images), "images_quarantined": quarantined}
    return {HASHES: hashes, **counts}


def write_unlabelled(output: Path, images: pd.DataFrame, reports: pd.DataFrame, bad: Container[str]) -> dict[str, Any]:
    """Write the images of the report source and of the extra folders, and the reports.

    Args:
        output: folder of the tables.
        images: columns ``file``, path to open, and those of UNLABELLED_IMAGES but the first two.
        reports: columns of REPORTS, or of REPORTS_WITH_CONTEXT.
        bad: absolute paths of files that cannot be read; their images are left out.

    Returns:
        What to say of them in counts.json: hashes and counts.
    """
    images, quarantined = _without(bad, images.rename(columns={"file": "source"}))
    images = images.assign(file_name=images["source_id"].map(unlabelled_file_name))
    columns = REPORTS_WITH_CONTEXT if set(CONTEXT_COLUMNS) <= set(reports.columns) else REPORTS
    hashes = {
        "images": write_table(output / "unlabelled_images.jsonl", images, UNLABELLED_IMAGES),
        "reports": write_table(output / "reports.jsonl", reports, columns),
    }
    return {HASHES: hashes, "images_quarantined": quarantined}


def _without(bad: Container[str], images: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the images whose file is not bad, and the number of the others."""
    is_bad = np.array([os.path.abspath(file) in bad for file in images["source"]], dtype=bool)  # noqa: PTH100 - links stay
    return images[~is_bad], int(is_bad.sum())
