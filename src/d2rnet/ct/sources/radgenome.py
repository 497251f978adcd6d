"""RadGenome-ChestCT: reports of CT-RATE split by region, with region masks.

Volumes, reports, labels and splits are CT-RATE's (:mod:`d2rnet.ct.sources.ct_rate`), at ``ct.data.reports.root``. Beside them:
``train_region_report.csv`` and ``validation_region_report.csv`` (columns ``Volumename, Anatomy, Sentence``) in
``region_root``, or in ``radgenome_files`` below root. ``Anatomy`` is a region or a path of regions, of which the first counts;
empty stands for the whole scan. All sentences of a region are kept, in file order. Region masks are folders
``{train,valid}_region_mask/seg_<volume>`` below ``region_mask_root``; they serve evaluation alone. Volumes are named as in
CT-RATE (``train_1_a_1``) or without the underscore before the scan's letter (``train_1a_1``).
Licence of the data: as CT-RATE's. Source: Zhang et al., arXiv 2404.16754.
"""

import logging
from collections import Counter
from pathlib import Path

import pandas as pd

from d2rnet.ct.sources import ct_rate
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import REGION_COLUMNS, CtTable
from d2rnet.ct.sources.volume_names import study_key, volume_key
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile

log = logging.getLogger(__name__)

TERMS = ct_rate.TERMS
RELEASE_COUNTS = ct_rate.RELEASE_COUNTS
COLUMNS = ("Volumename", "Anatomy", "Sentence")
WHOLE_SCAN = "whole scan"


def required_files(settings: CtSourceSettings) -> list[RequiredFile]:
    """List what CT-RATE needs, and both tables of region reports."""
    tables = [
        RequiredFile(path, "ct.data.reports.region_root", f"RadGenome-ChestCT region reports of {part}", COLUMNS)
        for part, path in _region_tables(settings).items()
    ]
    return [*ct_rate.required_files(settings), *tables]


def _region_tables(settings: CtSourceSettings) -> dict[str, Path]:
    inner = ct_rate.dataset_folder(settings.root) / "radgenome_files"
    folders = [Path(settings.region_root)] if settings.region_root else [inner, ct_rate.dataset_folder(settings.root)]
    return {part: ct_rate.find_part_table(folders, part, "_region_report.csv") for part in ct_rate.PARTS}


def read_table(settings: CtSourceSettings, problems: Problems) -> CtTable:
    """Read CT-RATE and the region reports; see :mod:`d2rnet.ct.sources.tables`.

    Args:
        settings: ``ct.data.reports``.
        problems: as of :func:`d2rnet.ct.sources.ct_rate.read_table`.

    Raises:
        FileNotFoundError, DatasetError, ConfigError: as there.
    """
    table = ct_rate.read_table(settings, problems)
    tables = [read_table_csv(path, COLUMNS) for path in _region_tables(settings).values()]
    table.regions = _regions(pd.concat(tables, ignore_index=True), set(table.reports["study_id"]), table.counts)
    table.masks = _masks(settings, table.volumes, table.counts)
    return table


def _regions(rows: pd.DataFrame, studies: set[str], counts: Counter[str]) -> pd.DataFrame:
    """Join the sentences of each study and region; columns REGION_COLUMNS.

    Texts are of a study, whichever of its reconstructions the table names and whichever are converted: those of its lowest
    number count. A sentence said of two parts of a region is there once.
    """
    table = pd.DataFrame(map(study_key, rows["Volumename"]), columns=["study_id", "number"])
    table["region"] = rows["Anatomy"].str.partition("/")[0].str.strip().str.lower().replace("", WHOLE_SCAN)
    table["text"] = rows["Sentence"].str.split().str.join(" ")
    counts["region_rows_in_table"] = len(table)
    for reason, kept in (
        ("of_other_studies", lambda left: left["study_id"].isin(studies)),
        ("without_text", lambda left: left["text"] != ""),
        ("of_other_reconstructions", lambda left: left["number"] == left.groupby("study_id")["number"].transform("min")),
        ("repeated", lambda left: ~left.duplicated(["study_id", "region", "text"])),
    ):
        is_kept = kept(table)
        counts[f"region_rows_{reason}"] = int((~is_kept).sum())
        table = table[is_kept]
    counts["studies_without_regions"] = len(studies - set(table["study_id"]))
    joined = table.groupby(["study_id", "region"], sort=False)["text"].agg(" ".join).reset_index()
    return joined[list(REGION_COLUMNS)]


def _masks(settings: CtSourceSettings, volumes: pd.DataFrame, counts: Counter[str]) -> dict[str, str]:
    """Return the mask folder of each volume that has one."""
    root = Path(settings.region_mask_root) if settings.region_mask_root else ct_rate.dataset_folder(settings.root)
    there: dict[str, str] = {}
    for part in ct_rate.PARTS:
        for folder in sorted(root.glob(f"{part}_region_mask/seg_*/")):  # of two spellings CT-RATE's own comes first
            there.setdefault(volume_key(folder.name.removeprefix("seg_")), str(folder))
    found = {volume_id: there[volume_id] for volume_id in volumes["volume_id"] if volume_id in there}
    counts["volumes_with_region_masks"] = len(found)
    return found
