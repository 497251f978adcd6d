"""COCO results files are read as a stream, whatever their layout, and broken ones are refused."""

import json
import time
from pathlib import Path

import pytest

from d2rnet.cxr.boxes import coco_results
from d2rnet.cxr.boxes.coco_results import iterate_results
from d2rnet.errors import DatasetError

RECORDS = [{"image_id": n, "category_id": 1, "bbox": [1.5, 2, 3, 4e0], "score": 0.5, "note": "]},{"} for n in range(7)]


@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("chunk", [220, 233, 256, 1 << 20])
def test_any_layout_and_any_chunk_border_give_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk: int
) -> None:
    monkeypatch.setattr(coco_results, "CHUNK_CHARACTERS", chunk)
    path = tmp_path / "shard.json"
    path.write_text("\n " + json.dumps(RECORDS, indent=indent) + "\n")
    assert list(iterate_results(path)) == RECORDS


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "[\n]"])
def test_empty_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shard.json"
    path.write_text(text)
    assert list(iterate_results(path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not start with"),
        ('{"images": []}', "does not start with"),
        ("[" + json.dumps(RECORDS[0]) + ',\n{"image_id": 3', "cut off after record 1"),
        ("[" + json.dumps(RECORDS[0]), r"cut off after record 0 \(expected ',' or '\]'\)"),
        ("[" + json.dumps(RECORDS[0]) + " " + json.dumps(RECORDS[1]) + "]", "cut off after record 0"),
        ("[{} , 17]", "record 2 is 17; expected an object"),
        ('[{}, {"note": "\\ud800"}]', "record 2 cannot be used: .* holds half a surrogate pair"),
    ],
)
def test_broken_files_are_refused_with_the_record(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "shard.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        list(iterate_results(path))


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "shard.json"
    path.write_bytes(b'[{"image_id": "\xff"}]')
    with pytest.raises(DatasetError, match="not UTF-8"):
        list(iterate_results(path))


def test_breakage_in_a_long_file_does_not_read_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_results, "CHUNK_CHARACTERS", 64)
    path = tmp_path / "shard.json"
    path.write_text("[" + "x" * 100_000)
    with pytest.raises(DatasetError, match="after record 0"):
        list(iterate_results(path))


def test_time_grows_with_the_records_alone(tmp_path: Path) -> None:
    path = tmp_path / "shard.json"
    path.write_text(json.dumps(RECORDS * 3000))
    start = time.process_time()
    assert sum(1 for _ in iterate_results(path)) == 21_000
    assert time.process_time() - start < 5.0, "0.2 s; 20 s if each record costs a look at the whole chunk"
