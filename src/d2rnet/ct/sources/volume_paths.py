"""Finds the volume of a record on disk, gives records splits and ids, for sources whose tables name studies and no tree.

Reads folder listings; opens no volume.
"""

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.names import is_path_below
from d2rnet.files.problems import Problems
from d2rnet.files.splits import three_way_split, validation_split
from d2rnet.files.table_checks import SAFE_ID

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
SLICE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SHOWN = 3


def find_volume(root: Path, name: str) -> Path | None:
    """Return the volume of a name below root: the file itself, with one of SUFFIXES, or the folder of a DICOM series.

    Args:
        root: folder of the source.
        name: relative path, with or without suffix.

    Raises:
        DatasetError: the name leaves root, or the folder holds pictures of slices, which have no Hounsfield units.
    """
    if not is_path_below(name):
        raise DatasetError(f"'{name!a:.200}'; expected a path below {root} without '..'")
    plain = root / name
    if plain.is_file():
        return plain
    for suffix in SUFFIXES:
        if (found := root / f"{name}{suffix}").is_file():
            return found
    if not plain.is_dir():
        return None
    suffixes = {path.suffix.lower() for path in plain.iterdir() if path.is_file()}
    if suffixes and suffixes <= SLICE_SUFFIXES:
        raise DatasetError(
            f"a folder of {', '.join(sorted(suffixes))} pictures; expected a volume in Hounsfield units. Pictures of slices "
            "have 8 bits, no Hounsfield units and no spacing: ask for the NIfTI or DICOM files"
        )
    return plain


def id_of(path: str) -> str:
    """Turn a relative path into an id that can be a file name: ``a/scan 1.nii.gz`` is ``a_scan_1``."""
    for suffix in SUFFIXES:
        path = path.removesuffix(suffix)
    return _UNSAFE.sub("_", path.strip("/")).replace("..", "_").strip("._-") or "volume"


def read_id_map(settings: CtSourceSettings) -> dict[str, str]:
    """Return id -> alias of ``ct.data.reports.id_map``; empty where there is none.

    Raises:
        DatasetError: an id or an alias is there twice, or an alias can be no file name.
    """
    if settings.id_map is None:
        return {}
    path = Path(settings.root, settings.id_map)
    table = read_table_csv(path, ["id", "alias"])
    for column in ("id", "alias"):
        repeated = table.loc[table[column].duplicated(), column].unique()
        if len(repeated):
            raise DatasetError(f"{path}: {column} {', '.join(repeated[:_SHOWN])} more than once; expected each once.")
    odd = [alias for alias in table["alias"] if not SAFE_ID.fullmatch(alias)]
    if odd:
        raise DatasetError(f"{path}: alias {odd[0]!a:.200}; expected letters, digits, '.', '_' and '-'.")
    return dict(zip(table["id"], table["alias"], strict=True))


def own_name(source_id: str, aliases: dict[str, str], file: Path) -> str:
    """Return the alias of an id; the id itself where there is no map.

    Raises:
        DatasetError: there is a map and it lacks the id.
    """
    if not aliases:
        return source_id
    if source_id not in aliases:
        raise DatasetError(f"{file}: the id map has no alias for one of its ids; expected one for each. Add it to the map.")
    return aliases[source_id]


def with_splits(studies: pd.DataFrame, settings: CtSourceSettings) -> pd.DataFrame:
    """Give studies their split: the source's own, else a seeded one by patient; val out of train where only val is missing.

    All that the source lists takes part, there or not, so that a download that grows moves nobody.

    Args:
        studies: columns ``subject_id`` and ``split``, "" where the source has none; all rows of the source's table.
        settings: ``val_fraction`` and ``split_seed``.

    Raises:
        DatasetError: some studies have a split and some do not, or there are too few patients.
    """
    try:
        return _dealt(studies, settings)
    except DatasetError as error:
        raise DatasetError(f"{Path(settings.root, settings.table)}: {error}") from error


def _dealt(studies: pd.DataFrame, settings: CtSourceSettings) -> pd.DataFrame:
    without = studies["split"] == ""
    if without.all():
        assigned = three_way_split(studies["subject_id"], seed=settings.split_seed)
        return studies.assign(split=studies["subject_id"].map(assigned))
    if without.any():
        raise DatasetError(f"{without.sum()} of {len(studies)} studies have no split; expected one for all or for none.")
    if "val" not in set(studies["split"]):
        training = studies.loc[studies["split"] == "train", "subject_id"]
        assigned = validation_split(training, val_fraction=settings.val_fraction, seed=settings.split_seed)
        own = studies["subject_id"].map(assigned).where(studies["split"] == "train")
        return studies.assign(split=own.fillna(studies["split"]))
    return studies


def note_absent(absent: list[str], total: int, settings: CtSourceSettings, counts: Counter[str], problems: Problems) -> None:
    """Count the volumes that are listed and not there; note them in one problem unless ``require_all`` is off."""
    counts["volumes_absent"] = len(absent)
    if absent and settings.require_all:
        problems.add(
            "missing_volumes",
            file=settings.root,
            record="ct.data.reports",
            got=f"{len(absent)} of {total} volumes are missing, the first {', '.join(absent[:_SHOWN])}",
            expected=f"a file with one of {', '.join(SUFFIXES)}, or the folder of a DICOM series, below root",
            remedy="Fetch them, or set ct.data.reports.require_all to false to take what is there.",
        )
