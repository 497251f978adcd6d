"""CTRG-Chest in the form that its users pass on: a JSON file of reports, and a volume per id.

Layout: ``ct.data.reports.table``, ``{"train": [{"id", "finding" or "report"}, ...], "val": ..., "test": ...}`` or a list,
which gets a seeded 70/10/20 split; volumes ``<id>.nii.gz`` (or another format, or a folder of DICOM files) below root. The
collection's own archive holds pictures of slices, 8 bits without Hounsfield units or spacing: they are refused.

No patient is told: each record counts as its own. Ids of the public samples begin with what may be a person's name: give
``ct.data.reports.id_map`` where yours do: volumes and studies go by its aliases, and only paths of files tell the ids.
No licence is stated. Source: Tang et al., Medical Image Analysis 2024, "Work like a doctor".
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import CtTable, report_table, volume_table
from d2rnet.ct.sources.volume_paths import find_volume, note_absent, own_name, read_id_map, with_splits
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json
from d2rnet.files.problems import Problems
from d2rnet.files.required_files import RequiredFile
from d2rnet.files.table_checks import SAFE_ID, SPLIT_NAMES

log = logging.getLogger(__name__)

TERMS = "none stated by its publisher"
RELEASE_COUNTS: Mapping[str, int] = {}
TEXT_KEYS = ("finding", "findings", "report")
SCHEMA = '{"train": [{"id", "finding" or "report"}, ...], "val": ..., "test": ...}, or a list of such records'
_WORDS = re.compile(r"[^\W\d_]{3,}")


def required_files(settings: CtSourceSettings) -> list[RequiredFile]:
    """List the root and the JSON file."""
    table = RequiredFile(Path(settings.root, settings.table), "ct.data.reports.table", f"CTRG reports: {SCHEMA}")
    return [RequiredFile(Path(settings.root), "ct.data.reports.root", "folder of the volumes"), table]


def read_table(settings: CtSourceSettings, problems: Problems) -> CtTable:
    """Read the reports and find the volumes; see :mod:`d2rnet.ct.sources.tables`.

    Args:
        settings: ``ct.data.reports``.
        problems: grows by malformed records, repeated ids, pictures of slices in place of a volume, and missing volumes.

    Raises:
        FileNotFoundError: there is no such JSON file.
        DatasetError: it is of another form, or no volume is there.
    """
    root = Path(settings.root)
    file = root / settings.table
    counts: Counter[str] = Counter()
    aliases = read_id_map(settings)
    records = _read_records(file, problems)
    counts["studies_in_table"] = len(records)
    absent: list[str] = []
    rows: list[dict[str, object]] = []
    splits = _splits([(own_name(source_id, aliases, file), split) for _, split, source_id, _ in records], settings)
    for place, _, source_id, text in records:
        name = own_name(source_id, aliases, file)
        try:
            path = find_volume(root, source_id)
        except DatasetError as error:
            problems.add(
                "no_volume",
                file=file,
                record=place,
                got=str(error),
                expected="a volume",
                remedy="Give its NIfTI or DICOM files.",
            )
            continue
        if path is None:
            absent.append(name)
            continue
        rows.append({"volume_id": name, "study_id": name, "subject_id": name, "path": path, "report": text})
    note_absent(absent, len(records), settings, counts, problems)
    if not rows:
        raise DatasetError(f"{root}: none of the volumes of {settings.table} is below this folder. Set ct.data.reports.root.")
    if not aliases and (named := sum(bool(_WORDS.search(str(row["volume_id"]))) for row in rows)):
        counts["ids_with_words"] = named
        log.warning("%s: %d ids contain words, perhaps names; ct.data.reports.id_map replaces them by aliases", file, named)
    studies = pd.DataFrame(rows)
    studies = studies.assign(split=studies["study_id"].map(splits))
    texts = report_table(studies, settings.section, counts)
    volumes = studies[studies["study_id"].isin(texts["study_id"])]
    counts["volumes_kept"] = len(volumes)
    return CtTable(volume_table(volumes), texts, counts=counts)


def _splits(records: list[tuple[str, str]], settings: CtSourceSettings) -> dict[str, str]:
    """Return name -> split of all records (name, split or ""), there or not."""
    listed = pd.DataFrame(records, columns=["subject_id", "split"])
    listed = with_splits(listed, settings)
    return dict(zip(listed["subject_id"], listed["split"], strict=True))


def _read_records(file: Path, problems: Problems) -> list[tuple[str, str, str, str]]:
    """Return place, split ("" where there is none), id and text of each sound record; note the others."""
    content = read_json(file)
    parts: Any = {"": content} if isinstance(content, list) else content
    known = {"", *SPLIT_NAMES}
    if not isinstance(parts, dict) or not all(name in known and isinstance(part, list) for name, part in parts.items()):
        raise DatasetError(f"{file}: expected {SCHEMA}.")
    found = []
    seen: set[str] = set()
    for name, part in parts.items():
        for number, record in enumerate(part, start=1):
            place = f"record {number}" + (f" of {name}" if name else "")
            complaint = _complaint(record, seen)
            if complaint:
                kind, got, expected = complaint
                problems.add(kind, file=file, record=place, got=got, expected=expected, remedy="Mend or remove the record.")
                continue
            source_id = str(record["id"])
            seen.add(source_id)
            text = next(record[key] for key in TEXT_KEYS if key in record)
            found.append((place, SPLIT_NAMES.get(name, ""), source_id, " ".join(text.split())))
    return found


def _complaint(record: Any, seen: set[str]) -> tuple[str, str, str] | None:
    """Say what is wrong with a record: kind, got, expected; None where nothing is."""
    if not isinstance(record, dict):
        return "bad_record", f"a {type(record).__name__}", "an object with id and finding or report"
    source_id = record.get("id")
    if type(source_id) not in (str, int) or not SAFE_ID.fullmatch(str(source_id)):
        return "bad_id", f"id {source_id!a:.200}", "letters, digits, '.', '_' and '-', without '..'"
    texts = [record[key] for key in TEXT_KEYS if key in record]
    if len(texts) != 1 or not isinstance(texts[0], str):
        return "bad_record", f"keys {', '.join(map(str, record))[:200]}", f"one text under {', '.join(TEXT_KEYS)}"
    if str(source_id) in seen:
        return "duplicate_id", f"id {source_id} again", "each once"
    return None
