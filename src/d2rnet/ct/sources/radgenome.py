"""RadGenome-ChestCT: reports of CT-RATE split by region, with region masks.

Volumes, reports, labels and splits are CT-RATE's (:mod:`d2rnet.ct.sources.ct_rate`), at ``ct.data.reports.root``. Beside them:
``train_region_report.csv`` and ``validation_region_report.csv`` (columns ``Volumename, Anatomy, Sentence``) in
``region_root``, or in ``radgenome_files`` below root. ``Anatomy`` is a region or a path of regions, of which the first counts;
empty stands for the whole scan. All rows of a region are kept, in file order. Region masks are folders
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
from d2rnet.ct.sources.volume_names import volume_key
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
    study_of = dict(zip(table.volumes["volume_id"], table.volumes["study_id"], strict=True))
    tables = [read_table_csv(path, COLUMNS) for path in _region_tables(settings).values()]
    table.regions = _regions(pd.concat(tables, ignore_index=True), study_of, table.counts)
    table.masks = _masks(settings, table.volumes, table.counts)
    return table


def _regions(rows: pd.DataFrame, study_of: dict[str, str], counts: Counter[str]) -> pd.DataFrame:
    """Join the sentences of each study and region; columns REGION_COLUMNS."""
    volume_ids = rows["Volumename"].map(volume_key)
    regions = rows["Anatomy"].str.partition("/")[0].str.strip().str.lower().replace("", WHOLE_SCAN)
    texts = rows["Sentence"].str.split().str.join(" ")
    table = pd.DataFrame({"study_id": volume_ids.map(study_of), "region": regions, "text": texts})
    counts["region_rows_in_table"] = len(table)
    counts["region_rows_of_other_volumes"] = int(table["study_id"].isna().sum())
    counts["region_rows_without_text"] = int((table["study_id"].notna() & (table["text"] == "")).sum())
    table = table[table["study_id"].notna() & (table["text"] != "")]
    counts["studies_without_regions"] = len(set(study_of.values()) - set(table["study_id"]))
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
