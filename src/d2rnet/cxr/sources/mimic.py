"""MIMIC-CXR as a report source: MIMIC-CXR-JPG 2.x, or MIMIC-CXR 2.x (DICOM) with its report texts.

Layout (credentialed, https://physionet.org/content/mimic-cxr-jpg/ and https://physionet.org/content/mimic-cxr/)::

    files/p10/p10000032/s50414267/<dicom_id>.jpg | .dcm    images, under cxr.data.reports.root
    files/p10/p10000032/s50414267.txt                      reports, under cxr.data.reports.report_root, else root
    mimic-cxr-2.x.y-split.csv.gz, -metadata.csv.gz         format jpg: both needed; dicom: used where they are
    cxr-record-list.csv.gz, cxr-study-list.csv.gz          format dicom: both needed; jpg: the second is used where it is

Tables lie beside the images or beside the reports and may be unpacked (``.csv``). Without a split table there is a seeded
70/10/20 split by patient; without a metadata table views come from the DICOM headers. ``validate`` becomes ``val``. A file
``section_exceptions.csv`` beside the reports adds hand-made section rules (:mod:`d2rnet.cxr.sources.mimic_exceptions`).
"""

import logging
from collections import Counter
from collections.abc import Mapping

from d2rnet.cxr.sources.mimic_exceptions import EXCEPTIONS_FILE, MIMIC_EXCEPTIONS, Exceptions, read_exceptions
from d2rnet.cxr.sources.mimic_reports import read_reports
from d2rnet.cxr.sources.mimic_tables import (
    COLUMNS,
    FILES_FOLDER,
    NEEDED_TABLES,
    STUDY_LIST,
    MimicFolders,
    add_views,
    read_images,
)
from d2rnet.cxr.sources.mimic_times import study_times
from d2rnet.cxr.sources.report_checks import keep_views, with_context
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.cxr.sources.tables import REPORT_IMAGE_COLUMNS, ReportTable
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.table_checks import check_patients

log = logging.getLogger(__name__)

TERMS = "PhysioNet Credentialed Health Data License 1.5.0: no sharing with others"
RELEASE_COUNTS: Mapping[str, int] = {"images_in_table": 377_110, "studies_in_table": 227_835}  # MIMIC-CXR 2.0.0


def required_files(settings: ReportSourceSettings) -> list[RequiredFile]:
    """List the tables and folders that ``cxr.data.reports`` needs; a missing table is named by its pattern.

    Raises:
        DatasetError: a folder holds tables of two releases.
    """
    folders = MimicFolders.of(settings)
    report_key = "cxr.data.reports.report_root" if settings.report_root else "cxr.data.reports.root"
    needed = [
        RequiredFile(folders.root / FILES_FOLDER, "cxr.data.reports.root", "MIMIC-CXR images"),
        RequiredFile(folders.report_root / FILES_FOLDER, report_key, "MIMIC-CXR report texts"),
    ]
    for pattern in NEEDED_TABLES[settings.format]:
        path = folders.optional_table(pattern) or folders.root / f"{pattern}.gz"
        needed.append(RequiredFile(path, "cxr.data.reports.root", "MIMIC-CXR table", COLUMNS[pattern]))
    return needed


def read_table(settings: ReportSourceSettings, problems: Problems) -> ReportTable:
    """Read images and reports of MIMIC-CXR; see :mod:`d2rnet.cxr.sources.tables`.

    Args:
        settings: ``cxr.data.reports``.
        problems: grows by bad and repeated ids, unknown splits, patients in two splits, rows without metadata, bad sizes.

    Raises:
        FileNotFoundError: a needed table is missing; the message names the config key.
        DatasetError: a table is ambiguous, empty or lacks a column, or no report file is where it should be.
        ConfigError: no image has a wanted view.
    """
    folders = MimicFolders.of(settings)
    counts: Counter[str] = Counter()
    images = read_images(folders, split_seed=settings.split_seed, problems=problems, counts=counts)
    check_patients(images, file=folders.root, problems=problems)
    _count_studies_without_image(set(images["study_id"]), folders, counts)
    images, unread = add_views(images, folders, need_views=bool(settings.views), problems=problems, counts=counts)
    images = keep_views(images, settings.views, counts, keep_anyway=unread)
    images = images.sort_values(["subject_id", "study_id", "source_id"], ignore_index=True)[list(REPORT_IMAGE_COLUMNS)]
    studies = images[["subject_id", "study_id", "split"]].drop_duplicates("study_id", ignore_index=True)
    exceptions = _section_exceptions(folders)
    section = settings.section
    reports, unreadable, whys = read_reports(
        studies,
        folders.report_root,
        section=section,
        exceptions=exceptions,
        counts=counts,
        with_why=settings.context,
    )
    if settings.context:
        reports = with_context(reports, whys, study_times(folders, counts), counts)
    return ReportTable(images, reports, counts, unreadable)


def _section_exceptions(folders: MimicFolders) -> Exceptions:
    path = folders.report_root / EXCEPTIONS_FILE
    return {**MIMIC_EXCEPTIONS, **read_exceptions(path)} if path.is_file() else MIMIC_EXCEPTIONS


def _count_studies_without_image(with_image: set[str], folders: MimicFolders, counts: Counter[str]) -> None:
    path = folders.optional_table(STUDY_LIST)
    if path is None:
        return
    studies = read_table_csv(path, COLUMNS[STUDY_LIST])["study_id"]
    counts["studies_without_image"] = int((~studies.isin(with_image)).sum())
    log.info("%s: %d of %d studies have no image and are left out", path, counts["studies_without_image"], len(studies))
