"""annotation.json: images with their report and pseudo boxes, in original pixels (the contract of design.md, section 5).

Written by build_annotation; read by the report model and the evaluation. The keys that R2Gen's file has keep their meaning;
``height, width, boxes, scores, labels`` are added. Entries with more than one image also have ``heights, widths, box_image``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.documents import read_json
from d2rnet.files.limits import MAX_COORDINATE, MAX_SIDE_PX
from d2rnet.files.names import is_path_below
from d2rnet.findings.classes import CATEGORY_IDS, suggest_category

Entry = dict[str, Any]
Reader = Callable[[Path], dict[str, list[Entry]]]  # such as load_annotation
SPLITS = ("train", "val", "test")
TEXT_KEYS = ("id", "study_id", "subject_id", "split", "report")
LIST_KEYS = ("image_path", "boxes", "scores", "labels")
SIZE_KEYS = ("height", "width")
SEVERAL_IMAGES_KEYS = ("heights", "widths", "box_image")
PRIOR_KEYS = ("study_id", "report", "height", "width", "boxes", "scores", "labels")
OUTSIDE_TOLERANCE_PX = 1.0
_NUMBER = (int, float)


def write_annotation(target: str | Path, splits: Mapping[str, Iterable[Entry]]) -> None:
    """Write annotation.json atomically, one entry a line, without holding the text in memory.

    Args:
        target: final file path.
        splits: split name -> entries; each of train, val and test is written, empty if absent.
    """
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("{")
        for number, split in enumerate(SPLITS):
            stream.write(f'{"," if number else ""}\n"{split}": [')
            separator = "\n"
            for entry in splits.get(split, ()):
                stream.write(separator + json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
                separator = ",\n"
            stream.write("]")
        stream.write("\n}\n")


def load_annotation(path: str | Path) -> dict[str, list[Entry]]:
    """Read annotation.json and check every entry.

    Args:
        path: the file; relative ``image_path`` values in it are left as they are.

    Returns:
        ``train``, ``val`` and ``test`` -> entries with keys ``id, study_id, subject_id, split, report`` (str),
        ``image_path`` (list of str), ``height, width`` (int, original pixels), ``boxes`` (K lists xywh, original pixels),
        ``scores`` (K floats in [0, 1]), ``labels`` (K class names); with n > 1 images also ``heights, widths`` (n ints)
        and ``box_image`` (K indices into ``image_path``); by ``cxr.annotation.context`` also ``views`` (n str), ``indication``
        (str), ``prior`` (None, or an object with ``study_id, report, height, width, boxes, scores, labels``, from
        build-annotation also ``image_id``). A split that the file lacks is empty.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not JSON, or of another schema; the message names file, split and entry.
    """
    splits = read_splits(path, entry_complaint, command="build-annotation", remedy=_REMEDY)
    _check_priors(splits, path)
    return splits


def read_splits(
    path: str | Path, complaint_of: Callable[[Any, str], str | None], *, command: str, remedy: str
) -> dict[str, list[Entry]]:
    """Read a file of splits, whatever its entries look at.

    Args:
        path: the file.
        complaint_of: says what is wrong with an entry of a split, None if nothing is; a sound entry has a text ``id``.
        command: sub-command that makes the file.
        remedy: what to do about a bad file.

    Returns:
        ``train``, ``val`` and ``test`` -> entries; a split that the file lacks is empty.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not JSON, or of another schema; the message names file, split and entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet {command}'.")
    content = read_json(path)
    if not isinstance(content, dict) or not set(content) & set(SPLITS):
        found = f"keys {', '.join(map(repr, content))}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DatasetError(f"{path}: got {found}; expected an object with the keys train, val, test. {remedy}")
    unknown = set(content) - set(SPLITS)
    if unknown:
        raise DatasetError(f"{path}: unknown split {', '.join(sorted(unknown))}; expected train, val, test. {remedy}")
    seen: set[str] = set()
    for split, entries in content.items():
        if not isinstance(entries, list):
            raise DatasetError(f"{path}: {split}: got a {type(entries).__name__}; expected a list of entries. {remedy}")
        for number, entry in enumerate(entries):
            complaint = complaint_of(entry, split)
            if complaint:
                name = str(entry.get("id", "without id"))[:80] if isinstance(entry, dict) else "not an object"
                raise DatasetError(f"{path}: {split}[{number}] ({name}): {complaint[:1000]}. {remedy}")
            if entry["id"] in seen:
                raise DatasetError(f"{path}: {split}[{number}]: id '{entry['id']}' occurs twice. {remedy}")
            seen.add(entry["id"])
    return {split: content.get(split, []) for split in SPLITS}


_REMEDY = "Make the file with 'd2rnet build-annotation'; an R2Gen file without boxes is read by cxr.data.reports.source r2gen."


