"""Boxes as JSON lines: written image by image, joined from shards, exported; and shards that do not belong together."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.detector.results import export_coco, gather_boxes, result_lines, write_results
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.files.hashes import sha256_file


def result(image_id: int, score: float = 0.5) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": [0, 0, 1, 1], "score": score}


@pytest.mark.parametrize("images", [[], [[]], [[result(1), result(1, 0.25)], [], [result(3)]]])
def test_lines_and_their_export_hold_every_result(tmp_path: Path, images: list[list[dict[str, Any]]]) -> None:
    write_results(tmp_path / "a.jsonl", map(result_lines, images))
    export_coco(tmp_path / "a.jsonl", tmp_path / "a.json")
    everything = [found for results in images for found in results]
    assert list(read_jsonl(tmp_path / "a.jsonl")) == everything
    assert json.loads((tmp_path / "a.json").read_text()) == everything


def write_shard(path: Path, unlabelled: Path, image_ids: list[int], shard: int, shards: int = 2, **changes: Any) -> Path:
    record = {
        "command": "predict-boxes-shard",
        "settings": PredictionSettings().to_json(),
        "inputs": {"unlabelled": {"sha256": sha256_file(unlabelled)}, "weights": {"sha256": "a"}},
        "counts": {"shard": shard, "shards": shards, "boxes": len(image_ids)},
    }
    path.write_text(result_lines(map(result, image_ids)))
    path.with_suffix(".run.json").write_text(json.dumps(record | changes))
    return path


def gather(splits: dict[str, Path], shards: list[Path]) -> Path:
    output = shards[0].parent / "out" / "predictions.jsonl"
    gather_boxes(unlabelled=splits["unlabelled"], shards=shards, output=output, settings=PredictionSettings())
    return output


def test_joined_by_image_with_a_run_record(splits: dict[str, Path], tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1.jsonl", splits["unlabelled"], [5, 2, 5], 1)
    output = gather(splits, [write_shard(tmp_path / "2.jsonl", splits["unlabelled"], [3], 2), first])
    assert [found["image_id"] for found in read_jsonl(output)] == [2, 3, 5, 5]
    assert json.loads(output.with_suffix(".json").read_text()) == list(read_jsonl(output))
    record = json.loads((output.parent / "run.json").read_text())
    assert record["counts"] == {"images": 8, "images_with_boxes": 3, "boxes": 4, "shards": 2}
    assert list(record["inputs"]) == ["shard_1", "shard_2", "unlabelled"]
    assert record["inputs"]["shard_1"]["sha256"] == sha256_file(first)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"image_ids": [1], "shard": 2}, "b.jsonl: image 1 is in .*a.jsonl too"),
        ({"image_ids": [99], "shard": 2}, "b.jsonl: image 99 is not in"),
        ({"image_ids": [2], "shard": 1}, "got shards 1 of 2, 1 of 2; expected 1 to 2 of 2"),
        ({"image_ids": [2], "shard": 2, "shards": 3}, "got shards 1 of 2, 2 of 3"),
        (
            {"image_ids": [], "shard": 2, "settings": PredictionSettings(score_floor=0.1).to_json()},
            r"b.jsonl: made with other settings than those given here: cxr\.detector\.prediction\.score_floor 0\.1, not ",
        ),
        ({"image_ids": [], "shard": 2, "views": ["PA"]}, "b.jsonl: made from images of PA, .*a.jsonl from those of any view"),
        ({"image_ids": [], "shard": 2, "views": "PA"}, "b.run.json: views 'PA'; expected a list of texts"),
        ({"image_ids": [], "shard": 2, "counts": {}}, "b.run.json: not a run record of predict-boxes-shard"),
    ],
)
def test_shards_that_do_not_belong_together(
    splits: dict[str, Path], tmp_path: Path, second: dict[str, Any], complaint: str
) -> None:
    shards = [
        write_shard(tmp_path / "a.jsonl", splits["unlabelled"], [1], 1),
        write_shard(tmp_path / "b.jsonl", splits["unlabelled"], **second),
    ]
    with pytest.raises(DatasetError, match=complaint):
        gather(splits, shards)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (result(1, float("nan")), "image 1 has a number that is not finite"),
        ({"category_id": 1}, "image None is not in"),
        ({"image_id": [1]}, r"image \[1\] is not in"),
        (17, "line 1 is a int; expected a JSON object"),
    ],
)
def test_records_that_are_no_boxes(splits: dict[str, Path], tmp_path: Path, record: Any, complaint: str) -> None:
    shard = write_shard(tmp_path / "a.jsonl", splits["unlabelled"], [], 1, shards=1)
    shard.write_text(json.dumps(record) + "\n")
    with pytest.raises(DatasetError, match=f"a.jsonl: {complaint}"):
        gather(splits, [shard])


@pytest.mark.parametrize("key", ["unlabelled", "weights"])
def test_shards_of_other_images_or_of_another_detector(splits: dict[str, Path], tmp_path: Path, key: str) -> None:
    shards = [write_shard(tmp_path / f"{number}.jsonl", splits["unlabelled"], [number], number) for number in (1, 2)]
    record = json.loads((tmp_path / "2.run.json").read_text())
    record["inputs"][key]["sha256"] = "b"
    (tmp_path / "2.run.json").write_text(json.dumps(record))
    with pytest.raises(
        DatasetError, match=r"2\.jsonl: made (from another version of the file 'unlabelled'|with other weights than)"
    ):
        gather(splits, shards)


def test_a_missing_shard_is_not_taken_for_images_without_boxes(splits: dict[str, Path], tmp_path: Path) -> None:
    only = write_shard(tmp_path / "a.jsonl", splits["unlabelled"], [1], 1)
    with pytest.raises(DatasetError, match="got shards 1 of 2; expected 1 to 2 of 2"):
        gather(splits, [only])
    (tmp_path / "a.run.json").unlink()
    with pytest.raises(DatasetError, match=r"a.jsonl: its run record a.run.json is not beside it"):
        gather(splits, [only])
