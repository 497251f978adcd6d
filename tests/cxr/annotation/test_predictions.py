"""Files of predict_boxes as build_annotation reads them: JSON lines, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.annotation.confidence_filter import ConfidenceFilter
from d2rnet.cxr.annotation.inputs import ImageTable
from d2rnet.cxr.annotation.predictions import read_predictions
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems

IMAGES = 7


def record(image_id: int, **changes: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": [1.5, 2, 3, 4e0], "score": 0.5, "note": "]},{", **changes}


RECORDS = [record(number) for number in range(1, IMAGES + 1)]


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in records)


def read(path: Path) -> tuple[int, list[list[float]]]:
    """Number of boxes before duplicates go, and their corners."""
    sizes = np.full((IMAGES, 2), 100.0)
    images = ImageTable([{"source_id": f"s{n}"} for n in range(IMAGES)], np.arange(1, IMAGES + 1), sizes, sizes)
    problems = Problems()
    boxes, counts = read_predictions([path], images, ConfidenceFilter.of_classes({}), problems=problems)
    problems.raise_if_any()
    return counts["predicted"], boxes.boxes_xyxy.tolist()


@pytest.mark.parametrize("text", [lines(RECORDS), "\n" + lines(RECORDS), lines(RECORDS).rstrip("\n"), lines(RECORDS[::-1])])
def test_every_line_is_a_box(tmp_path: Path, text: str) -> None:
    (tmp_path / "shard.jsonl").write_text(text)
    assert read(tmp_path / "shard.jsonl") == (7, [[1.5, 2.0, 4.5, 6.0]] * 7)


def test_no_box(tmp_path: Path) -> None:
    (tmp_path / "shard.jsonl").write_text("")
    assert read(tmp_path / "shard.jsonl") == (0, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n\n", "holds 0 boxes: cut, edited or damaged"),
        ("[]", "is a JSON list; expected JSON lines, a COCO result each, such as predictions.jsonl of predict-boxes"),
        (json.dumps(RECORDS, indent=1), "is a JSON list; expected JSON lines"),
        (json.dumps(RECORDS[0], indent=1), "line 1 is not JSON"),
        (lines([[17], RECORDS[0]]).replace("[", " [", 1), "line 1 is a list; expected a JSON object"),
        ('{"images": []}', "record 1 is .*expected image_id and category_id"),
        (lines(RECORDS)[:-9], "line 7 is not JSON"),
        (lines(RECORDS[:1]) + lines(RECORDS[:1])[:-1] + ",\n", "line 2 is not JSON .Extra data"),
        (lines([RECORDS[0], 17]), "line 2 is a int; expected a JSON object"),
        (lines(RECORDS[:1]) + '{"note": "\\ud800"}\n', "line 2 is not JSON that can be used: .* half a surrogate pair"),
        (lines(RECORDS[:1]) + '{"score": 1, "score": 0}\n', "line 2 is not JSON that .* the key 'score' occurs twice"),
        (lines([record(1, bbox=[1, 2, 3])]), "record 1 is .*not enough values"),
        (lines([record(99)]), "unknown_image: 1"),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shard.jsonl").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "shard.jsonl")


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "shard.jsonl").write_bytes(b'{"image_id": "\xff"}\n')
    with pytest.raises(DatasetError, match="not UTF-8"):
        read(tmp_path / "shard.jsonl")


@pytest.mark.parametrize("name", ["shard.run.json", "run.json"])
def test_a_file_that_was_cut_between_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / "shard.jsonl").write_text(lines(RECORDS[:5]))
    write_json(tmp_path / name, {"command": "predict-boxes", "counts": {"boxes": 7}})
    with pytest.raises(DatasetError, match=r"shard\.jsonl: holds 5 boxes, its run record says 7: cut, edited or damaged"):
        read(tmp_path / "shard.jsonl")
    (tmp_path / "shard.jsonl").write_text(lines(RECORDS))
    assert read(tmp_path / "shard.jsonl")[0] == 7


def test_breakage_in_a_long_file_does_not_read_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "shard.jsonl").write_text("x\n" + "y" * 1_000_000)
    with pytest.raises(DatasetError, match="line 1 is not JSON"):
        read(tmp_path / "shard.jsonl")


def test_time_grows_with_the_records_alone(tmp_path: Path) -> None:
    (tmp_path / "shard.jsonl").write_text(lines(RECORDS * 3000))
    start = time.process_time()
    assert read(tmp_path / "shard.jsonl")[0] == 21_000
    assert time.process_time() - start < 5.0, "0.3 s; 20 s if each record costs a look at all before it"
