"""True boxes: lines of the demo cohort."""

import pytest

from d2rnet.data.true_boxes import read_true_boxes
from d2rnet.errors import DatasetError
from d2rnet.io import write_jsonl


def test_demo_truth(tmp_path):
    line = {"image_id": "x", "boxes": [{"class": "Edema", "bbox_xyxy": [1, 2, 3, 4], "side": "left"}]}
    write_jsonl(tmp_path / "truth.jsonl", [line, {"image_id": "y", "boxes": []}])
    assert read_true_boxes(tmp_path / "truth.jsonl") == {"x": [("Edema", [1, 2, 3, 4])], "y": []}
    write_jsonl(tmp_path / "truth.jsonl", [{"image_id": "x"}])
    with pytest.raises(DatasetError, match="line 1 has no 'boxes'"):
        read_true_boxes(tmp_path / "truth.jsonl")
    with pytest.raises(FileNotFoundError, match="make-demo-cohort"):
        read_true_boxes(tmp_path / "absent.jsonl")
