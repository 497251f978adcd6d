"""Records, images in memory and the order of training."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.boxes.records import assert_disjoint, load_records, read_image
from d2rnet.cxr.detector.streams import ImageStore, Stream, labelled_weights
from d2rnet.errors import DatasetError


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))
    return path


def test_boxes_become_corners_and_classes_count_from_0(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = draw(tmp_path, "a", 2, seed=0)
    box = json.loads(path.read_text())["annotations"][0]
    normal, abnormal = load_records(path)
    x, y, w, h = box["bbox"]
    assert abnormal.boxes_xyxy.tolist() == [[x, y, x + w, y + h]]
    assert abnormal.classes.tolist() == [box["category_id"] - 1]
    assert (abnormal.source_id, abnormal.image_hw, abnormal.path) == ("a-2", (64, 80), tmp_path / "a" / "2.png")
    assert normal.boxes_xyxy.shape == (0, 4)
    assert normal.classes.shape == (0,)


def test_only_the_wanted_split(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = edited(draw(tmp_path, "a", 4, seed=0), lambda coco: coco["images"][1].update(split="test"))
    assert [record.image_id for record in load_records(path, split="train")] == [1, 3, 4]
    assert len(load_records(path)) == 4


def test_box_within_a_pixel_is_clipped_further_out_is_refused(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = edited(draw(tmp_path, "a", 2, seed=0), lambda coco: coco["annotations"][0].update(bbox=[-0.5, 0, 20, 64.9]))
    assert load_records(path)[1].boxes_xyxy.tolist() == [[0.0, 0.0, 19.5, 64.0]]
    edited(path, lambda coco: coco["annotations"][0].update(bbox=[70, 0, 20, 20]))
    with pytest.raises(DatasetError, match=r"annotation 1 of image 2: got \[70, 0, 20, 20\]; expected .* inside 80 x 64 px"):
        load_records(path)


@pytest.mark.parametrize("bbox", [[-0.9, 5, 0.5, 9], [80.2, 5, 0.5, 9], [3, 64, 9, 0.9]])
def test_box_beside_the_image_within_a_pixel_is_refused(tmp_path: Path, draw: Callable[..., Path], bbox: list[float]) -> None:
    """Clipped it would have no area, and the RPN would match every anchor to it."""
    path = edited(draw(tmp_path, "a", 2, seed=0), lambda coco: coco["annotations"][0].update(bbox=bbox))
    with pytest.raises(DatasetError, match="annotation 1 of image 2"):
        load_records(path)


def test_crowds_are_left_out(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = edited(draw(tmp_path, "a", 2, seed=0), lambda coco: coco["annotations"][0].update(iscrowd=1))
    assert [len(record.classes) for record in load_records(path)] == [0, 0]


def test_missing_source_id_and_missing_file(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = edited(draw(tmp_path, "a", 2, seed=0), lambda coco: coco["images"][1].pop("source_id"))
    with pytest.raises(DatasetError, match="image 2: got None; expected source_id"):
        load_records(path)
    with pytest.raises(FileNotFoundError, match=r"absent.json: no such file"):
        load_records(tmp_path / "absent.json")


def test_images_in_two_groups_are_named(splits: dict[str, Path]) -> None:
    train, test = load_records(splits["labelled_train"]), load_records(splits["labelled_test"])
    assert_disjoint({"train": train, "test": test})
    with pytest.raises(DatasetError, match=r"train and test: 1 \(train-1\)"):
        assert_disjoint({"train": train, "test": [*test, train[0]]})


@pytest.mark.parametrize("damage", [b"", b"no image", None])
def test_unreadable_image(tmp_path: Path, draw: Callable[..., Path], damage: bytes | None) -> None:
    record = load_records(draw(tmp_path, "a", 1, seed=0))[0]
    record.path.unlink()
    if damage is not None:
        record.path.write_bytes(damage)
    with pytest.raises(DatasetError, match=r"1.png: image 1 is missing or not readable"):
        read_image(record)


def test_image_of_another_size_than_stated(tmp_path: Path, draw: Callable[..., Path]) -> None:
    path = edited(draw(tmp_path, "a", 1, seed=0), lambda coco: coco["images"][0].update(height=63))
    with pytest.raises(DatasetError, match=r"is \(64, 64\) .* COCO file says \(63, 64\)"):
        read_image(load_records(path)[0])


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_store_gives_the_same_pixels_cached_or_not(splits: dict[str, Path], cache_mb: int) -> None:
    records = load_records(splits["labelled_val"])
    store = ImageStore([records], cache_mb)
    for record in records:
        assert np.array_equal(store.get(record), read_image(record))


def test_equal_weights_give_each_item_once_an_epoch() -> None:
    stream = Stream(np.ones(7), seed=1, name="a")
    epochs = [[stream.item(7 * epoch + place) for place in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_order_depends_on_seed_and_name_not_on_what_was_asked_before() -> None:
    def order(seed: int, name: str) -> list[int]:
        return [Stream(np.ones(9), seed=seed, name=name).item(place) for place in range(20)]

    assert order(1, "a") == order(1, "a")
    assert order(1, "a") != order(2, "a")
    assert order(1, "a") != order(1, "b")
    assert Stream(np.ones(9), seed=1, name="a").item(13) == order(1, "a")[13]


def test_items_come_in_proportion_to_their_weights() -> None:
    stream = Stream(np.array([3.0, 1.0, 0.0, 0.0]), seed=1, name="a")
    assert Counter(stream.item(place) for place in range(400)) == {0: 300, 1: 100}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 1 / 3), (0.5, 1.0), (1.0, 1.0)])
def test_share_of_normal_images_is_capped(splits: dict[str, Path], share: float, expected: float) -> None:
    records = [record for record in load_records(splits["labelled_train"]) if len(record.classes)][:3]
    normal = [record for record in load_records(splits["labelled_train"]) if not len(record.classes)][:3]
    weights = labelled_weights([*records, *normal], max_negative_share=share, repeat_threshold=0)
    assert weights.tolist() == pytest.approx([1, 1, 1, expected, expected, expected])


def test_rare_classes_are_repeated(splits: dict[str, Path]) -> None:
    one, two = [record for record in load_records(splits["labelled_train"]) if len(record.classes)][:2]
    common = [type(one)(**{**vars(one), "classes": np.array([3])})] * 9
    rare = type(two)(**{**vars(two), "classes": np.array([5, 3])})
    weights = labelled_weights([*common, rare], max_negative_share=1, repeat_threshold=0.4)
    assert weights.tolist() == pytest.approx([1.0] * 9 + [2.0])  # sqrt(0.4 / 0.1)


def test_labelled_images_without_any_box_are_refused(splits: dict[str, Path]) -> None:
    with pytest.raises(DatasetError, match="none of the labelled training images has a box"):
        labelled_weights(load_records(splits["unlabelled"]), max_negative_share=1, repeat_threshold=0)
