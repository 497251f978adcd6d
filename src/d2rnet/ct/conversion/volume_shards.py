"""convert-ct-shard: one run of the volumes of a list becomes arrays; the records of all shards are joined by convert-ct.

Reads: ``volumes.jsonl`` of verify_ct_inputs and the volumes it names. Writes: an array per volume and, after it,
``<array>.json`` (what it was made from and what came of it), from which an interrupted conversion goes on; the record of the
shard, JSON lines ``volume_id, source, file_name, reason`` and the facts of the volume; beside it ``<shard>.run.json``.

A shard is a contiguous run of the list, and a volume is converted by itself, so any number of shards gives the same files.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from d2rnet.ct.conversion.checked_tables import COMMAND, VOLUMES
from d2rnet.ct.conversion.data_settings import CtVolumeConversionSettings
from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.store import write_array
from d2rnet.ct.conversion.verify import stated_spacing
from d2rnet.ct.volumes.reader import Rescale, read_chest_volume, volume_files
from d2rnet.errors import ConfigError, D2RNetError, DatasetError
from d2rnet.files.checked_tables import read_table
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import fingerprint
from d2rnet.files.names import is_path_below
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.shards import advice, check_count, read_records, record_path, remove_record

log = logging.getLogger(__name__)

SHARD_COMMAND = "convert-ct-shard"
RECIPE = 4  # raise it when the same volume and settings would give another array than before
Record = dict[str, Any]


def convert_ct_shard(
    *, volumes: Path, folder: Path, shard: int, shards: int, output: Path, workers: int, settings: CtVolumeConversionSettings
) -> None:
    """Convert one shard of a list of volumes.

    Args:
        volumes: ``volumes.jsonl`` of verify-ct-inputs.
        folder: folder that ``file_name`` is relative to.
        shard: which shard, 1 to ``shards``.
        shards: number of shards.
        output: record of the shard.
        workers: processes; each holds one volume and its array in memory, and an array that is being written.
        settings: sections ``ct.data.volumes`` and ``ct.data.conversion``.

    Raises:
        ConfigError: no such shard.
        DatasetError: the list is damaged or names an array outside ``folder``.
        OSError: an array cannot be written (disk full); no half file remains.
    """
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    table = read_table(volumes, VOLUMES, command=COMMAND)
    first, last = (len(table) * place // shards for place in (shard - 1, shard))
    log.info("shard %d of %d: %d of %d volumes", shard, shards, last - first, len(table))
    rows = table.iloc[first:last].to_dict("records")
    for row in rows:
        if not is_path_below(row["file_name"]):
            raise DatasetError(
                f"{volumes}: file_name {row['file_name']!a:.200}; expected a path below its folder without '..'."
            )
    convert = partial(_convert, folder=folder, settings=settings)
    outcomes = map_in_processes(convert, rows, workers=workers, what="convert volumes", then=_write)
    results = list(track(outcomes, total=len(rows), what="convert volumes", unit="volume"))
    kept = sum(result.pop("kept") for result in results)
    unreadable = sum(result["reason"] is not None for result in results)
    log.info("volumes: %d converted, %d kept from before, %d unreadable", len(results) - kept - unreadable, kept, unreadable)
    remove_record(output)
    write_jsonl(output, results)
    write_run_record(
        record_path(output),
        command=SHARD_COMMAND,
        settings=settings,
        inputs={"volumes": volumes},
        counts={"volumes": len(results), "unreadable": unreadable, "listed": len(table), "shard": shard, "shards": shards},
    )


@dataclass(frozen=True)
class _Converted:
    """A volume's line of the record, and, unless it is up to date or unreadable, its array, to be written.

    Attributes:
        line: of the record.
        target: file of the array.
        array: (Z, Y, X); None where there is nothing to write.
        side: content of the file beside it, but for the size of the array's.
    """

    line: Record
    target: Path
    array: NDArray[np.generic] | None = None
    side: Record = field(default_factory=dict)


def _side_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _convert(row: Record, *, folder: Path, settings: CtVolumeConversionSettings) -> _Converted:
    """Convert a volume unless its array is up to date."""
    target = folder / row["file_name"]
    line = {key: row[key] for key in ("volume_id", "source", "file_name")}
    stated = stated_spacing([row[name] or float("nan") for name in ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")])
    rescale = Rescale(*(float("nan") if pd.isna(row[name]) else float(row[name]) for name in ("slope", "intercept")))
    try:
        made_from = {
            "recipe": RECIPE,
            "settings": fingerprint(settings.to_json()),
            "source": _identity(row["source"]),
            # a column that holds numbers besides has NaN where the table says nothing
            "stated": [None if pd.isna(one) else float(one) for one in (row["slope"], row["intercept"], *(stated or ()))],
        }
        if (facts := _facts_of(_side_file(target), target, made_from)) is not None:
            return _Converted({**line, "reason": None, **facts, "kept": True}, target)
        volume = read_chest_volume(row["source"], settings.volumes, rescale=rescale, stated_spacing_mm=stated)
    except FileNotFoundError:
        reason = f"{row['source']}: no such file. Check that the download is complete."
        return _Converted({**line, "reason": reason, "kept": False}, target)
    except D2RNetError as error:
        return _Converted({**line, "reason": str(error), "kept": False}, target)
    converted = convert_volume(volume, settings.conversion)
    facts = {**converted.facts, "sha256": hashlib.sha256(converted.array.data).hexdigest()}
    side = {"made_from": made_from, "facts": facts}
    return _Converted({**line, "reason": None, **facts, "kept": False}, target, converted.array, side)


def _write(converted: _Converted) -> Record:
    """Write the array, if there is one, and what it was made from; return the volume's line of the record."""
    if converted.array is not None:
        side_file = _side_file(converted.target)
        converted.target.parent.mkdir(parents=True, exist_ok=True)
        side_file.unlink(missing_ok=True)  # beside the new array it would speak for the old one
        write_array(converted.target, converted.array)
        # empty after a power cut, it stands for no array
        write_json(side_file, {**converted.side, "bytes": converted.target.stat().st_size}, flush=False)
    return converted.line