def entry_complaint(entry: Any, split: str) -> str | None:
    """Say what is wrong with one entry of annotation.json, None if nothing is."""
    if not isinstance(entry, dict):
        return f"got a {type(entry).__name__}; expected an object"
    several = isinstance(entry.get("image_path"), list) and len(entry["image_path"]) > 1
    expected = (*TEXT_KEYS, *LIST_KEYS, *SIZE_KEYS, *(SEVERAL_IMAGES_KEYS if several else ()))
    missing = [key for key in expected if key not in entry]
    if missing:
        return f"lacks {', '.join(missing)} (it has {', '.join(entry)})"
    for key in TEXT_KEYS:
        if not isinstance(entry[key], str):
            return f"{key} is {entry[key]!r}; expected a string"
    if entry["split"] != split:
        return f"split is '{entry['split']}' but the entry is listed under '{split}'"
    for key in LIST_KEYS:
        if not isinstance(entry[key], list):
            return f"{key} is a {type(entry[key]).__name__}; expected a list"
    paths = entry["image_path"]
    if not paths or not all(map(is_path_below, paths)):
        return f"image_path is {ascii(paths)[:200]}; expected a list of one or more paths below the image root, without '..'"
    lengths = {key: len(entry[key]) for key in ("boxes", "scores", "labels")}
    if len(set(lengths.values())) != 1:
        return f"lengths differ ({lengths}); expected one score and one label a box"
    return _size_complaint(entry, several) or _boxes_complaint(entry, several) or _context_complaint(entry)


def _context_complaint(entry: Entry) -> str | None:
    """Say what is wrong with the keys that an entry may have."""
    count = len(entry["image_path"])
    views = entry.get("views", [""] * count)
    if not (isinstance(views, list) and len(views) == count and all(isinstance(view, str) for view in views)):
        return f"views is {repr(views)[:200]}; expected one text for each of {count} images"
    if not isinstance(entry.get("indication", ""), str):
        return f"indication is {entry['indication']!r:.80}; expected a text"
    return None if entry.get("prior") is None else prior_complaint(entry["prior"], entry["study_id"])


def prior_complaint(prior: Any, study_id: str) -> str | None:
    """Say what is wrong with the study before the study ``study_id``, None if nothing is."""
    missing = [key for key in PRIOR_KEYS if not isinstance(prior, dict) or key not in prior]
    if missing:
        return f"prior lacks {', '.join(missing)}"
    if not (isinstance(prior["study_id"], str) and isinstance(prior["report"], str)) or prior["study_id"] == study_id:
        return f"prior is study {prior['study_id']!r:.80}; expected texts under study_id and report, of another study"
    lists = [prior[key] for key in ("boxes", "scores", "labels")]
    if not all(isinstance(values, list) and len(values) == len(lists[0]) for values in lists):
        return "prior has boxes, scores and labels that are no lists of one length"
    complaint = _size_complaint(prior, False) or _boxes_complaint(prior, False)
    return complaint and f"prior: {complaint}"


def _check_priors(splits: Mapping[str, list[Entry]], path: str | Path) -> None:
    """Refuse a study before that is an entry of another split or of another patient.

    Raises:
        DatasetError: names the entry and both splits or patients.
    """
    known = {entry["study_id"]: (split, entry["subject_id"]) for split, entries in splits.items() for entry in entries}
    for split, entries in splits.items():
        for entry in entries:
            before = known.get((entry.get("prior") or {}).get("study_id"))
            if before not in (None, (split, entry["subject_id"])):
                raise DatasetError(
                    f"{path}: {split} ({entry['id']}): prior is study {entry['prior']['study_id']} of patient {before[1]}, "
                    f"split {before[0]}; expected an earlier study of patient {entry['subject_id']}, split {split}. {_REMEDY}"
                )


def _size_complaint(entry: Entry, several: bool) -> str | None:
    sizes = [entry["height"], entry["width"]]
    if several:
        for key in ("heights", "widths"):
            if not isinstance(entry[key], list) or len(entry[key]) != len(entry["image_path"]):
                return f"{key} is {entry[key]!r}; expected one number for each of {len(entry['image_path'])} images"
            sizes += entry[key]
        box_image = entry["box_image"]
        images = range(len(entry["image_path"]))
        if not isinstance(box_image, list) or len(box_image) != len(entry["boxes"]):
            return f"box_image is {box_image!r}; expected one image index for each of {len(entry['boxes'])} boxes"
        if not all(type(index) is int and index in images for index in box_image):
            return f"box_image is {box_image!r}; expected indices 0..{len(images) - 1}"
    if not all(type(size) is int and 0 < size <= MAX_SIDE_PX for size in sizes):
        return f"height and width are {repr(sizes)[:200]}; expected positive whole pixels, at most {MAX_SIDE_PX}"
    return None


def _boxes_complaint(entry: Entry, several: bool) -> str | None:
    sizes = list(zip(entry["heights"], entry["widths"], strict=True)) if several else [(entry["height"], entry["width"])]
    for number, (box, score, label) in enumerate(zip(entry["boxes"], entry["scores"], entry["labels"], strict=True)):
        if not (isinstance(box, list) and len(box) == 4 and all(type(value) in _NUMBER for value in box)):
            return f"box {number} is {box!r}; expected [x, y, width, height]"
        x, y, box_width, box_height = box
        if not all(abs(value) <= MAX_COORDINATE for value in box) or box_width <= 0 or box_height <= 0:
            return f"box {number} is {box!r}; expected finite numbers and a positive width and height"
        height, width = sizes[entry["box_image"][number] if several else 0]
        if max(-x, -y, x + box_width - width, y + box_height - height) > OUTSIDE_TOLERANCE_PX:
            return f"box {number} is {box!r}, outside its image of height {height} and width {width}"
        if type(score) not in _NUMBER or not 0 <= score <= 1:
            return f"score {number} is {score!r}; expected a number in [0, 1]"
        if not isinstance(label, str) or label not in CATEGORY_IDS:
            return f"label {number} is {label!r}. {suggest_category(str(label))}"
    return None
