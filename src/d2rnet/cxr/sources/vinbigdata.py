"""Labelled source ``vinbigdata``: the Kaggle version of VinDr-CXR, 14 classes, three readers per image.

Reads ``train.csv`` and the names of the files in ``train/`` (DICOM, or re-encoded PNG/JPG with
``cxr.data.labelled.size_table``).
Kaggle's test images have no public boxes, so that the source has no official split: it gets a seeded 70/10/20.
Classes are matched by name; ``class_id`` is Kaggle's own numbering and is not used.
Source: https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection.
"""

from collections.abc import Mapping
from pathlib import Path

from d2rnet.cxr.sources.box_tables import read_box_table
from d2rnet.cxr.sources.labelled_images import find_images, image_table, read_size_table, required_size_table
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import LabelledTable
from d2rnet.cxr.sources.vindr import warn_of_missing_sizes
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.findings.classes import CATEGORY_IDS, VINBIGDATA_NAMES

TERMS = "rules of the Kaggle challenge; not for commercial use"
RELEASE_COUNTS: Mapping[str, int] = {"rows_in": 67_914}
_COLUMNS = ("image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max")


def required_files(settings: LabelledSettings) -> list[RequiredFile]:
    """List ``train.csv``, the folder of the images, and the size table if configured."""
    root = Path(settings.root)
    return [
        RequiredFile(root / "train.csv", "cxr.data.labelled.root", "VinBigData boxes", _COLUMNS),
        RequiredFile(root / "train", "cxr.data.labelled.root", "VinBigData images"),
        *required_size_table(settings),
    ]


def read_table(settings: LabelledSettings, problems: Problems) -> LabelledTable:
    """Read the boxes of every reader; see :mod:`d2rnet.cxr.sources.tables`.

    Raises:
        FileNotFoundError: ``train.csv`` is missing.
        DatasetError: it is empty or lacks a column.
    """
    root = Path(settings.root)
    sizes = read_size_table(settings, problems)
    rows = read_box_table(
        root / "train.csv",
        categories={name: CATEGORY_IDS[name] for name in VINBIGDATA_NAMES},
        image_labels=frozenset(),
        has_readers=True,
        problems=problems,
    )
    readers = rows.looked.groupby("source_id")["reader_id"].nunique().to_dict()
    files = find_images(root / "train", problems=problems)
    images = image_table(readers, split="", files=files, folder=root / "train", sizes=sizes, problems=problems)
    rows.counts["files_without_rows"] = len(set(files) - set(readers))
    warn_of_missing_sizes(images, sizes)
    return LabelledTable(images, rows.boxes, rows.counts)