def _identity(source: str) -> str:
    """Return what tells that a source has not changed: path, size and last change of each of its files."""
    files = [(path, path.stat()) for path in volume_files(source)]
    return fingerprint([[str(path), status.st_size, status.st_mtime_ns] for path, status in files])


def _facts_of(side_file: Path, target: Path, made_from: Record) -> Record | None:
    """Return the facts of an array that was made from the same before and is whole; None where it must be made."""
    try:
        known = read_json(side_file)
        if known["made_from"] == made_from and known["bytes"] == target.stat().st_size:
            return dict(known["facts"])
    except (D2RNetError, OSError, KeyError, TypeError, ValueError):
        pass
    return None


def join_shards(shards: Sequence[Path], volumes: pd.DataFrame, settings: CtVolumeConversionSettings) -> list[Record]:
    """Return the record of each volume from the records of all shards, in the order of the list.

    Args:
        shards: records of :func:`convert_ct_shard`; their number and order do not matter.
        volumes: column ``volume_id`` of what should have been converted.
        settings: what they should have been converted with.

    Raises:
        DatasetError: the shards are not all of one run with these settings, each once, and of just these volumes.
    """
    remedy = advice(SHARD_COMMAND)
    runs = read_records(shards, command=SHARD_COMMAND, settings=settings, files={}, alike=("volumes",), counted="volumes")
    records: dict[str, Record] = {}
    for path, run in zip(shards, runs, strict=True):
        lines = list(_lines(path))
        check_count(path, run, "volumes", len(lines))
        for record in lines:
            if record["volume_id"] in records:
                raise DatasetError(f"{path}: volume {record['volume_id']} is there twice, or in two shards. {remedy}")
            records[record["volume_id"]] = record
    wanted = list(volumes["volume_id"])
    lost = [name for name in wanted if name not in records]
    if lost or len(records) != len(wanted):
        shown = f", the first {lost[0]}" if lost else ""
        raise DatasetError(
            f"convert-ct: {len(lost)} of {len(wanted)} volumes are in none of {len(shards)} shard(s){shown}, and "
            f"{len(records) - len(wanted) + len(lost)} in the shards are not in the list. {remedy}"
        )
    return [records[name] for name in wanted]


def _lines(path: Path) -> Iterable[Record]:
    """Yield the lines of a shard.

    Raises:
        DatasetError: a line names no volume and array, or says neither what came of it nor why nothing did.
    """
    for number, record in enumerate(read_jsonl(path), start=1):
        names = [record.get(name) for name in ("volume_id", "source", "file_name")]
        reason = record.get("reason", ...)
        shape = record.get("shape_zyx")
        is_array = reason is None and isinstance(shape, list) and len(shape) == 3 and all(type(side) is int for side in shape)
        if not all(isinstance(name, str) for name in names) or not (is_array or isinstance(reason, str)):
            raise DatasetError(
                f"{path}: line {number}: expected volume_id, source, file_name and a shape of three numbers or a reason. "
                f"{advice(SHARD_COMMAND)}"
            )
        yield record
