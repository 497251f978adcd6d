"""The images of a training: which of them, and as bytes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from d2rnet.cxr.boxes.records import Record, load_records
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.training_images import compact, load_images, of_views
from d2rnet.errors import DatasetError


def with_views(path: Path, views: list[str | None]) -> Path:
    """Name the view of each image; None leaves the key out."""
    coco = json.loads(path.read_text())
    for image, view in zip(coco["images"], views, strict=True):
        if view is not None:
            image["view"] = view
    path.write_text(json.dumps(coco))
    return path


def assert_same(ours: Record, theirs: Record) -> None:
    for name, value in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), value), name


def test_records_come_back_from_bytes_one_by_one_and_in_turn(splits: dict[str, Path]) -> None:
    records = load_records(splits["labelled_train"])
    kept = compact(records)
    assert len(kept) == len(records) == 9
    assert_same(kept[4], records[4])
    for ours, theirs in zip(kept, records, strict=True):
        assert_same(ours, theirs)
    assert kept[4] is not kept[4]
    assert len(compact([])) == 0


@pytest.mark.parametrize(("views", "places"), [([], [0, 1, 2, 3]), (["PA", "ap"], [0, 2]), (["LATERAL"], [1])])
def test_unlabelled_images_of_the_wanted_views(
    tmp_path: Path, draw: Callable[..., Path], views: list[str], places: list[int]
) -> None:
    """An image whose view is not named shows none of them."""
    records = load_records(with_views(draw(tmp_path, "reports", 4, seed=9), ["pa", "LATERAL", "AP", None]))
    assert [record.image_id - 1 for record in of_views(records, views)] == places


def test_views_left_out_are_counted_and_decide_the_run_all_the_same(
    tmp_path: Path, draw: Callable[..., Path], splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    inputs = {**splits, "unlabelled": with_views(draw(tmp_path, "reports", 4, seed=9), ["PA", "LATERAL", "AP", ""])}
    images, counts, files = load_images(inputs, settings.training.replaced(unlabelled_views=["PA"]))
    assert [record.view for record in images.unlabelled] == ["PA"]
    assert counts == {
        "labelled_train": 9, "labelled_val": 3, "labelled_test": 6, "unlabelled": 4, "unlabelled_of_other_views": 3
    }  # fmt: skip
    assert len(files.files) == 13
    assert all(path.is_file() for path in files.files)
    with pytest.raises(DatasetError, match=r"reports.json: no image of split train and view LL or RL; expected some"):
        load_images(inputs, settings.training.replaced(unlabelled_views=["LL", "RL"]))


def test_images_whose_labels_are_taken_away_are_frontal_whatever_the_wanted_view(
    splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    training = settings.training.replaced(labelled_percent=34, unlabelled_views=["PA"])
    images, counts, _ = load_images(splits, training)
    assert (len(images.labelled), len(images.unlabelled), counts["unlabelled_of_other_views"]) == (3, 6, 8)


def test_supervised_training_has_no_unlabelled_images(splits: dict[str, Path], settings: TrainDetectorSettings) -> None:
    images, _, _ = load_images(splits, settings.training.replaced(supervised_only=True))
    assert (len(images.labelled), len(images.unlabelled)) == (9, 0)


def test_an_unlabelled_image_that_is_a_labelled_one_is_left_out(
    tmp_path: Path, draw: Callable[..., Path], splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    """Films with boxes are often some of those with reports; validation may be cut from training. A test image stops."""
    ids = {name: json.loads(splits[name].read_text())["images"][0]["source_id"] for name in splits}
    path = draw(tmp_path, "reports", 4, seed=9)
    document = json.loads(path.read_text())
    for image, name in zip(document["images"], ("labelled_train", "labelled_val"), strict=False):
        image["source_id"] = ids[name]
    path.write_text(json.dumps(document))
    images, counts, _ = load_images({**splits, "unlabelled": path}, settings.training)
    assert len(images.unlabelled) == 2 and not {record.source_id for record in images.unlabelled} & set(ids.values())
    assert (counts["unlabelled"], counts["unlabelled_that_are_labelled"]) == (4, 2)
    document["images"][2]["source_id"] = ids["labelled_test"]
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=f"labelled_test and unlabelled: 1 .{ids['labelled_test']}"):
        load_images({**splits, "unlabelled": path}, settings.training)
