"""The tables that verify_ct_inputs has checked: what convert-ct-shard, convert-ct and build-ct-annotation read.

verify_ct_inputs writes, one object per line:

* ``volumes.jsonl``: the volumes to convert, without those set aside. ``source`` is the file or folder, ``file_name`` its
  array, relative to the folder of convert_ct;
* ``reports.jsonl``: the wanted section of each study;
* ``labels.jsonl``: the 18 abnormalities of each study that has them, null where unknown;
* ``regions.jsonl``: the text per region of studies that the source has split;

and, last, ``counts.json`` (:mod:`d2rnet.files.checked_tables`).
"""

import hashlib
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.ct.conversion.data_settings import CtSourceDataSettings
from d2rnet.ct.conversion.store import array_name
from d2rnet.ct.sources.tables import REGION_COLUMNS, STATED, CtTable
from d2rnet.files.checked_tables import HASHES, NUMBER, SETTINGS, TEXT, Columns, write_table
from d2rnet.files.documents import write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

COMMAND = "verify-ct-inputs"
PART = "ct"
VOLUMES: Columns = {
    **dict.fromkeys(("source", "file_name", "volume_id", "study_id", "subject_id", "split"), TEXT),
    **dict.fromkeys(STATED, (*NUMBER, NoneType)),
    "mask_folder": TEXT,  # of region masks, for evaluation only; "" where there is none
}
REPORTS: Columns = dict.fromkeys(("study_id", "subject_id", "split", "section", "report"), TEXT)
LABELS: Columns = {"study_id": TEXT, "labels": (list,)}
REGIONS: Columns = dict.fromkeys(REGION_COLUMNS, TEXT)


def array_file_name(volume_id: str, name: str) -> str:
    """Return where an array lies, relative to the folder of convert_ct: spread over 256 folders by a hash of the id.

    Args:
        volume_id: of the volume.
        name: file name of the array.
    """
    return f"volumes/{hashlib.md5(volume_id.encode(), usedforsecurity=False).hexdigest()[:2]}/{name}"


def write_checked(output: Path, table: CtTable, bad: set[str], settings: CtSourceDataSettings) -> dict[str, Any]:
    """Write the tables of a source.

    Args:
        output: folder of the tables.
        table: what the source's module read.
        bad: ids of the volumes that are set aside.
        settings: what the source was checked with.

    Returns:
        What to say of them in counts.json: hashes and counts.
    """
    volumes = table.volumes[~table.volumes["volume_id"].isin(bad)].rename(columns={"path": "source"})
    names = [array_name(volume_id, compress=settings.conversion.compress) for volume_id in volumes["volume_id"]]
    file_names = [array_file_name(*pair) for pair in zip(volumes["volume_id"], names, strict=True)]
    masks = [table.masks.get(volume_id, "") for volume_id in volumes["volume_id"]]
    volumes = volumes.assign(file_name=file_names, mask_folder=masks)
    volumes = volumes.astype(object).where(volumes.notna(), None)
    hashes = {
        "volumes": write_table(output / "volumes.jsonl", volumes, VOLUMES),
        "reports": write_table(output / "reports.jsonl", table.reports, REPORTS),
        "labels": _write_labels(output / "labels.jsonl", table.labels),
        "regions": write_table(output / "regions.jsonl", table.regions, REGIONS),
    }
    return {
        SETTINGS: settings.to_json(),
        HASHES: hashes,
        "release": table.release,
        "source": dict(table.counts),
        "volumes_set_aside": len(bad),
    }


def _write_labels(target: Path, labels: pd.DataFrame) -> str:
    cells = labels.to_numpy(dtype="float64") if len(labels) else np.zeros((0, len(CT_ABNORMALITIES)))
    records = (
        {"study_id": study_id, "labels": [None if np.isnan(value) else int(value) for value in row]}
        for study_id, row in zip(labels.index, cells, strict=True)
    )
    write_jsonl(target, records)
    return sha256_file(target)
