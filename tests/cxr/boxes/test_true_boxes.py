"""True boxes: lines of the demo cohort, and COCO."""

import pytest

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.boxes.true_boxes import read_true_boxes
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_jsonl


def test_demo_truth(tmp_path):
    line = {"image_id": "x", "boxes": [{"class": "Edema", "bbox_xyxy": [1, 2, 3, 4], "side": "left"}]}
    write_jsonl(tmp_path / "truth.jsonl", [line, {"image_id": "y", "boxes": []}])
    assert read_true_boxes(tmp_path / "truth.jsonl") == {"x": [("Edema", [1, 2, 3, 4])], "y": []}
    write_jsonl(tmp_path / "truth.jsonl", [{"image_id": "x"}])
    with pytest.raises(DatasetError, match="line 1 has no 'boxes'"):
        read_true_boxes(tmp_path / "truth.jsonl")
    with pytest.raises(FileNotFoundError, match="make-demo-cohort"):
        read_true_boxes(tmp_path / "absent.jsonl")


def test_boxes_of_a_coco_json_are_scaled_to_original_pixels(tmp_path):
    image = {"id": 1, "file_name": "images/a.png", "height": 50, "width": 40, "source_height": 100, "source_width": 120}
    annotation = {"id": 1, "image_id": 1, "category_id": 17, "bbox": [10.0, 5.0, 20.0, 10.0], "area": 200.0, "iscrowd": 0}
    write_coco(
        tmp_path / "true.json", [image | {"source_id": "x"}, image | {"id": 2, "file_name": "images/b.png"}], [annotation]
    )
    assert read_true_boxes(tmp_path / "true.json") == {"x": [("Pleural effusion", [30.0, 10.0, 90.0, 30.0])], "b": []}


def test_an_unknown_class_is_named(tmp_path):
    write_jsonl(tmp_path / "t.jsonl", [{"image_id": "a", "boxes": [{"class": "Pneumothoraks", "bbox_xyxy": [0, 0, 1, 1]}]}])
    with pytest.raises(DatasetError, match=r"image a: class 'Pneumothoraks'. did you mean 'Pneumothorax'"):
        read_true_boxes(tmp_path / "t.jsonl")
