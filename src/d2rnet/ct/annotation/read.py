"""Reads ct_annotation.json (written by build_ct_annotation): volumes with report, structures and labels."""

from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.names import is_path_below
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import TEXT_KEYS, Entry, read_splits

KEYS = (*TEXT_KEYS, "volume_path", "shape_zyx", "structures", "labels")
_REMEDY = "Make the file with 'd2rnet build-ct-annotation'."


def load_ct_annotation(path: str | Path) -> dict[str, list[Entry]]:
    """Read ct_annotation.json and check every entry.

    Args:
        path: the file; ``volume_path`` is relative to the folder of convert_ct.

    Returns:
        ``train``, ``val`` and ``test`` -> entries, one per volume, with ``id, study_id, subject_id, split, report,
        volume_path`` (str), ``shape_zyx`` (3 int), ``structures`` (name -> ``text``, ``abnormal``, ``labels``, the same names
        in each entry) and ``labels`` (18 of 0, 1 or None).

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not JSON, of another schema, or a patient in two splits; the message names file, split and entry.
    """
    splits = read_splits(path, _complaint, command="build-ct-annotation", remedy=_REMEDY)
    home: dict[str, str] = {}
    for split, entries in splits.items():
        for entry in entries:
            patient = entry["subject_id"]
            if home.setdefault(patient, split) != split:
                got = f"patient {patient} in {home[patient]} and in {split} ({entry['id']})"
                raise DatasetError(f"{path}: got {got}; expected each patient in one split. {_REMEDY}")
    return splits


def _complaint(entry: Any, split: str) -> str | None:
    """Say what is wrong with one entry, None if nothing is."""
    if not isinstance(entry, dict):
        return f"got a {type(entry).__name__}; expected an object"
    missing = [key for key in KEYS if key not in entry]
    if missing:
        return f"lacks {', '.join(missing)} (it has {', '.join(entry)})"
    for key in TEXT_KEYS:
        if not isinstance(entry[key], str):
            return f"{key} is {entry[key]!r}; expected a string"
    if entry["split"] != split:
        return f"split is '{entry['split']}' but the entry is listed under '{split}'"
    if not is_path_below(entry["volume_path"]):
        return f"volume_path is {ascii(entry['volume_path'])[:200]}; expected a path below the folder of convert-ct"
    shape = entry["shape_zyx"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        return f"shape_zyx is {repr(shape)[:200]}; expected three whole numbers of voxels"
    labels = entry["labels"]
    if not (isinstance(labels, list) and len(labels) == len(CT_ABNORMALITIES) and all(one in (0, 1, None) for one in labels)):
        return f"labels are {repr(labels)[:200]}; expected {len(CT_ABNORMALITIES)} of 0, 1 or null"
    return _structures_complaint(entry["structures"])


def _structures_complaint(structures: Any) -> str | None:
    if not isinstance(structures, dict) or not structures:
        return "structures are no object of structure -> text"
    for name, one in structures.items():
        if not (isinstance(one, dict) and isinstance(one.get("text"), str) and one.get("abnormal", 0) in (True, False, None)):
            return f"structure '{name}' is {repr(one)[:200]}; expected text, abnormal (true, false or null) and labels"
    return None
