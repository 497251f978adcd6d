"""COCO files: read with checks, write, compare.

Reads and writes ``{train,val,test}.json`` and ``unlabelled.json``: ``bbox`` is xywh in pixels of ``file_name``, the converted
PNG. Every stage reads these files, so neither pandas nor torch is needed here.
Format: Lin et al., ECCV 2014, https://cocodataset.org/#format-data.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.limits import MAX_COORDINATE, MAX_SIDE_PX
from d2rnet.files.names import is_path_below
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_IDS, coco_categories

Coco = dict[str, Any]
_NEEDED_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def category_names(coco: Coco) -> dict[int, str]:
    """Return category id -> name."""
    return {category["id"]: category["name"] for category in coco["categories"]}


def images_by_id(coco: Coco) -> dict[int, dict[str, Any]]:
    """Return image id -> image record."""
    return {image["id"]: image for image in coco["images"]}


def annotations_by_image(coco: Coco) -> dict[int, list[dict[str, Any]]]:
    """Return image id -> its annotations, for every image (a normal image has an empty list)."""
    grouped: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        grouped[annotation["image_id"]].append(annotation)
    return grouped


def write_coco(path: str | Path, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> None:
    """Write a COCO json with the 22 fixed categories, atomically and on one line."""
    document = {"images": list(images), "annotations": list(annotations), "categories": coco_categories()}
    write_json(path, document, indent=None)


def scored_box(number: int, image_id: int, label: str, score: float, xywh: Sequence[float]) -> dict[str, Any]:
    """Return a predicted box as an annotation: what COCO asks for, and its ``score``.

    Args:
        number: id of the annotation.
        image_id: of its image.
        label: class name.
        score: from 0 to 1.
        xywh: pixels of its image.
    """
    return {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[label],
        "bbox": list(xywh),
        "area": round(xywh[2] * xywh[3], 2),
        "iscrowd": 0,
        "segmentation": [],
        "score": score,
    }


def write_results(path: str | Path, scored: Sequence[Mapping[str, Any]]) -> None:
    """Write boxes of :func:`scored_box` as a COCO results list, atomically and on one line."""
    keys = ("image_id", "category_id", "bbox", "score")
    write_json(path, [{key: box[key] for key in keys} for box in scored], indent=None)


def load_coco(path: str | Path) -> Coco:
    """Read a COCO json of this package and check it.

    Args:
        path: json file whose ``file_name`` entries are relative to its folder.

    Returns:
        The document: ``images``, ``annotations``, ``categories``.

    Raises:
        DatasetError: not a COCO json; categories other than the 22 fixed ones; an id twice; an annotation of an unknown image
            or category; an image without a size in pixels or with a file name that leaves the folder; a box that is not four
            finite numbers with positive width and height. The first ten of each are named.
    """
    document = read_coco_structure(path)
    if category_names(document) != {index: name for name, index in CATEGORY_IDS.items()}:
        raise DatasetError(
            f"{path}: categories begin {list(category_names(document).items())[:5]}; expected the {len(CATEGORY_IDS)} fixed "
            "ones, 1 Aortic enlargement to 22 Other lesion. Convert a foreign COCO json with convert-labelled, source coco."
        )
    problems = Problems()
    for image in document["images"]:
        sides = (image["height"], image["width"])
        if not all(type(side) is int and 0 < side <= MAX_SIDE_PX for side in sides):
            problems.add(
                "bad_size",
                file=path,
                record=f"image {image['id']}",
                got=f"height, width {sides!r}"[:200],
                expected=f"whole numbers of pixels, 1 to {MAX_SIDE_PX}",
                remedy="Convert the source again.",
            )
        if not is_path_below(image["file_name"]):
            problems.add(
                "bad_path",
                file=path,
                record=f"image {image['id']}",
                got=f"file_name {image['file_name']!a}"[:200],
                expected="a path below the folder of the json, without '..'",
                remedy="Convert the source again.",
            )
    for annotation in document["annotations"]:
        if not is_box_xywh(annotation["bbox"]):
            problems.add(
                "malformed_box",
                file=path,
                record=f"annotation {annotation['id']}",
                got=annotation["bbox"],
                expected="bbox [x, y, width, height], finite, width and height > 0",
                remedy="Convert the source again.",
            )
    problems.raise_if_any()
    return document


def is_box_xywh(value: Any) -> bool:
    """Say whether a value is four numbers of at most MAX_COORDINATE (so not NaN), of which width and height are positive."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(type(number) in (int, float) and abs(number) <= MAX_COORDINATE for number in value) and min(value[2:]) > 0


def read_coco_structure(path: str | Path) -> Coco:
    """Read any COCO json and check its structure: the three lists, their keys, unique ids, references.

    Raises:
        DatasetError: names the file, the record, and what was expected.
    """
    document = read_json(path)
    for section, needed in _NEEDED_KEYS.items():
        records = document.get(section) if isinstance(document, dict) else None
        if not isinstance(records, list):
            found = ", ".join(document) if isinstance(document, dict) else type(document).__name__
            raise DatasetError(f"{path}: no list '{section}'; found: {found}. Expected a COCO detection json.")
        for position, record in enumerate(records):
            missing = [key for key in needed if not isinstance(record, dict) or key not in record]
            if missing:
                raise DatasetError(f"{path}: {section}[{position}] lacks {', '.join(missing)}; expected {', '.join(needed)}.")
        odd = [position for position, record in enumerate(records) if type(record["id"]) not in (int, str)]
        if odd:
            shown = repr(records[odd[0]]["id"])[:80]
            raise DatasetError(f"{path}: {section}[{odd[0]}]: id {shown}; expected a number or a text. Mend the file.")
        twice = [key for key, count in Counter(record["id"] for record in records).items() if count > 1]
        if twice:
            raise DatasetError(f"{path}: duplicate id in {section}: {twice[:10]}; expected each once. Mend the file.")
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        known = {record["id"] for record in document[section]}
        lost = [
            record["id"]
            for record in document["annotations"]
            if type(record[key]) not in (int, str) or record[key] not in known
        ]
        if lost:
            raise DatasetError(
                f"{path}: {len(lost)} annotation(s) with unknown {key}, ids {lost[:10]}; expected one of '{section}'."
            )
    return document


def assert_disjoint(train: Coco, val: Coco, test: Coco) -> None:
    """Prove that no image, and no patient where patients are known, is in two splits.

    Raises:
        DatasetError: names the ids in common and the two splits.
    """
    splits = {"train": train, "val": val, "test": test}
    for key in ("source_id", "file_name", "subject_id"):
        sets = {name: {image[key] for image in coco["images"] if image.get(key)} for name, coco in splits.items()}
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            common = sorted(sets[first] & sets[second])
            if common:
                raise DatasetError(
                    f"{len(common)} {key} value(s) are in both {first} and {second}: {', '.join(common[:10])}; expected "
                    "disjoint splits. Mend the splits of the labelled source, then run convert-labelled again."
                )
