"""Shards of one step: the run record beside each, and the proof that they are all of one run before they are joined.

A shard says nothing of the model and the settings that made it; its run record does, and is written last. So a shard that was
replaced by a run that ended before its record, cut, edited, or left from another run is refused, not joined.

Reads: run records of shards (``<shard>.run.json``). Writes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.comparison import differences, first_few
from d2rnet.files.documents import read_json
from d2rnet.settings import Section

SHA256_KEY = "sha256"


def record_path(shard: Path) -> Path:
    """Path of the run record of a shard."""
    return shard.with_suffix(".run.json")


def remove_record(shard: Path) -> None:
    """Remove the run record of an earlier run before a shard is written: beside the new shard it would speak for it."""
    record_path(shard).unlink(missing_ok=True)


def read_records(
    shards: Sequence[Path],
    *,
    command: str,
    settings: Section,
    files: Mapping[str, str],
    alike: Sequence[str],
    counted: str,
) -> list[dict[str, Any]]:
    """Read the run records of shards and prove that the shards are all of one run, each once.

    Args:
        shards: every shard of the run.
        command: the sub-command that made them.
        settings: those that it must have had, of which its records hold all.
        files: name of an input -> SHA-256 that it must have had.
        alike: names of inputs that all shards must have had the same.
        counted: the count of a record that says how many records its shard holds.

    Returns:
        The run records, in the order of ``shards``.

    Raises:
        DatasetError: a shard is missing, there twice, without a record, or of another run, input or setting.
    """
    remedy = advice(command)
    if not shards:
        raise DatasetError(f"{command}: no shard was given. {remedy}")
    records = [_read_record(path, command, (*files, *alike), counted) for path in shards]
    total = records[0]["counts"]["shards"]
    given = [(record["counts"]["shard"], record["counts"]["shards"]) for record in records]
    if total != len(given) or sorted(given) != [(number, total) for number in range(1, len(given) + 1)]:
        shown = ", ".join(f"{shard} of {of}" for shard, of in given[:20])
        raise DatasetError(f"{command}: got shards {shown}; expected 1 to {total} of {total}. {remedy}")
    for path, record in zip(shards, records, strict=True):
        for name, sha256 in files.items():
            if record["inputs"][name][SHA256_KEY] != sha256:
                raise DatasetError(f"{path}: made from another version of the file '{name}' than the one given here. {remedy}")
        for name in alike:
            if record["inputs"][name][SHA256_KEY] != records[0]["inputs"][name][SHA256_KEY]:
                raise DatasetError(f"{path}: made with other {name} than {shards[0]}. {remedy}")
        if differing := differences(record["settings"], settings.to_json(), settings.place):
            raise DatasetError(
                f"{path}: made with other settings than those given here: {first_few(differing)} (a shard copied or linked "
                f"from another run keeps that run's). Give the same settings, or remove the shards and make them again."
            )
    return records


def check_count(shard: Path, record: Mapping[str, Any], counted: str, found: int) -> None:
    """Compare what a shard holds with what its run record says.

    Raises:
        DatasetError: they differ: the shard was cut or changed, or is of a run that has not written its record.
    """
    if found != record["counts"][counted]:
        raise DatasetError(
            f"{shard}: holds {found} {counted}, its run record says {record['counts'][counted]}: cut, edited or of another "
            f"run. {advice(record['command'])}"
        )


def advice(command: str) -> str:
    """Say what to do about shards of a sub-command that do not fit together."""
    return f"Give every shard of one run of {command}, each once, or make them again."


def _read_record(shard: Path, command: str, inputs: Sequence[str], counted: str) -> dict[str, Any]:
    """Read the run record of a shard and check that it has what joining needs."""
    path = record_path(shard)
    if not path.is_file():
        raise DatasetError(f"{shard}: its run record {path.name} is not beside it. {advice(command)}")
    record = read_json(path)
    try:
        numbers = [record["counts"][name] for name in ("shard", "shards", counted)]
        hashes = [record["inputs"][name][SHA256_KEY] for name in inputs]
        sound = record["command"] == command and isinstance(record["settings"], dict)
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not a run record of {command} (lacks {error}). {advice(command)}") from error
    if not sound or not all(type(number) is int for number in numbers) or not all(isinstance(text, str) for text in hashes):
        raise DatasetError(f"{path}: not a run record of {command}. {advice(command)}")
    return dict(record)
