"""convert_ct: join the shards of the conversion into one table of volumes, with counts, a card and a picture to look at.

Reads: the tables that verify_ct_inputs has checked, the records of convert-ct-shard, and the arrays of the volumes that are
drawn. Writes, into the output folder:

* ``volumes.jsonl``: ``volume_id, study_id, subject_id, split, volume_path`` (relative to this folder), ``mask_folder`` and the
  facts of the conversion, one volume a line, readable ones only;
* ``quarantine.jsonl``: ``path, volume_id, reason`` of the others;
* ``contact_sheet.png``, ``counts.json``, ``data_card.md``, ``run.json``.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.ct.conversion.checked_tables import COMMAND, PART, VOLUMES
from d2rnet.ct.conversion.contact_sheet import ShownVolume, draw_contact_sheet
from d2rnet.ct.conversion.data_settings import CtSourceDataSettings, CtVolumeConversionSettings
from d2rnet.ct.conversion.grid import to_hounsfield_units
from d2rnet.ct.conversion.store import read_array
from d2rnet.ct.conversion.verify import note_too_many
from d2rnet.ct.conversion.volume_shards import join_shards
from d2rnet.ct.sources.tables import ct_source
from d2rnet.files.checked_tables import count_of, read_counts, read_table
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.problems import Problems
from d2rnet.files.table_checks import assert_patients_disjoint, assert_splits_filled
from d2rnet.report.annotation_file import SPLITS
from d2rnet.runs.cards import ORIGIN_KEY, Card, origin_line, write_card
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

CARD = Card(
    "data_card.md",
    Path(__file__).with_name("ct_card.md.template"),
    versions=("python", "numpy", "nibabel", "SimpleITK", "pydicom", "opencv-python-headless"),
    sections=("reports", "volumes", "conversion"),
)
SHOWN_VOLUMES = 12
_NUMBER = re.compile(r"-?\d[\d.,]*(e[-+]?\d+)?%?")
_KEYS = ("volume_id", "study_id", "subject_id", "split", "mask_folder")


def convert_ct(*, volumes: Path, counts: Path, shards: Sequence[Path], output: Path, settings: CtSourceDataSettings) -> None:
    """Join the shards of the conversion.

    Args:
        volumes: ``volumes.jsonl`` of verify-ct-inputs.
        counts: ``counts.json`` of verify-ct-inputs.
        shards: records of convert-ct-shard, all of them.
        output: folder that the arrays lie in.
        settings: sections ``ct.data.reports``, ``ct.data.volumes`` and ``ct.data.conversion``.

    Raises:
        DatasetError: the list is not the one that was checked, a shard is missing or was made with other settings, too many
            volumes are unreadable, a patient is in two splits, or no volume of a split is left.
    """
    counted, inputs = read_counts(counts, PART, settings=settings.to_json(), command=COMMAND, volumes=volumes)
    listed = read_table(volumes, VOLUMES, command=COMMAND)
    conversion = CtVolumeConversionSettings(volumes=settings.volumes, conversion=settings.conversion)
    records = join_shards(shards, listed, conversion)
    bad = [_set_aside(record) for record in records if record["reason"] is not None]
    problems = Problems()
    by_headers = count_of(counted, "volumes_set_aside", command=COMMAND)
    note_too_many(bad, len(records), settings.max_bad_fraction, problems, by_headers=by_headers)
    problems.raise_if_any(details=output / "problems.jsonl")
    rows = listed.to_dict("records")
    good = [_line(row, record) for row, record in zip(rows, records, strict=True) if record["reason"] is None]
    write_jsonl(output / "quarantine.jsonl", bad)
    left = [line["split"] for line in good]
    assert_splits_filled(listed["split"], left, SPLITS, key="ct.data.reports", what="volume")
    table = pd.DataFrame(good)[["subject_id", "split"]]
    assert_patients_disjoint(table, table, key="ct.data.reports")
    write_jsonl(output / "volumes.jsonl", good)
    _draw(good, output, settings.conversion.window_hu)
    counted |= _counts(good, bad)
    log.info("convert-ct: %d volumes of %d studies; %d set aside", len(good), counted["studies"], len(bad))
    write_json(output / "counts.json", counted)
    source = settings.reports
    write_run_record(
        output / "run.json",
        command="convert-ct",
        settings=settings,
        inputs=inputs,
        counts=counted,
        seeds={"split": source.split_seed},
        extra={ORIGIN_KEY: origin_line(ct_source(source.source).TERMS, source.source, source.root)},
    )
    write_card(CARD, output)


def _set_aside(record: dict[str, Any]) -> dict[str, str]:
    return {"path": record["source"], "volume_id": record["volume_id"], "reason": record["reason"]}


def _line(row: dict[Any, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a volume: its names, its array, and the facts of the conversion."""
    facts = {key: value for key, value in record.items() if key not in ("volume_id", "source", "file_name", "reason")}
    return {key: row[key] for key in _KEYS} | {"volume_path": record["file_name"], **facts}


def _draw(volumes: list[dict[str, Any]], output: Path, window_hu: tuple[float, float]) -> None:
    """Draw volumes spread evenly over the list."""
    step = max(1, len(volumes) // SHOWN_VOLUMES)
    shown = []
    for line in volumes[::step][:SHOWN_VOLUMES]:
        hu = to_hounsfield_units(read_array(output / line["volume_path"]), window_hu)
        z, y, x = line["spacing_mm"]
        shown.append(ShownVolume(f"{line['volume_id']}  {z:g} x {y:g} x {x:g} mm", hu, (z, y, x)))
    draw_contact_sheet(shown, output / "contact_sheet.png")


def _split_counts(lines: list[dict[str, Any]]) -> dict[str, int]:
    keys = {"volumes": "volume_id", "studies": "study_id", "patients": "subject_id"}
    return {name: len({line[key] for line in lines}) for name, key in keys.items()}


def _kind(note: str) -> str:
    """Return what notes of one kind have in common: the part before the colon, numbers left open."""
    return _NUMBER.sub("..", note.partition(":")[0])


def _counts(good: list[dict[str, Any]], bad: list[dict[str, str]]) -> dict[str, Any]:
    notes = Counter(_kind(note) for line in good for note in line["notes"])
    return {
        "volumes": len(good),
        "studies": len({line["study_id"] for line in good}),
        "patients": len({line["subject_id"] for line in good}),
        "volumes_unreadable": len(bad),
        "splits": {split: _split_counts([line for line in good if line["split"] == split]) for split in SPLITS},
        "hu": dict(Counter(line["hu_source"].partition(":")[0] for line in good)),
        "body_cut_off": sum(line["body_outside_fraction"] > 0.01 for line in good),
        "notes": dict(notes.most_common()),
    }
