"""Files of boxes that a person draws: a COCO json or a CSV table, and which image each box belongs to."""

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from d2rnet.cxr.boxes.coco import category_names, images_by_id, read_coco_structure
from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.reading.own_boxes import OwnBox
from d2rnet.reading.result import stem_of

log = logging.getLogger(__name__)
COLUMNS = ("image", "x", "y", "width", "height")  # of a CSV table; class and score may be there too
_CSV_REMEDY = "Write a line a box under the header image,x,y,width,height,class (class may be empty, score may follow)."


def read_boxes(path: str | Path) -> dict[str, list[OwnBox]]:
    """Read the boxes of a file: image as the file calls it -> its boxes; one without a box has an empty list.

    Args:
        path: COCO json, whose ``images`` have ``file_name`` and whose annotations may have a ``score``; else CSV with the
            columns ``image, x, y, width, height`` and, if wanted, ``class`` and ``score``.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: neither of both, or a box that is none; the message names file and record.
    """
    path = Path(path)
    check_regular_file(path)
    return _read_coco(path) if path.suffix.lower() == ".json" else _read_csv(path)


def _read_coco(path: Path) -> dict[str, list[OwnBox]]:
    coco = read_coco_structure(path)
    names = category_names(coco)
    images = images_by_id(coco)
    boxes: dict[str, list[OwnBox]] = {str(image["file_name"]): [] for image in coco["images"]}
    for record in coco["annotations"]:
        image = images[record["image_id"]]
        place = f"{path}: annotation {record['id']!r:.80}"
        bbox, score = record["bbox"], record.get("score", 1.0)
        if not isinstance(bbox, list) or type(score) not in (int, float):
            raise DatasetError(f"{place}: got bbox {bbox!r:.80}, score {score!r:.80}; expected four numbers, and one.")
        size = (image["height"], image["width"])
        label = str(names[record["category_id"]])
        boxes[str(image["file_name"])].append(OwnBox(tuple(bbox), label, score, place=place, image_hw=size))
    return boxes


def _read_csv(path: Path) -> dict[str, list[OwnBox]]:
    boxes: dict[str, list[OwnBox]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, restkey="", strict=True, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ())[:200]
                raise DatasetError(f"{path}: no column {', '.join(missing)}; found: {found or 'nothing'}. {_CSV_REMEDY}")
            for number, row in enumerate(rows, start=1):
                boxes.setdefault((row["image"] or "").strip(), []).append(_box_of_row(row, f"{path}: row {number}"))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a CSV table in UTF-8 ({error}). {_CSV_REMEDY}") from error
    return boxes


def _box_of_row(row: Mapping[str, Any], place: str) -> OwnBox:
    if "" in row or not row["image"]:
        raise DatasetError(f"{place}: got {'more fields than columns' if '' in row else 'no image'}. {_CSV_REMEDY}")
    try:
        x, y, width, height = (float(row[name]) for name in COLUMNS[1:])
        score = float(row.get("score") or 1.0)
    except (TypeError, ValueError) as error:
        got = ", ".join(str(row[name]) for name in COLUMNS[1:])
        raise DatasetError(f"{place}: got x, y, width, height {got:.100}; expected numbers. {_CSV_REMEDY}") from error
    return OwnBox((x, y, width, height), (row.get("class") or "").strip(), score, place=place)


def boxes_of_files(boxes: Mapping[str, Sequence[OwnBox]], files: Iterable[Path], *, source: Path) -> dict[Path, list[OwnBox]]:
    """Find the image that each box of a file belongs to.

    Args:
        boxes: of :func:`read_boxes`. The name of an image is the end of its path, with or without its suffix.
        files: the images that are read.
        source: file of the boxes, for complaints.

    Returns:
        Image -> its boxes; names that fit none of the images are logged.

    Raises:
        DatasetError: a name fits several images, or none of them fits any.
    """
    images = list(files)
    found: dict[Path, list[OwnBox]] = {}
    strangers = 0
    for name, own in boxes.items():
        fitting = _images_called(name, images)
        strangers += not fitting
        if len(fitting) > 1:
            raise DatasetError(
                f"{source}: image '{name:.80}' fits {fitting[0]} and {fitting[1]}; expected one. Write more of its path."
            )
        if fitting:
            found.setdefault(fitting[0], []).extend(own)
    if not found:
        raise DatasetError(
            f"{source}: none of its {len(boxes)} images is read, such as {next(iter(boxes), '')!r:.80}; expected file names "
            f"such as {images[0].name}."
        )
    if strangers:
        log.info("%s: %d of its %d images are not read", source, strangers, len(boxes))
    return found


def _images_called(name: str, images: Sequence[Path]) -> list[Path]:
    """Return the images whose path ends with a name; if there is none, those that do once suffixes are left out."""
    wanted = PurePosixPath(name.replace("\\", "/")).parts
    if not wanted:
        return []
    whole = [image for image in images if image.absolute().parts[-len(wanted) :] == wanted]
    stem = (*wanted[:-1], stem_of(Path(wanted[-1])))
    return whole or [image for image in images if (*image.absolute().parts[:-1], stem_of(image))[-len(wanted) :] == stem]


def boxes_of_study(files: Sequence[Path], of_files: Mapping[Path, Sequence[OwnBox]]) -> list[OwnBox]:
    """Return the boxes of all images of a study, each with the number of its image."""
    return [replace(box, image=image) for image, file in enumerate(files) for box in of_files.get(file, ())]
