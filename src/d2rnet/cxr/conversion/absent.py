"""A part of a data set: images that its tables list and the disk lacks, taken out and counted by folder.

Used by verify_inputs where a source's ``require_all`` is false; nothing is written.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from d2rnet.cxr.sources.tables import LabelledTable, ReportTable
from d2rnet.errors import DatasetError

SHOWN_FOLDERS = 20
MISSING = "missing"  # reason of an unreadable report that is not there


def take_present(table: LabelledTable | ReportTable, root: str) -> LabelledTable | ReportTable:
    """Return a source's table without the images and reports that are not there; its counts grow by what is gone.

    Args:
        table: what the source's module read.
        root: of the source; paths of a report source are relative to it.

    Raises:
        DatasetError: not one image is there.
    """
    files = [f"{root}/{path}" if isinstance(table, ReportTable) else path for path in table.images["path"]]
    present = [os.path.exists(file) for file in files]  # noqa: PTH110 - 377,110 of them
    absent = [file for file, is_there in zip(files, present, strict=True) if not is_there]
    if files and len(absent) == len(files):
        raise DatasetError(f"{absent[0]}: no such file, and none of the other {len(files) - 1}. Set the root of this source.")
    counts = table.counts.copy()
    counts["images_not_there"] = len(absent)
    counts.update({f"images_not_there_below_{folder}": number for folder, number in absent_folders(absent, root).items()})
    images = table.images[present].reset_index(drop=True)
    if isinstance(table, LabelledTable):
        boxes = table.boxes[table.boxes["source_id"].isin(images["source_id"])].reset_index(drop=True)
        counts["boxes_of_images_not_there"] = len(table.boxes) - len(boxes)
        return replace(table, images=images, boxes=boxes, counts=counts)
    reports = table.reports[table.reports["study_id"].isin(images["study_id"])].reset_index(drop=True)
    unreadable = [record for record in table.unreadable_reports if record["reason"] != MISSING]
    counts["reports_of_studies_not_there"] = len(table.reports) - len(reports)
    counts["reports_not_there"] = len(table.unreadable_reports) - len(unreadable)
    return replace(table, images=images, reports=reports, counts=counts, unreadable_reports=unreadable)


def absent_folders(files: Iterable[str], root: str) -> dict[str, int]:
    """Count missing files by the topmost folder that is missing too, else by the one that they should lie in.

    Folders are relative to root; where there are more than SHOWN_FOLDERS, they are counted by the folder above, and so on.
    """
    exists: dict[str, bool] = {}
    found = Counter[str]()
    for file in files:
        folder = os.path.dirname(file)  # noqa: PTH120
        below = Path(folder).relative_to(root) if Path(folder).is_relative_to(root) else Path(folder)
        place = root
        for part in below.parts:
            place = os.path.join(place, part)  # noqa: PTH118
            if not exists.setdefault(place, os.path.isdir(place)):  # noqa: PTH112
                break
        found[os.path.relpath(place, root)] += 1
    while len(found) > SHOWN_FOLDERS and any(len(Path(folder).parts) > 1 for folder in found):
        above = Counter[str]()
        deepest = max(len(Path(folder).parts) for folder in found)
        for folder, number in found.items():
            parts = Path(folder).parts
            above[str(Path(*parts[:-1])) if len(parts) == deepest else folder] += number
        found = above
    return dict(sorted(found.items()))
