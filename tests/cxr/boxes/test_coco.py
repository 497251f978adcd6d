"""COCO files: box conversion, writing, reading with checks, disjoint splits."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2rnet.cxr.boxes import coco, geometry
from d2rnet.errors import DatasetError

IMAGE = {"id": 1, "file_name": "images/a.png", "height": 40, "width": 30, "source_id": "a", "subject_id": "p1"}
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 0}


def document(tmp_path, **changes):
    path = tmp_path / "set.json"
    coco.write_coco(path, [IMAGE], [ANNOTATION])
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))
    return path


def test_boxes_by_hand():
    assert geometry.xywh_to_xyxy([[1, 2, 3, 4]]).tolist() == [[1, 2, 4, 6]]
    assert geometry.xyxy_to_xywh([[1, 2, 4, 6]]).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4))])
def test_no_boxes(empty):
    assert geometry.xywh_to_xyxy(empty).shape == (0, 4)
    assert geometry.xyxy_to_xywh(empty).shape == (0, 4)


@given(st.lists(st.tuples(*[st.integers(-1000, 4000)] * 2, *[st.integers(1, 4000)] * 2)))
def test_conversion_there_and_back(boxes):
    assert geometry.xyxy_to_xywh(geometry.xywh_to_xyxy(boxes)).tolist() == [list(map(float, box)) for box in boxes]


def test_written_file_has_the_fixed_categories_and_is_read_back(tmp_path):
    found = coco.load_coco(document(tmp_path))
    assert found["images"] == [IMAGE]
    assert found["annotations"] == [ANNOTATION]
    names = coco.category_names(found)
    assert (len(names), names[1], names[4], names[22]) == (22, "Aortic enlargement", "Cardiomegaly", "Other lesion")


def test_grouping_keeps_images_without_a_box():
    content = {"images": [IMAGE, IMAGE | {"id": 2}], "annotations": [ANNOTATION]}
    assert coco.annotations_by_image(content) == {1: [ANNOTATION], 2: []}
    assert coco.images_by_id(content)[2]["id"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [IMAGE, IMAGE]}, "duplicate id in images: [1]"),
        ({"annotations": [ANNOTATION, ANNOTATION]}, "duplicate id in annotations: [1]"),
        ({"annotations": [ANNOTATION | {"image_id": 9}]}, "unknown image_id, ids [1]"),
        ({"annotations": [ANNOTATION | {"category_id": 23}]}, "unknown category_id, ids [1]"),
        ({"annotations": [{"id": 1}]}, "annotations[0] lacks image_id, category_id, bbox"),
        ({"annotations": [ANNOTATION | {"bbox": [1, 2, 0, 4]}]}, "annotation 1: got [1, 2, 0, 4]"),
        ({"annotations": [ANNOTATION | {"bbox": [1, 2, float("nan"), 4]}]}, "annotation 1: got [1, 2, nan, 4]"),
        ({"annotations": [ANNOTATION | {"bbox": [1, 2, 3]}]}, "annotation 1: got [1, 2, 3]"),
        ({"categories": [{"id": 4, "name": "Edema"}]}, "categories begin [(4, 'Edema')]"),
        ({"images": None}, "no list 'images'"),
    ],
)
def test_broken_file_is_refused(tmp_path, changes, words):
    path = document(tmp_path, **changes)
    with pytest.raises(DatasetError) as error:
        coco.load_coco(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_list_instead_of_object(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("[]")
    with pytest.raises(DatasetError, match="no list 'images'; found: list"):
        coco.load_coco(path)


def image_set(*records):
    return {"images": [dict(zip(("source_id", "file_name", "subject_id"), record, strict=True)) for record in records]}


def test_disjoint_splits_pass_and_unknown_patients_do_not_count():
    coco.assert_disjoint(image_set(("a", "a.png", "")), image_set(("b", "b.png", "")), image_set(("c", "c.png", "p")))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (("a", "x.png", "z"), "source_id value.s. are in both train and test: a"),
        (("x", "a.png", "z"), "file_name value.s. are in both train and test: a.png"),
        (("x", "x.png", "p"), "subject_id value.s. are in both train and test: p"),
    ],
)
def test_shared_image_or_patient_is_refused(record, words):
    with pytest.raises(DatasetError, match=words):
        coco.assert_disjoint(image_set(("a", "a.png", "p")), image_set(("b", "b.png", "q")), image_set(record))
