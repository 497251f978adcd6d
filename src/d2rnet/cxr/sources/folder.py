"""A folder of radiographs without reports: further unlabelled images for the detector, nothing else.

Reads: every DICOM, PNG and JPG file at any depth below ``root`` (an item of ``cxr.data.extra_unlabelled``), whatever its name
(``is_image_file``). All of them are ``train``; ``path`` is relative to that root. Each image counts as its own study, and
as its own patient unless it is named as in ChestX-ray14, ``00000013_005.png``: patient 00000013.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from d2rnet.cxr.images.image_names import is_image_file, without_image_suffix
from d2rnet.cxr.sources.report_checks import report_table
from d2rnet.cxr.sources.settings import UnlabelledSourceSettings
from d2rnet.cxr.sources.tables import REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile

log = logging.getLogger(__name__)

TERMS = "as its owner says"
RELEASE_COUNTS: Mapping[str, int] = {}
CONFIG_KEY = "cxr.data.extra_unlabelled[].root"
_PATIENT_AND_NUMBER = re.compile(r"(\d{8})_\d{3}")


def required_files(settings: UnlabelledSourceSettings) -> list[RequiredFile]:
    """List the one folder that an item of ``cxr.data.extra_unlabelled`` needs."""
    return [RequiredFile(Path(settings.root), CONFIG_KEY, "folder of unlabelled radiographs")]


def read_table(settings: UnlabelledSourceSettings, problems: Problems) -> ReportTable:
    """List the images below a folder; see :mod:`d2rnet.cxr.sources.tables`. There are no reports.

    Args:
        settings: an item of ``cxr.data.extra_unlabelled``.
        problems: grows by files whose names give the same id (kind ``duplicate_id``) or are not UTF-8 (``bad_name``).

    Raises:
        FileNotFoundError: the folder does not exist.
        DatasetError: it holds no image.
    """
    root = Path(settings.root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set {CONFIG_KEY}.")
    counts: Counter[str] = Counter()
    paths: dict[str, str] = {}
    for path in _image_files(root, counts):
        if not _is_utf8(path):
            problems.add(
                "bad_name",
                file=root,
                record=ascii(path),
                got="a file name that is not UTF-8",
                expected="a UTF-8 name",
                remedy="Rename the file; no table could name it.",
            )
            continue
        source_id = _source_id(path)
        if source_id in paths:
            problems.add(
                "duplicate_id",
                file=root,
                record=path,
                got=f"id '{source_id}' again, after {paths[source_id]}",
                expected="names that differ in more than punctuation and type",
                remedy="Rename or remove one of the files.",
            )
            continue
        paths[source_id] = path
    if not paths:
        raise DatasetError(f"{root}: no DICOM, PNG or JPG file at any depth; set {CONFIG_KEY}.")
    counts["images_kept"] = len(paths)
    log.info("%s: %d images, %d other files", root, len(paths), counts["files_of_other_types"])
    images = pd.DataFrame({"source_id": list(paths), "path": list(paths.values())})
    images = images.assign(
        subject_id=[_patient(path) or source_id for source_id, path in paths.items()],
        study_id=images["source_id"],
        view="",
        split="train",
        source_height=0,
        source_width=0,
    )
    return ReportTable(images[list(REPORT_IMAGE_COLUMNS)], report_table([]), counts)


def _image_files(root: Path, counts: Counter[str]) -> list[str]:
    """Return the images' paths relative to root, sorted. Hidden files are no images; linked folders are not followed."""
    found = []
    for parent, folders, files in os.walk(root):
        counts["linked_folders_not_followed"] += sum(os.path.islink(f"{parent}/{name}") for name in folders)  # noqa: PTH114
        below = os.path.relpath(parent, root)
        for name in files:
            if is_image_file(parent, name):
                found.append(name if below == os.curdir else f"{below}/{name}")
            else:
                counts["files_of_other_types"] += 1
    if counts["linked_folders_not_followed"]:
        log.warning(
            "%s: %d linked folder(s) are not followed; name them in cxr.data.extra_unlabelled",
            root,
            counts["linked_folders_not_followed"],
        )
    return sorted(found)


def _is_utf8(path: str) -> bool:
    """Say whether a path from the file system was UTF-8 (Python holds other bytes as lone surrogates)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _source_id(path: str) -> str:
    """Turn a relative path into an id that can be a file name: ``images/00000013_005.png`` is ``images_00000013_005``.

    Only an image's suffix is dropped: ``1.2.840.113`` of a DICOM file without suffix stays whole.
    """
    return re.sub(r"[^A-Za-z0-9-]+", "_", without_image_suffix(path)).strip("_") or "image"


def _patient(path: str) -> str:
    """Return the patient that a ChestX-ray14 file name tells, "" for any other name."""
    match = _PATIENT_AND_NUMBER.fullmatch(os.path.splitext(os.path.basename(path))[0])  # noqa: PTH119, PTH122 - 377,110 of them
    return match[1] if match else ""
