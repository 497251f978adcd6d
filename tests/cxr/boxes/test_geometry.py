"""Geometry of boxes, against numbers worked out by hand."""

import numpy as np
import pytest

from d2rnet.cxr.boxes.geometry import areas, clip_to_image, has_area, iou, xywh_to_xyxy, xyxy_to_xywh

NONE = np.zeros((0, 4))


def test_corners_and_sides() -> None:
    assert xywh_to_xyxy([[10, 20, 30, 40]]).tolist() == [[10.0, 20.0, 40.0, 60.0]]
    assert xyxy_to_xywh([[10, 20, 40, 60]]).tolist() == [[10.0, 20.0, 30.0, 40.0]]
    assert xywh_to_xyxy([[1, 2, 1, 1]]).tolist() == [[1.0, 2.0, 2.0, 3.0]]  # one pixel


@pytest.mark.parametrize("convert", [xywh_to_xyxy, xyxy_to_xywh])
def test_no_boxes(convert) -> None:
    assert convert([]).shape == convert(NONE).shape == (0, 4)
    assert areas(NONE).shape == has_area(NONE).shape == (0,)
    assert clip_to_image(NONE, (5, 7)).shape == clip_to_image(NONE, np.zeros((0, 2))).shape == (0, 4)
    assert iou(NONE, np.ones((1, 4))).shape == (0,)
    assert iou(NONE[:, None], np.ones((1, 3, 4))).shape == (0, 3)


@pytest.mark.parametrize("convert", [xywh_to_xyxy, xyxy_to_xywh])
def test_single_precision_stays_single(convert) -> None:
    third = np.float32(1) / 3
    boxes = np.array([[third, 0, 2 * third + 1, 1]], np.float32)
    assert convert(boxes).dtype == np.float32
    assert convert(boxes.astype(np.float16)).dtype == convert(boxes.astype(int)).dtype == np.float64


def test_areas_and_what_has_one() -> None:
    boxes = np.array([[0.0, 0, 2, 3], [1, 1, 1, 5], [4, 4, 3, 6], [0, 0, np.nan, 1]])
    assert areas(boxes)[:3].tolist() == [6.0, 0.0, -2.0]
    assert has_area(boxes).tolist() == [True, False, False, False]


def test_clipped_at_width_and_height() -> None:
    boxes = np.array([[-1.0, -2, 50, 60], [3, 4, 5, 6]])
    assert clip_to_image(boxes, (20, 30)).tolist() == [[0, 0, 30, 20], [3, 4, 5, 6]]
    assert clip_to_image(boxes, np.array([[20, 30], [5, 4]])).tolist() == [[0, 0, 30, 20], [3, 4, 4, 5]]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 50 / 150),
        ([0, 0, 10, 10], [5, 5, 7, 9], 8 / 100),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch
        ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),  # both differences are below 0, their product is not
        ([3, 3, 3, 3], [3, 3, 3, 3], 0.0),
        ([3, 3, 4, 4], [3, 3, 4, 4], 1.0),
    ],
)
def test_overlap_by_hand(a: list[int], b: list[int], expected: float) -> None:
    first, second = np.array([a], float), np.array([b], float)
    assert iou(first, second).tolist() == iou(second, first).tolist() == [expected]


def test_overlap_of_all_with_all() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    others = np.array([[0.0, 0, 10, 10], [0, 0, 5, 10], [90, 90, 91, 91]])
    table = iou(boxes[:, None], others[None])
    assert table.tolist() == [[1.0, 0.5, 0.0], [50 / 150, 0.0, 0.0]]


def test_areas_that_are_given_count() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    assert iou(box, box, a_areas=np.array([200.0])).tolist() == [0.5]
    assert iou(box, box, b_areas=np.array([400.0])).tolist() == [0.25]
