"""Indiana University chest radiographs (Open-i) as a report source: open data, no credential needed.

Layout: ``ecgen-radiology/N.xml`` (3,955 reports), in a folder or still packed as ``NLMCXR_reports.tgz``, at
``cxr.data.reports.report_root``, else in or beside ``cxr.data.reports.root``; PNG, JPG or DICOM images anywhere below root.
An image belongs to the report that lists it as ``parentImage``; ``CXR54_IM-2145-1001`` is also found under the name that the
DICOM collection gives it, ``54_IM-2145-1001.dcm``, and under that of Kaggle's copy, ``54_IM-2145-1001.dcm.png``. Reports whose
images are absent are left out and counted, so that a part of the collection works too.

Neither patient nor view is told: each study counts as its own patient, and ``cxr.data.reports.views`` must be ``[]``. Studies
that have the wanted section get a seeded 70/10/20 split; the others, of use to the detector alone, are ``train``. The
de-identification marks "XXXX" stay in the text: they are what the source says.
Licence of the data: CC BY-NC-ND 4.0. Source: Demner-Fushman et al., JAMIA 2016; 23(2): 304-310, https://openi.nlm.nih.gov.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from d2rnet.cxr.images.image_names import IMAGE_SUFFIXES
from d2rnet.cxr.sources.clinical_context import ClinicalText, checked_text
from d2rnet.cxr.sources.openi_reports import OpeniReport, find_reports, read_reports
from d2rnet.cxr.sources.report_checks import keep_views, report_table, with_context
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.splits import three_way_split

log = logging.getLogger(__name__)

TERMS = "CC BY-NC-ND 4.0"
RELEASE_COUNTS: Mapping[str, int] = {}
# Study number and image part of "CXR54_IM-2145-1001", "CXR1_1_IM-0001-3001" and "54_IM-2145-1001".
_IMAGE_NAME = re.compile(r"(?:CXR)?(\d+)(?:_\d+)?_(IM-[\d-]+)")
ImageKey = tuple[str, str]


def required_files(settings: ReportSourceSettings) -> list[RequiredFile]:
    """List the image folder and the reports of ``cxr.data.reports``."""
    key = "cxr.data.reports.report_root" if settings.report_root else "cxr.data.reports.root"
    return [
        RequiredFile(Path(settings.root), "cxr.data.reports.root", "folder of the Open-i images"),
        RequiredFile(find_reports(settings), key, "Open-i reports: NLMCXR_reports.tgz or the folder ecgen-radiology"),
    ]


def read_table(settings: ReportSourceSettings, problems: Problems) -> ReportTable:
    """Read images and reports of Open-i; see :mod:`d2rnet.cxr.sources.tables`.

    Args:
        settings: ``cxr.data.reports``.
        problems: grows by report ids that occur twice, and by images with two files or two reports.

    Raises:
        FileNotFoundError: there are no reports.
        DatasetError: no report has an image below root, or there are too few studies to split.
        ConfigError: ``cxr.data.reports.views`` is not empty.
    """
    root = Path(settings.root)
    counts: Counter[str] = Counter()
    reports, unreadable = read_reports(settings, problems)
    files = _image_files(root, problems)
    images = _match(reports, files, root, counts, problems)
    counts["reports_unreadable"] = len(unreadable)
    section = settings.section
    studies = sorted(images["study_id"].unique())
    texts = {study: reports[study].sections[section] for study in studies if section in reports[study].sections}
    split_of = dict.fromkeys(studies, "train") | three_way_split(texts, seed=settings.split_seed)
    images = images.assign(split=images["study_id"].map(split_of), view="", source_height=0, source_width=0)
    images = keep_views(images, settings.views, counts).sort_values(["study_id", "source_id"], ignore_index=True)
    counts["studies_with_report"] = len(texts)
    counts[f"studies_without_{section}"] = len(studies) - len(texts)
    rows = [(study, study, split_of[study], section, text) for study, text in texts.items()]
    table = report_table(rows)
    if settings.context:
        whys = {study: _why(reports[study].sections) for study in texts}
        table = with_context(table, whys, {}, counts)
    return ReportTable(images[list(REPORT_IMAGE_COLUMNS)], table, counts, unreadable)


def _why(sections: Mapping[str, str]) -> ClinicalText:
    described = (sections.get(name, "") for name in ("findings", "impression"))
    return checked_text(sections.get("indication", ""), described)


def _image_key(name: str) -> ImageKey | None:
    match = _IMAGE_NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def _without_suffixes(path: str) -> str:
    """Return a file's name without its suffixes: ``54_IM-2145-1001.dcm.png`` is ``54_IM-2145-1001``."""
    name = Path(path).name
    while name.lower().endswith(IMAGE_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def _image_files(root: Path, problems: Problems) -> dict[ImageKey, str]:
    """Return the image files below root that are named as Open-i names them, as paths relative to it."""
    found: dict[ImageKey, str] = {}
    names = (
        os.path.relpath(f"{parent}/{name}", root)
        for parent, _, files in os.walk(root)
        for name in files
        if name.lower().endswith(IMAGE_SUFFIXES)
    )
    for path in sorted(names):
        key = _image_key(_without_suffixes(path))
        if key in found:
            problems.add(
                "duplicate_id",
                file=root,
                record=path,
                got=f"the image {'_'.join(key)} again, after {found[key]}",
                expected="one file per image",
                remedy="Remove or move one of the files.",
            )
        elif key is not None:
            found[key] = path
    return found


def _match(
    reports: dict[str, OpeniReport], files: dict[ImageKey, str], root: Path, counts: Counter[str], problems: Problems
) -> pd.DataFrame:
    """Join reports and image files by the image's name; columns source_id, path, subject_id, study_id."""
    rows: list[tuple[str, str, str, str]] = []
    taken: dict[ImageKey, str] = {}
    for study_id, report in reports.items():
        counts["studies_in_table"] += 1
        counts["studies_without_image"] += not report.image_ids
        present = 0
        for image_id in report.image_ids:
            key = _image_key(image_id)
            if key is None or key not in files:
                counts["images_absent"] += 1
            elif key in taken:
                problems.add(
                    "image_of_two_reports",
                    file=report.origin,
                    record=f"parentImage {image_id}",
                    got=f"listed by {taken[key]} too",
                    expected="one report per image",
                    remedy="Remove one of the reports.",
                )
            else:
                taken[key] = study_id
                rows.append((image_id, files[key], study_id, study_id))
                present += 1
        counts["studies_with_images_absent"] += bool(report.image_ids) and not present
    counts["images_without_report"] = len(files) - len(taken)
    counts["images_in_table"] = len(rows)
    log.info("%s: %d images; %d listed by the reports are absent", root, len(rows), counts["images_absent"])
    if not rows:
        raise DatasetError(
            f"{root}: none of the {counts['images_absent']} images that the reports list is below this folder; expected files "
            "named like CXR54_IM-2145-1001.png, 54_IM-2145-1001.dcm or 54_IM-2145-1001.dcm.png. Set cxr.data.reports.root."
        )
    return pd.DataFrame(rows, columns=["source_id", "path", "subject_id", "study_id"], dtype=str)
