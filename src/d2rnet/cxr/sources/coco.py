"""Labelled source ``coco``: any COCO detection json, one to be split by seed or one per split.

Reads the json file(s) of ``cxr.data.labelled.coco_json``; categories are matched to ours by name, never by id.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.boxes.coco import Coco, category_names, read_coco_structure
from d2rnet.cxr.images.image_names import without_image_suffix
from d2rnet.cxr.sources.box_tables import BOX_DTYPES, keep_valid_corners
from d2rnet.cxr.sources.labelled_images import keep_safe_ids
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import BOX_COLUMNS, LABELLED_IMAGE_COLUMNS, LabelledTable
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.limits import MAX_COORDINATE, MAX_SIDE_PX
from d2rnet.files.names import is_path_below
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.findings.classes import CATEGORY_IDS, suggest_category

TERMS = "as its owner says"
RELEASE_COUNTS: Mapping[str, int] = {}
_SPLIT_NAMES = ("train", "val", "test")


def required_files(settings: LabelledSettings) -> list[RequiredFile]:
    """List the json files of ``cxr.data.labelled.coco_json`` and the image root."""
    files = [RequiredFile(path, "cxr.data.labelled.coco_json", f"COCO json ({split or 'to be split'})")
             for split, path in _json_files(settings).items()]  # fmt: skip
    return [RequiredFile(Path(settings.root), "cxr.data.labelled.root", "folder of the images"), *files]


def read_table(settings: LabelledSettings, problems: Problems) -> LabelledTable:
    """Read one COCO json to be split, or one json a split; categories are matched to ours by name.

    An image's id is its path below the root without suffix, ``/`` written ``_`` (or its ``source_id``, in files of this
    package). ``file_name`` is looked for beside the json, then below the root, then in ``images`` below the root.

    Raises:
        ConfigError: ``coco_json`` is not set or has other keys than train, val, test.
        DatasetError: a file is not a COCO json, or has annotations of a category that is not ours.
    """
    root = Path(settings.root)
    images: list[dict[str, Any]] = []
    boxes = []
    counts = Counter[str]()
    for split, path in _json_files(settings).items():
        document = read_coco_structure(path)
        crowds = [record["id"] for record in document["annotations"] if record.get("iscrowd")]
        counts["crowd_annotations_left_out"] += len(crowds)
        document["annotations"] = [record for record in document["annotations"] if not record.get("iscrowd")]
        counts["annotations_in"] += len(document["annotations"])
        _rename_categories(document, path)
        _drop_bad_images(document, path, problems)
        source_ids = _add_images(images, document, path=path, root=root, split=split)
        rows = _boxes_of(document, path, problems)
        rows["source_id"] = rows["source_id"].map(source_ids)
        boxes.append(keep_valid_corners(rows, file=path, problems=problems))
    table = pd.DataFrame(images, columns=list(LABELLED_IMAGE_COLUMNS))
    table = keep_safe_ids(table, file="cxr.data.labelled.coco_json", problems=problems)
    _note_repeated_ids(table, problems)
    kept = pd.concat(boxes, ignore_index=True)[list(BOX_COLUMNS)]
    return LabelledTable(table, kept[kept["source_id"].isin(table["source_id"])].reset_index(drop=True), counts)


def _json_files(settings: LabelledSettings) -> dict[str, Path]:
    """Split name ("" where the file is to be split) -> json path."""
    given = settings.coco_json
    if not given:
        raise ConfigError(
            "cxr.data.labelled.coco_json: not set; source coco needs one path, or an object with train and test."
        )
    files = {"": given} if isinstance(given, str) else dict(given)
    unknown = [name for name in files if name not in ("", *_SPLIT_NAMES)]
    if unknown or ("" not in files and not {"train", "test"} <= set(files)):
        raise ConfigError(
            f"cxr.data.labelled.coco_json: got keys {', '.join(files)}; expected train, test and optionally val."
        )
    return {split: Path(settings.root) / path for split, path in files.items()}


def _rename_categories(document: Coco, path: Path) -> None:
    """Put our category ids into the annotations; a category that no annotation uses may have any name."""
    ours = {name.casefold(): index for name, index in CATEGORY_IDS.items()}
    names = category_names(document)
    used = {record["category_id"] for record in document["annotations"]}
    unknown = sorted(str(names[index]) for index in used if str(names[index]).strip().casefold() not in ours)
    if unknown:
        listed = "; ".join(f"'{name}': {suggest_category(name)}" for name in unknown[:1])
        raise DatasetError(f"{path}: unknown class name(s) {', '.join(unknown)}. {listed} Rename them in 'categories'.")
    for record in document["annotations"]:
        record["category_id"] = ours[str(names[record["category_id"]]).strip().casefold()]


def _drop_bad_images(document: Coco, path: Path, problems: Problems) -> None:
    """Note and drop images whose size is no number of pixels or whose file name leaves the folder, with their annotations."""
    bad = set()
    for image in document["images"]:
        if not is_path_below(image["file_name"]):
            bad.add(image["id"])
            problems.add(
                "bad_path",
                file=path,
                record=f"image {image['id']}",
                got=f"file_name {image['file_name']!a}"[:200],
                expected="a path below cxr.data.labelled.root, without '..'",
                remedy="Mend the image's file_name.",
            )
        height = image["height"]
        width = image["width"]
        if not all(type(side) is int and 0 < side <= MAX_SIDE_PX for side in (height, width)):
            bad.add(image["id"])
            problems.add(
                "bad_size",
                file=path,
                record=f"image {image['id']} ({str(image['file_name'])[:80]})",
                got=f"height {height!r}, width {width!r}"[:200],
                expected=f"whole numbers of pixels, 1 to {MAX_SIDE_PX}",
                remedy="Mend the image.",
            )
    document["images"] = [image for image in document["images"] if image["id"] not in bad]
    document["annotations"] = [record for record in document["annotations"] if record["image_id"] not in bad]


def _add_images(images: list[dict[str, Any]], document: Coco, *, path: Path, root: Path, split: str) -> dict[int, str]:
    """Append image rows; return COCO image id -> source id."""
    source_ids = {}
    for image in document["images"]:
        name = str(image["file_name"])
        places = (path.parent / name, root / name, root / "images" / name)
        file = next(filter(_is_file, places), root / name)
        below = file.relative_to(root) if file.is_relative_to(root) else Path(name)
        source_id = _text(image, "source_id") or without_image_suffix(below.as_posix()).replace("/", "_")
        source_ids[image["id"]] = source_id
        row = dict.fromkeys(LABELLED_IMAGE_COLUMNS, "")
        sizes = {"source_height": image["height"], "source_width": image["width"], "n_readers": 0}
        subject = _text(image, "subject_id")
        images.append({**row, **sizes, "source_id": source_id, "path": str(file), "split": split, "subject_id": subject})
    return source_ids


def _text(image: Mapping[str, Any], key: str) -> str:
    """Return what an image says as text, "" where it says nothing; 0 is a number like others."""
    value = image.get(key)
    return "" if value is None else str(value)


def _is_file(path: Path) -> bool:
    """Say whether there is a file; of a name longer than a file system takes, ``Path.is_file`` raises."""
    try:
        return path.is_file()
    except OSError:
        return False


def _boxes_of(document: Coco, path: str | Path, problems: Problems) -> pd.DataFrame:
    """Return BOX_COLUMNS of a document's annotations; ``source_id`` holds the COCO image id."""
    rows = []
    for record in document["annotations"]:
        box = record["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(_is_coordinate(value) for value in box):
            problems.add(
                "malformed_box",
                file=path,
                record=f"annotation {record['id']}",
                got=repr(box)[:200],
                expected=f"bbox [x, y, width, height], numbers of at most {MAX_COORDINATE:g}",
                remedy="Mend or remove the annotation.",
            )
            continue
        x, y, width, height = box
        origin = f"{Path(path).name}:annotation {record['id']}"
        rows.append((record["image_id"], "", record["category_id"], x, y, x + width, y + height, origin))
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS)).astype(BOX_DTYPES)


def _is_coordinate(value: Any) -> bool:
    """Say whether a value is a number that fits; NaN and infinity pass, keep_valid_corners names them."""
    return type(value) is float or (type(value) is int and abs(value) <= MAX_COORDINATE)


def _note_repeated_ids(images: pd.DataFrame, problems: Problems) -> None:
    for source_id, group in images[images["source_id"].duplicated(keep=False)].groupby("source_id"):
        splits = sorted(set(group["split"]))
        kind = "duplicate_image_id" if len(splits) == 1 else "id_in_two_splits"
        problems.add(
            kind,
            file="cxr.data.labelled.coco_json",
            record=f"image {source_id}",
            got=f"{len(group)}: {', '.join(group['path'])}",
            expected="one image in one split",
            remedy="Remove all but one.",
        )
