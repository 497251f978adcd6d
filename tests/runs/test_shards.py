"""Shards are joined by their run records, never on their word alone."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from d2rnet.errors import DatasetError
from d2rnet.runs.shards import check_count, read_records, record_path, remove_record
from d2rnet.settings import Section, setting

RECORD: dict[str, Any] = {
    "command": "make-shard",
    "settings": {"depth": 3},
    "inputs": {"table": {"sha256": "t"}, "weights": {"sha256": "w"}},
    "counts": {"shard": 1, "shards": 2, "boxes": 5},
}


class Depth(Section):
    """What the shards were made with."""

    place = "a.b"

    depth: int = setting(3)
    """Depth."""


def write(folder: Path, *changes: dict[str, Any]) -> list[Path]:
    """Shards with run records; a change is dotted key -> value, ``...`` removes the key."""
    shards = []
    for number, change in enumerate(changes, start=1):
        record = copy.deepcopy(RECORD)
        record["counts"]["shard"] = number
        for key, value in change.items():
            *parents, last = key.split(".")
            place = record
            for parent in parents:
                place = place[parent]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        shards.append(folder / f"{number}-of-2.json")
        record_path(shards[-1]).write_text(json.dumps(record))
    return shards


def read(shards: list[Path]) -> list[dict[str, Any]]:
    return read_records(
        shards, command="make-shard", settings=Depth(), files={"table": "t"}, alike=["weights"], counted="boxes"
    )


def test_shards_of_one_run_in_any_order(tmp_path: Path) -> None:
    shards = write(tmp_path, {}, {"counts.boxes": 0})
    assert [record["counts"]["shard"] for record in read(shards[::-1])] == [2, 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"counts.shard": 1}, "got shards 1 of 2, 1 of 2; expected 1 to 2 of 2"),
        ({"counts.shards": 3}, "got shards 1 of 2, 2 of 3"),
        ({"inputs.table.sha256": "old"}, "2-of-2.json: made from another version of the file 'table'"),
        ({"inputs.weights.sha256": "old"}, "2-of-2.json: made with other weights than"),
        ({"settings.depth": 4}, "2-of-2.json: made with other settings than those given here: a.b.depth 4, not 3 ("),
        ({"settings.depth": ...}, "2-of-2.json: made with other settings than those given here: a.b.depth without a value"),
        ({"settings.width": 5}, "a.b.width 5, not without a value"),
        ({"command": "other-shard"}, "2-of-2.run.json: not a run record of make-shard"),
        ({"settings": []}, "2-of-2.run.json: not a run record"),
        ({"counts.shard": "2"}, "2-of-2.run.json: not a run record"),
        ({"counts.shards": True}, "2-of-2.run.json: not a run record"),
        ({"counts.boxes": ...}, "2-of-2.run.json: not a run record of make-shard (lacks 'boxes')"),
        ({"inputs.table": "t"}, "2-of-2.run.json: not a run record"),
        ({"inputs.weights.sha256": 7}, "2-of-2.run.json: not a run record"),
        ({"inputs": None}, "2-of-2.run.json: not a run record"),
    ],
    ids=lambda value: "-".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else "",
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(complaint)):
        read(write(tmp_path, {}, change))


def test_a_number_of_shards_without_measure_takes_no_memory(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="got shards 1 of 1000000000000; expected 1 to 1000000000000"):
        read(write(tmp_path, {"counts.shards": 10**12}))


def test_one_lost_shard_or_record_is_missed(tmp_path: Path) -> None:
    shards = write(tmp_path, {}, {})
    with pytest.raises(DatasetError, match="got shards 2 of 2; expected 1 to 2"):
        read(shards[1:])
    with pytest.raises(DatasetError, match="no shard was given"):
        read([])
    remove_record(shards[0])
    remove_record(shards[0])
    with pytest.raises(DatasetError, match=r"1-of-2\.json: its run record 1-of-2\.run\.json is not beside it"):
        read(shards)


def test_a_shard_holds_what_its_record_says(tmp_path: Path) -> None:
    (shard,) = write(tmp_path, {})
    check_count(shard, RECORD, "boxes", 5)
    with pytest.raises(
        DatasetError, match=r"1-of-2\.json: holds 4 boxes, its run record says 5: cut, edited or of another run"
    ):
        check_count(shard, RECORD, "boxes", 4)


def test_shards_that_agree_with_each_other_and_not_with_their_reader(tmp_path: Path) -> None:
    """Whole resources copied from a run of another setting."""
    with pytest.raises(DatasetError, match=r"1-of-2\.json: made with other settings .*a\.b\.depth 7, not 3 \(a shard copied"):
        read(write(tmp_path, {"settings.depth": 7}, {"settings.depth": 7}))
