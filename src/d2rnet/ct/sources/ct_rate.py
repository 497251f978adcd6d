"""CT-RATE: chest CT volumes with reports and 18 labels, releases v1 and v2.

Layout, below ``root`` or ``root/dataset``: volumes ``train_fixed/train_1/train_1_a/train_1_a_1.nii.gz`` (v2; v1 has ``train``
and ``valid`` in place of ``train_fixed`` and ``valid_fixed``), tables in ``radiology_text_reports/``, ``metadata/`` and
``multi_abnormality_labels/`` or beside them. File names say ``valid`` in some releases and ``validation`` in others; both are
taken. A name is split, patient, scan, reconstruction: ``valid_53_a_1``; a patient is ``valid_53``, a study ``valid_53_a``.

The official validation part is our test split; our validation split is carved out of the training patients. Volumes named in
``no_chest_*.txt`` are left out. Short reports stay. What the metadata say of rescaling and spacing is handed on beside the
volume, never applied here: v2's voxels are Hounsfield units already, and the table still holds the original slope.
Full release: 25,692 studies, 50,188 volumes, 21,304 patients. Licence of the data: CC BY-NC-SA, no redistribution.
Source: Hamamci et al., arXiv 2403.17834.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import STATED, CtTable, report_table, volume_table
from d2rnet.ct.sources.volume_names import SUFFIX, study_key
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.documents import check_regular_file
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.splits import validation_split
from d2rnet.files.table_checks import drop_bad_ids, drop_duplicates
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

log = logging.getLogger(__name__)

TERMS = "CC BY-NC-SA 4.0; no part may be passed on"
RELEASE_COUNTS: Mapping[str, int] = {"volumes_in_table": 50_188, "studies_in_table": 25_692, "patients_in_table": 21_304}
PARTS = {"train": ("train",), "valid": ("validation", "valid")}  # part -> words for it in names of tables
SECTIONS = {"findings": "Findings_EN", "impression": "Impressions_EN"}
FILLERS = frozenset({"not given", "not given."})
TREES = {"v1": "", "v2": "_fixed"}
NAME = re.compile(r"(?P<subject_id>(?P<part>train|valid)_[1-9]\d{0,8})_(?P<scan>[a-z]{1,3})_(?P<number>[1-9]\d{0,5})")
_SHOWN = 3


def dataset_folder(root: str) -> Path:
    """Return the folder that holds trees and tables: ``root/dataset`` where it exists, else ``root``."""
    inner = Path(root, "dataset")
    return inner if inner.is_dir() else Path(root)


def find_part_table(folders: list[Path], part: str, ending: str) -> Path:
    """Return the table of a part, by either of its names; the first name where there is none, for the message.

    Args:
        folders: where it may lie, in this order.
        part: train or valid.
        ending: what follows the word for the part, such as ``_reports.csv``.

    Raises:
        DatasetError: it is there under two names.
    """
    names = [folder / f"{word}{ending}{packed}" for folder in folders for word in PARTS[part] for packed in ("", ".gz")]
    found = [path for path in names if path.exists()]
    if len(found) > 1:
        raise DatasetError(
            f"{found[0].parent}: {len(found)} tables of the same part: {', '.join(path.name for path in found)}; expected "
            "one. Keep the one of the release whose volumes you have."
        )
    return found[0] if found else names[0]


def reports_path(settings: CtSourceSettings, part: str) -> Path:
    """Return the table of reports of a part."""
    base = dataset_folder(settings.root)
    return find_part_table([base / "radiology_text_reports", base], part, "_reports.csv")


def required_files(settings: CtSourceSettings) -> list[RequiredFile]:
    """List the root and both tables of reports."""
    key = "ct.data.reports.root"
    columns = ("VolumeName", SECTIONS[settings.section])
    tables = [RequiredFile(reports_path(settings, part), key, f"CT-RATE reports of {part}", columns) for part in PARTS]
    return [RequiredFile(Path(settings.root), key, "folder of CT-RATE"), *tables]


def read_table(settings: CtSourceSettings, problems: Problems) -> CtTable:
    """Read the tables of CT-RATE; see :mod:`d2rnet.ct.sources.tables`.

    Args:
        settings: ``ct.data.reports``.
        problems: grows by malformed or repeated names, by labels that are no 0 or 1, and by studies without a volume where
            ``require_all`` is on.

    Raises:
        FileNotFoundError: a table of reports is missing.
        DatasetError: no volume is there, or a table lacks a column.
        ConfigError: both releases lie below root and ``release`` does not say which.
    """
    base = dataset_folder(settings.root)
    counts: Counter[str] = Counter()
    listed = pd.concat([_read_names(settings, part, problems) for part in PARTS], ignore_index=True)
    listed["study_id"] = listed["subject_id"] + "_" + listed["scan"]
    listed["split"] = _splits(listed, settings)
    for what, column in (("volumes", "volume_id"), ("studies", "study_id"), ("patients", "subject_id")):
        counts[f"{what}_in_table"] = listed[column].nunique()
    ending = _tree(base, settings.release)
    listed["path"] = _paths(listed, base, ending)
    chosen = _choose(listed, base, settings, counts, problems)
    chosen = _with_metadata(chosen, base, counts)
    texts = _reports(chosen, listed, settings.section, counts)
    volumes = chosen[chosen["study_id"].isin(texts["study_id"])]
    counts["volumes_without_report"] = len(chosen) - len(volumes)
    counts["volumes_kept"] = len(volumes)
    release = next(name for name, tree in TREES.items() if tree == ending)
    labels = _labels(volumes, base, counts, problems)
    return CtTable(volume_table(volumes), texts, labels, counts=counts, release=release)


def _read_names(settings: CtSourceSettings, part: str, problems: Problems) -> pd.DataFrame:
    """Read the reports of a part; columns volume_id, subject_id, scan, number, part, report."""
    path = reports_path(settings, part)
    column = SECTIONS[settings.section]
    table = read_table_csv(path, ["VolumeName", column]).rename(columns={"VolumeName": "volume_id", column: "report"})
    table["volume_id"] = table["volume_id"].str.replace(SUFFIX, "", regex=True)
    expected = f"a name such as {part}_53_a_1.nii.gz"
    form = re.compile(NAME.pattern.replace("train|valid", part))
    table = drop_bad_ids(table, "volume_id", form, expected, file=path, problems=problems)
    table = drop_duplicates(table, "volume_id", file=path, problems=problems)
    parts = table["volume_id"].str.extract(NAME)
    return table.assign(**{name: parts[name] for name in ("subject_id", "scan", "part")}, number=parts["number"].astype(int))


def _splits(listed: pd.DataFrame, settings: CtSourceSettings) -> pd.Series:
    """Return test for the official validation part; of the training patients, some are set aside as val.

    All patients of the tables take part, so that a download that grows does not move anybody.
    """
    training = listed.loc[listed["part"] == "train", "subject_id"]
    assigned = validation_split(training, val_fraction=settings.val_fraction, seed=settings.split_seed)
    return listed["subject_id"].map(assigned).fillna("test")


def _tree(base: Path, release: str) -> str:
    """Return the ending of the folders of volumes: "" for v1, "_fixed" for v2.

    Raises:
        ConfigError: both are there and the setting is auto.
    """
    if release != "auto":
        return TREES[release]
    there = [name for name, ending in TREES.items() if any((base / f"{part}{ending}").is_dir() for part in PARTS)]
    if len(there) > 1:
        raise ConfigError(
            f"{base}: holds volumes of {' and '.join(there)}; expected one release. Set ct.data.reports.release to v1 or v2."
        )
    return TREES[there[0]] if there else TREES["v2"]


def _paths(listed: pd.DataFrame, base: Path, ending: str) -> list[str]:
    """Return the file that each volume should be."""
    columns = (listed[name] for name in ("part", "subject_id", "study_id", "volume_id"))
    return [
        f"{base}/{part}{ending}/{subject}/{study}/{volume}.nii.gz"
        for part, subject, study, volume in zip(*columns, strict=True)
    ]


def read_no_chest(base: Path) -> set[str]:
    """Return the volumes that the lists ``no_chest_train.txt`` and ``no_chest_valid.txt`` name, without folder and suffix.

    Raises:
        DatasetError: a list is no text.
    """
    named: set[str] = set()
    for folder in (base / "metadata", base):
        for words in PARTS.values():
            for path in (folder / f"no_chest_{word}.txt" for word in words):
                if path.exists():
                    check_regular_file(path)
                    named |= {SUFFIX.sub("", line.rpartition("/")[2]) for line in _read_list(path)}
    return named


def _read_list(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not UTF-8 at byte {error.start}; expected names of volumes. Take the original list."
        ) from error
    if "\0" in text:
        raise DatasetError(f"{path}: a NUL character; expected names of volumes. Take the original list.")
    return text.split()


def _choose(
    listed: pd.DataFrame, base: Path, settings: CtSourceSettings, counts: Counter[str], problems: Problems
) -> pd.DataFrame:
    """Return the volumes to convert: those that are there, are chests, and of each study one or all reconstructions."""
    no_chest = listed["volume_id"].isin(read_no_chest(base))
    counts["volumes_no_chest"] = int(no_chest.sum())
    wanted = listed[~no_chest].sort_values(["part", "study_id", "number"], kind="stable")
    is_there = np.fromiter(map(os.path.isfile, wanted["path"]), dtype=bool, count=len(wanted))
    present = wanted[is_there]
    if settings.reconstructions == "one":
        counts["volumes_other_reconstructions"] = int(present["study_id"].duplicated().sum())
        present = present[~present["study_id"].duplicated()]
        absent = wanted[~wanted["study_id"].isin(present["study_id"]) & ~wanted["study_id"].duplicated()]
    else:
        absent = wanted[~is_there]
    counts["volumes_absent"] = int((~is_there).sum())
    counts["studies_absent"] = wanted["study_id"].nunique() - present["study_id"].nunique()
    _note_absent(absent, settings, problems)
    if present.empty:
        raise DatasetError(
            f"{base}: none of {len(wanted)} volumes of the tables is there, the first {wanted['path'].iloc[0]}. "
            "Set ct.data.reports.root, and ct.data.reports.release if the tree is of the other release."
            if len(wanted)
            else f"{base}: the tables list no chest volume. Take the original tables."
        )
    return present.reset_index(drop=True)


def _note_absent(absent: pd.DataFrame, settings: CtSourceSettings, problems: Problems) -> None:
    """Note what is missing, by part and not file by file: half of a 20 TB download has 25,000 of them."""
    what = "studies have no volume" if settings.reconstructions == "one" else "volumes are missing"
    for part, rows in absent.groupby("part"):
        log.warning("ct.data.reports: %s: %d %s", part, len(rows), what)
        if not settings.require_all:
            continue
        shown = ", ".join(rows["path"].head(_SHOWN))
        problems.add(
            "missing_volumes",
            file=settings.root,
            record=f"part {part}",
            got=f"{len(rows)} {what}, the first {shown}",
            expected="every volume that the tables list",
            remedy="Fetch them, or set ct.data.reports.require_all to false to take what is there.",
        )


def _with_metadata(volumes: pd.DataFrame, base: Path, counts: Counter[str]) -> pd.DataFrame:
    """Add what the metadata tables say of rescaling and spacing; NaN where they say nothing or are not there."""
    columns = ("RescaleSlope", "RescaleIntercept", "ZSpacing", "XYSpacing")
    tables = []
    for part in PARTS:
        path = find_part_table([base / "metadata", base], part, "_metadata.csv")
        if path.exists():
            tables.append(
                read_table_csv(path, ["VolumeName"], optional=columns).reindex(columns=["VolumeName", *columns], fill_value="")
            )
        else:
            log.warning("%s: no such table; what it says of rescaling and spacing is not known", path)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["VolumeName", *columns], dtype=str)
    table["volume_id"] = table["VolumeName"].str.replace(SUFFIX, "", regex=True)
    in_plane = table["XYSpacing"].str.extract(r"^\[?\s*([^,\s]+)\s*,\s*([^\]\s]+)\s*\]?$")  # "[0.34, 0.34]": row, then column
    cells = pd.DataFrame(
        {
            "slope": table["RescaleSlope"],
            "intercept": table["RescaleIntercept"],
            "spacing_z_mm": table["ZSpacing"],
            "spacing_y_mm": in_plane[0],
            "spacing_x_mm": in_plane[1],
        }
    )
    stated = cells.apply(pd.to_numeric, errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)
    written = table[list(columns)].fillna("") != ""
    understood = (
        stated[["slope", "intercept", "spacing_z_mm"]]
        .notna()
        .assign(xy=stated[["spacing_y_mm", "spacing_x_mm"]].notna().all(axis=1))
    )
    order = ["RescaleSlope", "RescaleIntercept", "ZSpacing", "XYSpacing"]
    unread = int((written[order].to_numpy() & ~understood.to_numpy()).sum())
    counts["metadata_cells_not_understood"] = unread
    if unread:
        log.warning("%s: %d cells of the metadata are no numbers and count as blank", base, unread)
    stated = stated.set_index(table["volume_id"])
    stated = stated[~stated.index.duplicated()]
    joined = volumes.join(stated[list(STATED)], on="volume_id")
    counts["volumes_without_metadata"] = int((~joined["volume_id"].isin(stated.index)).sum())
    return joined


def _reports(volumes: pd.DataFrame, listed: pd.DataFrame, section: str, counts: Counter[str]) -> pd.DataFrame:
    """Return the text of each study of ``volumes``; count studies without text and with differing ones.

    It is that of the first reconstruction that has one, there or not, so that a download that grows changes no text.
    """
    rows = listed[listed["study_id"].isin(volumes["study_id"])].sort_values("number", kind="stable")
    texts = rows["report"].str.split().str.join(" ")
    texts = texts[(texts != "") & ~texts.str.lower().isin(FILLERS)]
    by_study = texts.groupby(rows["study_id"])
    differing = int((by_study.nunique() > 1).sum())
    counts["studies_with_differing_reports"] = differing
    if differing:
        log.warning("%d studies have other texts for other reconstructions; the first one's is taken", differing)
    studies = volumes[~volumes["study_id"].duplicated()]
    studies = studies.assign(report=studies["study_id"].map(by_study.first()).fillna(""))
    return report_table(studies, section, counts)


def _labels(volumes: pd.DataFrame, base: Path, counts: Counter[str], problems: Problems) -> pd.DataFrame:
    """Return the 18 labels of each study that the tables have, of its first reconstruction there; NaN for blank cells."""
    found = []
    for part in PARTS:
        path = find_part_table([base / "multi_abnormality_labels", base], part, "_predicted_labels.csv")
        if not path.exists():
            log.warning("%s: no such table; studies of this part have no labels", path)
            continue
        table = read_table_csv(path, ["VolumeName", *CT_ABNORMALITIES])
        names = pd.DataFrame(map(study_key, table["VolumeName"]), columns=["study_id", "number"])
        cells = _label_cells(table[list(CT_ABNORMALITIES)], path, problems)
        found.append(pd.concat([names, cells.reset_index(drop=True)], axis=1))
    if not found:
        return pd.DataFrame(columns=list(CT_ABNORMALITIES), dtype="float64")
    labels = pd.concat(found).sort_values("number", kind="stable")
    labels = labels[~labels["study_id"].duplicated()].set_index("study_id")[list(CT_ABNORMALITIES)]
    studies = volumes["study_id"].drop_duplicates()
    of_study = labels.loc[studies[studies.isin(labels.index)]]
    counts["studies_without_labels"] = len(studies) - len(of_study)
    counts["labels_blank"] = int(of_study.isna().to_numpy().sum())
    return of_study


def _label_cells(cells: pd.DataFrame, path: Path, problems: Problems) -> pd.DataFrame:
    """Turn text cells into 1, 0 and NaN (blank); note each that is something else."""
    values = cells.replace({"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": np.nan})
    odd = values.map(lambda value: isinstance(value, str))
    for row, column in zip(*np.nonzero(odd.to_numpy()), strict=True):
        problems.add(
            "bad_label",
            file=path,
            record=f"row {row + 1}",
            got=f"'{cells.iat[row, column]}' under '{cells.columns[column]}'",
            expected="0, 1 or an empty cell",
            remedy="Mend the cell or take the original table.",
        )
    return values.mask(odd, np.nan).astype("float64")
