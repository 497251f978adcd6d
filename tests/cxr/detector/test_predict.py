"""Prediction: shards, batches, equality with detectron2's own predictor, and files that do not fit."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, Instances

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import read_cfg
from d2rnet.cxr.detector.predict import make_batches, predict_boxes, to_results
from d2rnet.cxr.detector.results import gather_boxes
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.detector import add_d2rnet_config
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json


def predict(
    splits: dict[str, Path], model: Path, output: Path, prediction: PredictionSettings, shard: int = 1, shards: int = 1,
    view: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    predict_boxes(
        unlabelled=splits["unlabelled"], model=model, shard=shard, shards=shards, output=output, device="cpu",
        settings=prediction, view=view,
    )  # fmt: skip
    return output


@pytest.mark.parametrize("shards", [2, 5])
def test_shards_hold_what_one_shard_holds(
    splits: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings, shards: int
) -> None:
    whole = predict(splits, trained, tmp_path / "whole.jsonl", prediction)
    parts = [
        predict(splits, trained, tmp_path / f"{shard}.jsonl", prediction, shard, shards) for shard in range(1, shards + 1)
    ]
    assert [result for part in parts for result in read_jsonl(part)] == list(read_jsonl(whole))
    for name, paths in (("one.jsonl", [whole]), ("many.jsonl", parts[::-1])):
        gather_boxes(unlabelled=splits["unlabelled"], shards=paths, output=tmp_path / name, settings=prediction)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()
    joined = list(read_jsonl(tmp_path / "one.jsonl"))
    assert sorted(joined, key=str) == sorted(read_jsonl(whole), key=str)
    assert len(joined) > 0


@pytest.fixture
def mixed(splits: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """Image 1 is AP, 2 lateral, 3 names no view, the others are PA."""
    coco = read_json(splits["unlabelled"])
    views = {1: "AP AXIAL", 2: "LATERAL", 3: ""}
    coco["images"] = [image | {"view": views.get(image["id"], "PA")} for image in coco["images"]]
    path = splits["unlabelled"].with_name("mixed.json")  # beside its images
    write_json(path, coco)
    yield splits | {"unlabelled": path}
    path.unlink()


@pytest.mark.parametrize("shards", [1, 3])
def test_images_of_other_views_are_left_out_counted_and_change_no_box(
    mixed: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings, shards: int
) -> None:
    whole = list(read_jsonl(predict(mixed, trained, tmp_path / "whole.jsonl", prediction)))
    assert {result["image_id"] for result in whole} >= {1, 2, 3}
    wanted = ("PA", "AP")
    numbers = range(1, shards + 1)
    parts = [predict(mixed, trained, tmp_path / f"{n}.jsonl", prediction, n, shards, wanted) for n in numbers]
    gather_boxes(unlabelled=mixed["unlabelled"], shards=parts, output=tmp_path / "out" / "all.jsonl", settings=prediction)
    kept = [result for result in whole if result["image_id"] not in (2, 3)]
    assert sorted(read_jsonl(tmp_path / "out" / "all.jsonl"), key=str) == sorted(kept, key=str)
    for record in (read_json(tmp_path / "1.run.json"), read_json(tmp_path / "out" / "run.json")):
        assert record["views"] == ["PA", "AP"]
        assert record["counts"]["images_of_other_views"] == {"LATERAL": 1, "UNKNOWN": 1}
    assert sum(read_json(part.with_suffix(".run.json"))["counts"]["images"] for part in parts) == 6
    assert read_json(tmp_path / "out" / "run.json")["counts"]["images"] == 6


def test_without_views_no_image_is_left_out_and_none_counted(
    mixed: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings
) -> None:
    record = read_json(predict(mixed, trained, tmp_path / "a.jsonl", prediction).with_suffix(".run.json"))
    assert record["views"] == [] and record["counts"]["images"] == 8 and "images_of_other_views" not in record["counts"]


def test_no_image_of_a_wanted_view_is_an_error(
    mixed: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings
) -> None:
    with pytest.raises(DatasetError, match=r"no image has a view of --view \(LPO\); views found: PA \(5\), .*UNKNOWN \(1\)"):
        predict(mixed, trained, tmp_path / "a.jsonl", prediction, view=("LPO",))


def test_stock_predictor_gives_the_same_boxes(
    splits: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings
) -> None:
    cfg = get_cfg()
    add_d2rnet_config(cfg)
    cfg.merge_from_file(str(trained / "config.yaml"))
    cfg.MODEL.WEIGHTS = str(trained / "model_final.pth")
    stock = DefaultPredictor(cfg)
    ours = list(read_jsonl(predict(splits, trained, tmp_path / "boxes.jsonl", prediction)))
    for record in load_records(splits["unlabelled"]):
        mine = [result for result in ours if result["image_id"] == record.image_id]
        theirs = stock(cv2.imread(str(record.path)))["instances"]
        boxes = theirs.pred_boxes.tensor.clone()
        boxes[:, 2:] -= boxes[:, :2]
        # Rows of class, score, box; scores nearer than a batch of another size rounds them may stand in another order.
        ours_of_image = torch.tensor([[r["category_id"] - 1, r["score"], *r["bbox"]] for r in mine]).reshape(-1, 6)
        theirs_of_image = torch.cat([theirs.pred_classes[:, None], theirs.scores[:, None], boxes], dim=1)
        tolerance = torch.tensor([0.1, 2e-5, *[0.011] * 4])
        equal = ((ours_of_image[:, None] - theirs_of_image).abs() <= tolerance).all(dim=2)
        assert len(mine) == len(theirs) and (equal.sum(dim=0) == 1).all() and (equal.sum(dim=1) == 1).all()
        assert (ours_of_image[:, 1].diff() <= 0).all()


def test_without_the_import_detectron2_names_the_unregistered_network(trained: Path) -> None:
    script = (
        "import sys\nfrom detectron2.config import CfgNode\nfrom detectron2.modeling import build_model\n"
        "build_model(CfgNode(CfgNode.load_yaml_with_base(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(trained / "config.yaml")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No object named 'UnbiasedTeacherRCNN' found in 'META_ARCH' registry" in done.stderr


def test_boxes_lie_in_the_frame_of_the_png(
    splits: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings
) -> None:
    sizes = {record.image_id: record.image_hw for record in load_records(splits["unlabelled"])}
    results = list(read_jsonl(predict(splits, trained, tmp_path / "boxes.jsonl", prediction)))
    for result in results:
        x, y, width, height = result["bbox"]
        image_height, image_width = sizes[result["image_id"]]
        assert x >= 0 and y >= 0 and width >= 0 and height >= 0
        assert x + width <= image_width + 0.011 and y + height <= image_height + 0.011
        assert 1 <= result["category_id"] <= 22
        assert 0 <= result["score"] <= 1
    assert max(result["bbox"][0] + result["bbox"][2] for result in results) > 64  # some images are 80 px wide


def test_slivers_that_round_to_nothing_are_left_out() -> None:
    found = Instances((64, 80))
    found.pred_boxes = Boxes(torch.tensor([[79.998, 3.0, 80.0, 9.0], [1.0, 2.0, 5.5, 8.0], [1.0, 7.001, 9.0, 7.004]]))
    found.scores = torch.tensor([0.9, 0.8, 0.7])
    found.pred_classes = torch.tensor([0, 3, 1])
    assert to_results(7, found) == [{"image_id": 7, "category_id": 4, "bbox": [1.0, 2.0, 4.5, 6.0], "score": 0.8}]


def test_batches_are_of_one_padded_size_and_hold_every_image_once(splits: dict[str, Path], trained: Path) -> None:
    records = load_records(splits["unlabelled"])
    batches = make_batches(records[::-1], read_cfg(trained), 3)
    assert [[record.image_id for record in batch] for batch in batches] == [[1, 3, 5], [7], [2, 4, 6], [8]]


def test_the_score_floor_is_that_of_the_settings(
    splits: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings
) -> None:
    everything = list(read_jsonl(predict(splits, trained, tmp_path / "a.jsonl", prediction)))
    floor = sorted(result["score"] for result in everything)[len(everything) // 2]
    prediction = prediction.replaced(score_floor=floor)
    some = list(read_jsonl(predict(splits, trained, tmp_path / "b.jsonl", prediction)))
    assert 0 < len(some) < len(everything)
    assert min(result["score"] for result in some) >= floor


@pytest.mark.parametrize(("shard", "shards"), [(0, 2), (3, 2)])
def test_no_such_shard(
    splits: dict[str, Path], trained: Path, tmp_path: Path, prediction: PredictionSettings, shard: int, shards: int
) -> None:
    with pytest.raises(ConfigError, match=f"shard {shard} of {shards}: expected 1 to {shards}"):
        predict(splits, trained, tmp_path / "a.jsonl", prediction, shard, shards)


def test_a_folder_without_a_detector(splits: dict[str, Path], tmp_path: Path, prediction: PredictionSettings) -> None:
    with pytest.raises(CheckpointError, match=r"config.yaml: no such file; expected the folder"):
        predict(splits, tmp_path, tmp_path / "a.jsonl", prediction)


@pytest.mark.parametrize(
    "text", ["MODEL:\n  NO_SUCH_KEY: 1\n", "MODEL: [", "MODEL:\n  WEIGHTS: !!python/object/apply:os.getcwd []\n"]
)
def test_a_configuration_of_another_detector(
    splits: dict[str, Path], tmp_path: Path, prediction: PredictionSettings, text: str
) -> None:
    """Of another project, damaged, or one that would run code."""
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match="not a configuration of this detector"):
        predict(splits, tmp_path, tmp_path / "a.jsonl", prediction)
