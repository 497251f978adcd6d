"""An existing ``annotation.json`` in R2Gen's schema as a report source.

Layout: ``{"train": [{id, study_id, subject_id, report, image_path: [...], split}, ...], "val": [...], "test": [...]}``, as
made for MIMIC-CXR (one entry per image) and for IU X-ray (one entry per study with several images, no study_id nor
subject_id); one of D2R-Net or of our own, which has boxes and more keys, is understood too: its boxes are counted, not used.
``cxr.data.reports.root`` is the folder that image_path is relative to; ``cxr.data.reports.report_root`` is the json, else
``annotation.json`` in root.

The file tells no view, so ``cxr.data.reports.views`` must be ``[]``. Its text is taken as the configured section (R2Gen's
files hold findings). An entry without subject_id counts as its own patient.
Source of the schema: R2Gen, https://github.com/zhjohnchan/R2Gen.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.cxr.sources.report_checks import keep_views, report_table
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json
from d2rnet.files.names import is_path_below
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.table_checks import SAFE_ID, SPLIT_NAMES, check_patients

log = logging.getLogger(__name__)

TERMS = "as its owner says"
RELEASE_COUNTS: Mapping[str, int] = {}
Complaint = tuple[str, str, str]  # kind, got, expected
_NEEDED = ("id", "report", "image_path")
_IMAGE_COLUMNS = ["source_id", "path", "subject_id", "study_id", "split"]
SPLITS = ("train", "val", "test")
SCHEMA = '{"train": [{"id", "report", "image_path": [...], perhaps "study_id", "subject_id"}, ...], "val": ..., "test": ...}'


def required_files(settings: ReportSourceSettings) -> list[RequiredFile]:
    """List the image folder and the json."""
    key = "cxr.data.reports.report_root" if settings.report_root else "cxr.data.reports.root"
    return [
        RequiredFile(Path(settings.root), "cxr.data.reports.root", "folder of the images"),
        RequiredFile(annotation_path(settings), key, "annotation.json in R2Gen's schema"),
    ]


def annotation_path(settings: ReportSourceSettings) -> Path:
    """Return the json of ``cxr.data.reports``: report_root, or annotation.json in it, or in root."""
    path = Path(settings.report_root or settings.root)
    return path / "annotation.json" if path.is_dir() or not settings.report_root else path


def read_table(settings: ReportSourceSettings, problems: Problems) -> ReportTable:
    """Read images and reports of an annotation.json; see :mod:`d2rnet.cxr.sources.tables`.

    Args:
        settings: ``cxr.data.reports``.
        problems: grows by entries that lack a key or have one of another type, unsafe ids and paths, repeated images,
            studies with two texts, patients in two splits.

    Raises:
        FileNotFoundError: there is no such json.
        DatasetError: it is of another schema.
        ConfigError: ``cxr.data.reports.views`` is not empty, or ``cxr.data.reports.context`` is true.
    """
    if settings.context:
        raise ConfigError(
            "cxr.data.reports.context: got true; expected false with source r2gen, whose file tells neither why nor when."
        )
    file = annotation_path(settings)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; set cxr.data.reports.report_root to an annotation.json.")
    splits = _read_splits(file)
    counts: Counter[str] = Counter(entries_in_file=sum(map(len, splits.values())))
    found = _Found({}, {})
    for split, entries in splits.items():
        for position, entry in enumerate(entries):
            complaint = _complaint(entry, split) or found.add(entry, split)
            if complaint is not None:
                kind, got, expected = complaint
                problems.add(
                    kind,
                    file=file,
                    record=f"{split}[{position}]",
                    got=got,
                    expected=expected,
                    remedy="Mend or remove the entry.",
                )
    images = pd.DataFrame(list(found.images.values()), columns=_IMAGE_COLUMNS, dtype=str)
    check_patients(images, file=file, problems=problems)
    reports = [(study_id, *ids, settings.section, text) for study_id, (*ids, text) in sorted(found.reports.items()) if text]
    counts.update(
        images_in_table=len(images),
        studies_in_table=len(found.reports),
        studies_with_report=len(reports),
        studies_with_empty_report=len(found.reports) - len(reports),
    )
    if boxes := sum(_count_boxes(entry) for entries in splits.values() for entry in entries):
        counts["boxes_not_used"] = boxes
        log.info("%s: %d boxes in it are not used; predict_boxes draws the detector's own", file, boxes)
    images = keep_views(images.assign(view="", source_height=0, source_width=0), settings.views, counts)
    images = images.sort_values(["subject_id", "study_id"], kind="stable", ignore_index=True)
    log.info("%s: %d images of %d studies", file, len(images), counts["studies_in_table"])
    return ReportTable(images[list(REPORT_IMAGE_COLUMNS)], report_table(reports), counts)


@dataclass(frozen=True)
class _Found:
    """What the entries hold: images by source_id (in _IMAGE_COLUMNS), and (subject_id, split, text) by study_id."""

    images: dict[str, tuple[str, str, str, str, str]]
    reports: dict[str, tuple[str, str, str]]

    def add(self, entry: dict[str, Any], split: str) -> Complaint | None:
        """Take an entry in, or return why it cannot be. An entry without study or patient is its own."""
        study_id = str(_given(entry, "study_id", entry["id"]))
        subject_id = str(_given(entry, "subject_id", study_id))
        text = " ".join(entry["report"].split())
        if self.reports.setdefault(study_id, (subject_id, split, text))[2] != text:
            return "two_reports", f"another text for study {study_id}", "one report per study"
        for source_id, path in _images(entry):
            if source_id in self.images:
                return "duplicate_id", f"image id '{source_id}' again", "each once"
            self.images[source_id] = (source_id, path, subject_id, study_id, split)
        return None


def _read_splits(file: Path) -> dict[str, list[Any]]:
    """Read the json and check its outer structure."""
    content = read_json(file)
    if not isinstance(content, dict):
        found = f"a {type(content).__name__}"
    elif not all(isinstance(content.get(split), list) for split in SPLITS):
        found = "the keys " + (", ".join(f"{key} ({type(value).__name__})" for key, value in content.items()) or "(none)")
    elif set(content) - set(SPLITS):
        found = f"further keys {', '.join(sorted(set(content) - set(SPLITS)))}"
    else:
        first = next((entry for split in SPLITS for entry in content[split]), None)
        if isinstance(first, dict) and set(first).issuperset(_NEEDED):
            return {split: content[split] for split in SPLITS}
        found = f"entries with the keys {', '.join(first)}" if isinstance(first, dict) else f"a first entry {first!r}"[:200]
    raise DatasetError(
        f"{file}: found {found}; expected R2Gen's schema {SCHEMA}. For a COCO json set cxr.data.labelled.source: coco instead."
    )


def _complaint(entry: Any, split: str) -> Complaint | None:
    """Return what is wrong with an entry, or None."""
    kind = "bad_entry"
    if not isinstance(entry, dict):
        return kind, f"a {type(entry).__name__}", "an object"
    missing = [key for key in _NEEDED if key not in entry]
    if missing:
        return kind, f"no {', '.join(missing)}", f"the keys {', '.join(_NEEDED)}"
    if not isinstance(entry["report"], str):
        return kind, f"report of type {type(entry['report']).__name__}", "a text"
    paths = entry["image_path"]
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        return kind, f"image_path {paths!r}"[:200], "a list of at least one path"
    for path in paths:
        if "\\" in path or "" in path.split("/") or not is_path_below(path):
            return "bad_path", f"image_path {path[:200]!a}", "a path below cxr.data.reports.root, without '..'"
    for key in ("id", "study_id", "subject_id"):
        if not SAFE_ID.fullmatch(str(_given(entry, key, "0"))):
            return "bad_id", f"{key} {str(entry[key])[:80]!a}", "1 to 200 letters, digits, '.', '_' and '-'"
    named = str(entry.get("split", split))
    if SPLIT_NAMES.get(named) != split:
        return "bad_split", f"split '{named}'", f"'{split}', the list it stands in"
    return None


def _count_boxes(entry: Any) -> int:
    """Count the boxes of a D2R-Net entry; [-1, -1, -1, -1] stands for none."""
    boxes = entry.get("boxes") if isinstance(entry, dict) else None
    return sum(box != [-1, -1, -1, -1] for box in boxes) if isinstance(boxes, list) else 0


def _given(entry: dict[str, Any], key: str, otherwise: Any) -> Any:
    """Return an entry's value; a null stands for a missing key."""
    value = entry.get(key)
    return otherwise if value is None else value


def _images(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (source_id, path) of each image: the entry's id, numbered from 0 where it has several images."""
    paths = entry["image_path"]
    name = str(entry["id"])
    return [(name, paths[0])] if len(paths) == 1 else [(f"{name}_{number}", path) for number, path in enumerate(paths)]
