"""Labelled source ``vindr``: VinDr-CXR 1.0.0 in the PhysioNet layout, or a copy of it re-encoded to PNG or JPG.

Reads ``annotations/annotations_{train,test}.csv`` (also looked for at the root), ``image_labels_{train,test}.csv`` beside them
where they are there, and the names of the files in ``train/`` and ``test/``. The training split has the boxes of three
readers per image; the test split has one consensus and stays the test split.
Source: Nguyen et al., Sci Data 2022, https://physionet.org/content/vindr-cxr/1.0.0/.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from d2rnet.cxr.sources.box_tables import BoxRows, read_box_table
from d2rnet.cxr.sources.labelled_images import (
    RASTER_SUFFIXES,
    Sizes,
    find_images,
    image_table,
    keep_safe_ids,
    read_size_table,
    required_size_table,
)
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import LabelledTable
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.findings.classes import CATEGORY_IDS

log = logging.getLogger(__name__)

TERMS = "PhysioNet Credentialed Health Data License 1.5.0: no sharing with others"
RELEASE_COUNTS: Mapping[str, int] = {"train_images_in_tables": 15_000, "test_images_in_tables": 3_000}  # VinDr-CXR 1.0.0
SPLITS = ("train", "test")
# Labels of the whole image, named as in image_labels_{train,test}.csv; the two tables spell the first one differently.
IMAGE_LABELS = frozenset({"Other diseases", "Other disease", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"})
_BOX_COLUMNS = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")


def required_files(settings: LabelledSettings) -> list[RequiredFile]:
    """List the image folders and box tables of both splits, and the size table if configured."""
    root = Path(settings.root)
    files = []
    for split in SPLITS:
        columns = (*_BOX_COLUMNS, "rad_id") if split == "train" else _BOX_COLUMNS
        files.append(RequiredFile(root / split, "cxr.data.labelled.root", f"VinDr-CXR {split} images"))
        files.append(
            RequiredFile(
                _table(root, f"annotations_{split}.csv"), "cxr.data.labelled.root", f"VinDr-CXR {split} boxes", columns
            )
        )
    return files + required_size_table(settings)


def read_table(settings: LabelledSettings, problems: Problems) -> LabelledTable:
    """Read both splits; see :mod:`d2rnet.cxr.sources.tables`.

    Raises:
        FileNotFoundError: a box table is missing.
        DatasetError: a box table is empty or lacks a column.
    """
    root = Path(settings.root)
    sizes = read_size_table(settings, problems)
    images = []
    boxes = []
    counts = Counter[str]()
    for split in SPLITS:
        rows = read_box_table(
            _table(root, f"annotations_{split}.csv"),
            categories=CATEGORY_IDS,
            image_labels=IMAGE_LABELS,
            has_readers=split == "train",
            problems=problems,
        )
        images.append(_images(root, split, rows, sizes, counts, problems))
        boxes.append(rows.boxes)
        counts.update({f"{split}_{name}": value for name, value in rows.counts.items()})
    _note_shared_ids(*images, root=root, problems=problems)
    table = pd.concat(images, ignore_index=True)
    warn_of_missing_sizes(table, sizes)
    return LabelledTable(table, pd.concat(boxes, ignore_index=True), counts)


def warn_of_missing_sizes(images: pd.DataFrame, sizes: Sizes | None) -> None:
    """Warn that PNG and JPG copies without a size table are taken to have the size of the original radiographs."""
    copies = int(images["path"].str.lower().str.endswith(RASTER_SUFFIXES).sum())
    if copies and sizes is None:
        log.warning(
            "%d image(s) are PNG or JPG and cxr.data.labelled.size_table is not set: they are taken to have the size of the "
            "original DICOM, whose pixels the boxes are in. If the copies were resized, give the table.",
            copies,
        )


def _table(root: Path, name: str) -> Path:
    """Return the path of a table: in ``annotations``, or at the root, as some copies have it."""
    at_root = root / name
    return at_root if at_root.is_file() and not (root / "annotations" / name).is_file() else root / "annotations" / name


def _images(
    root: Path, split: str, rows: BoxRows, sizes: Sizes | None, counts: Counter[str], problems: Problems
) -> pd.DataFrame:
    looked = pd.concat([rows.looked, _looked_in_image_labels(root, split, problems)]).drop_duplicates()
    if split == "train":
        readers = looked.groupby("source_id")["reader_id"].nunique().to_dict()
    else:
        readers = dict.fromkeys(looked["source_id"], 0)  # a consensus has no readers of its own
    files = find_images(root / split, problems=problems)
    counts[f"{split}_images_in_tables"] = len(readers)
    counts[f"{split}_files_without_rows"] = len(set(files) - set(readers))
    return image_table(readers, split=split, files=files, folder=root / split, sizes=sizes, problems=problems)


def _looked_in_image_labels(root: Path, split: str, problems: Problems) -> pd.DataFrame:
    """Read who looked at which image: images without any box may be named in this table alone."""
    path = _table(root, f"image_labels_{split}.csv")
    if not path.is_file():
        return pd.DataFrame({"source_id": [], "reader_id": []}, dtype=str)
    table = read_table_csv(path, ["image_id", *(["rad_id"] if split == "train" else [])])
    table = table.rename(columns={"image_id": "source_id", "rad_id": "reader_id"})
    if split == "test":
        table["reader_id"] = ""
    for (source_id, reader_id), rows in table[table.duplicated(keep=False)].groupby(["source_id", "reader_id"]):
        problems.add(
            "duplicate_image_id",
            file=path,
            record=f"image {source_id}",
            got=f"{len(rows)} rows of reader '{reader_id}'",
            expected="one row",
            remedy="Remove all but one.",
        )
    return keep_safe_ids(table, file=path, problems=problems)


def _note_shared_ids(train: pd.DataFrame, test: pd.DataFrame, *, root: Path, problems: Problems) -> None:
    for source_id in sorted(set(train["source_id"]) & set(test["source_id"])):
        problems.add(
            "id_in_train_and_test",
            file=root,
            record=f"image {source_id}",
            got="rows in annotations of train and of test",
            expected="one split",
            remedy="Remove it from the training table.",
        )
