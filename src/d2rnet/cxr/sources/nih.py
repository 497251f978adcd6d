"""Labelled source ``nih``: boxes over NIH ChestX-ray14 images, an open data set.

Reads the tables of ``cxr.data.labelled.box_tables`` (none given: ``BBox_List_2017.csv``), each in one of two layouts told
apart by its header, and the names of the image files anywhere below the root:

* ``BBox_List_2017.csv``: ``Image Index,Finding Label,Bbox [x,y,w,h],,,`` with unquoted commas; xywh, fractional;
* the VinDr-CXR layout with ``rad_id``, for instance NIH's and RSNA's boxes side by side.

Corners are pixels of the 1024 x 1024 PNG that NIH ships. The boxes mark some findings of an image and not all, so that an
image without a box is not a labelled normal: it is left out.
Source: Wang et al., CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC; Shih et al., Radiology: AI 2019 (RSNA).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from d2rnet.cxr.sources.box_tables import CORNERS, BoxRows, parse_box_rows, parse_numbers, read_box_table
from d2rnet.cxr.sources.labelled_images import find_images, image_table, read_size_table, required_size_table
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import LabelledTable
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import csv_columns, read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.findings.classes import CATEGORY_IDS, NIH_TO_CATEGORY

TERMS = "free use with a link to the NIH download site and a citation"
RELEASE_COUNTS: Mapping[str, int] = {}
DEFAULT_TABLE = "BBox_List_2017.csv"
FRAME_PX = 1024  # both sides of the PNG files as NIH ships them, which the boxes refer to
SAME_BOX_PX = 0.5  # corners that differ by less come from one box, printed with more or fewer digits
_LIST_COLUMNS = ("Image Index", "Finding Label", "Bbox [x,y,w,h]")
_READER_COLUMNS = ("image_id", "rad_id", "class_name", *CORNERS)
_CATEGORIES = {name: CATEGORY_IDS[ours] for name, ours in NIH_TO_CATEGORY.items()}


def required_files(settings: LabelledSettings) -> list[RequiredFile]:
    """List the box tables, the image root, and the size table if configured."""
    tables = [RequiredFile(path, "cxr.data.labelled.box_tables", "NIH or RSNA boxes") for path in _tables(settings)]
    images = RequiredFile(Path(settings.root), "cxr.data.labelled.root", "NIH ChestX-ray14 images")
    return [images, *tables, *required_size_table(settings)]


def read_table(settings: LabelledSettings, problems: Problems) -> LabelledTable:
    """Read the boxed images that are present; see :mod:`d2rnet.cxr.sources.tables`.

    The split is "", ``subject_id`` NIH's patient.

    Raises:
        FileNotFoundError: a box table is missing.
        DatasetError: a table has neither layout, or none of its images is below the root.
    """
    root = Path(settings.root)
    parts = [_read_box_table(path, problems) for path in _tables(settings)]
    counts = Counter[str]()
    for part in parts:
        counts.update(part.counts)
    boxes = _drop_repeated(pd.concat([part.boxes for part in parts], ignore_index=True), counts)
    looked = pd.concat([part.looked for part in parts]).drop_duplicates()
    files = find_images(root, problems=problems, recursive=True, wanted=looked["source_id"])
    present = boxes["source_id"].isin(list(files))
    counts["boxes_of_absent_images"] = int((~present).sum())
    counts["absent_images"] = boxes.loc[~present, "source_id"].nunique()
    boxes = boxes[present].reset_index(drop=True)
    counts["unboxed_images_left_out"] = len(set(files) - set(boxes["source_id"]))
    if boxes.empty:
        names = ", ".join(path.name for path in _tables(settings))
        raise DatasetError(
            f"{root}: none of the {counts['absent_images']} boxed images of {names} is below this folder. "
            "Set cxr.data.labelled.root to the folder that holds the NIH images."
        )
    readers = looked.groupby("source_id")["reader_id"].nunique()
    readers = {source_id: int(readers[source_id]) for source_id in boxes["source_id"].unique()}
    sizes = read_size_table(settings, problems) or dict.fromkeys(readers, (FRAME_PX, FRAME_PX))
    images = image_table(readers, split="", files=files, folder=root, sizes=sizes, problems=problems)
    images["subject_id"] = images["source_id"].str.partition("_")[0]  # 00013118_008: patient 13118, image 8
    return LabelledTable(images, boxes, counts)


def _tables(settings: LabelledSettings) -> list[Path]:
    return [Path(settings.root) / name for name in settings.box_tables or [DEFAULT_TABLE]]


def _read_box_table(path: Path, problems: Problems) -> BoxRows:
    columns = csv_columns(path)
    if set(_READER_COLUMNS) <= set(columns):
        return read_box_table(path, categories=_CATEGORIES, image_labels=frozenset(), has_readers=True, problems=problems)
    if columns[:3] == list(_LIST_COLUMNS) and len(columns) >= 6:
        return _read_bbox_list(path, columns, problems)
    raise DatasetError(
        f"{path}: columns found: {', '.join(columns)}; expected {', '.join(_READER_COLUMNS)}, or NIH's header "
        f"'{','.join(_LIST_COLUMNS)},,,'. Name another table in cxr.data.labelled.box_tables."
    )


def _read_bbox_list(path: Path, columns: list[str], problems: Problems) -> BoxRows:
    """Read NIH's own list as the rows of a reader "NIH"; x, y, w, h are its third to sixth columns, whatever their names."""
    table = read_table_csv(path, columns[:6])
    table.columns = pd.Index(["source_id", "class_name", *CORNERS])
    numbers = parse_numbers(table[CORNERS])
    numbers["x_max"] += numbers["x_min"]
    numbers["y_max"] += numbers["y_min"]
    source_ids = table["source_id"].str.replace(r"\.png$", "", regex=True, case=False)
    table = table.assign(source_id=source_ids, reader_id="NIH", **numbers)
    return parse_box_rows(table, path, categories=_CATEGORIES, image_labels=frozenset(), problems=problems)


def _drop_repeated(boxes: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """Drop a reader's boxes that an earlier table has too (NIH's list and a rounded copy of it), and count them."""
    numbered = boxes.assign(row=boxes.index, table=boxes["origin"].str.partition(":")[0])
    pairs = numbered.merge(numbered, on=["source_id", "reader_id", "category_id"], suffixes=("", "_other"))
    pairs = pairs[(pairs["row"] < pairs["row_other"]) & (pairs["table"] != pairs["table_other"])]
    distance = np.abs(pairs[CORNERS].to_numpy() - pairs[[f"{name}_other" for name in CORNERS]].to_numpy()).max(
        axis=1, initial=0.0
    )
    repeated = pairs.loc[distance < SAME_BOX_PX, "row_other"].unique()
    counts["boxes_repeated_in_another_table"] = len(repeated)
    return boxes.drop(index=repeated).reset_index(drop=True)
