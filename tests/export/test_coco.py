"""Pseudo boxes as COCO: read by this project and by pycocotools, each box with its own image."""

import json

import numpy as np
from export_samples import write_run
from pycocotools.coco import COCO

from d2rnet.cli import main
from d2rnet.cxr.boxes.coco import category_names, load_coco


def test_boxes_scores_and_images_are_those_of_the_annotation(tmp_path):
    annotation, _ = write_run(tmp_path)
    assert main(["export", "coco", "--annotation", str(annotation), "--output", str(tmp_path / "out")]) == 0
    document = load_coco(tmp_path / "out" / "labels.json")
    names = category_names(document)
    files = {image["id"]: (image["file_name"], image["height"], image["width"]) for image in document["images"]}
    found = [
        (*files[box["image_id"]], names[box["category_id"]], box["bbox"], box["score"]) for box in document["annotations"]
    ]
    assert found == [
        ("p 1/a.jpg", 400, 200, "Pleural effusion", [20.0, 40.0, 100.0, 200.0], 0.75),
        ("b/1.png", 400, 200, "Pleural effusion", [20.0, 40.0, 100.0, 200.0], 0.75),
        ("b/2.png", 100, 300, "Other lesion", [30.0, 10.0, 33.0, 20.0], 0.5),
        ("b/2.png", 100, 300, "Cardiomegaly", [0.0, 0.0, 300.0, 100.0], 0.25),
    ]


def test_pycocotools_reads_them_as_truth_and_as_results(tmp_path):
    annotation, _ = write_run(tmp_path)
    assert main(["export", "coco", "--annotation", str(annotation), "--split", "all", "--output", str(tmp_path)]) == 0
    truth = COCO(str(tmp_path / "labels.json"))
    results = truth.loadRes(str(tmp_path / "results.json"))
    assert len(truth.imgs) == 4 and len(results.anns) == len(truth.anns) == 4
    np.testing.assert_allclose([box["score"] for box in results.anns.values()], [0.75, 0.75, 0.5, 0.25])
    assert list(json.loads((tmp_path / "results.json").read_text())[0]) == ["image_id", "category_id", "bbox", "score"]
