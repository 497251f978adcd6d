"""Geometry and photometry of the two views."""

import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge

from d2rnet.cxr.detector.augmentation import Geometry, erase, jitter, resize, resized_hw, sample_geometry, strong_view
from d2rnet.cxr.detector.settings import DetectorModelSettings, StrongViewSettings

STRONG = StrongViewSettings()
MODEL = DetectorModelSettings()


def with_rectangle() -> np.ndarray:
    image = np.full((60, 100), 50, np.uint8)
    image[10:30, 20:60] = 200
    return image


def bounds_of_bright(image: np.ndarray, level: int) -> list[int]:
    rows, columns = np.nonzero(image > level)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("image_hw", [(60, 100), (100, 60), (77, 77), (333, 512), (20, 300)])
@pytest.mark.parametrize(("shortest", "longest"), [(64, 96), (50, 1000), (256, 256)])
def test_sizes_and_pixels_are_those_of_detectron2(image_hw: tuple[int, int], shortest: int, longest: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, image_hw, dtype=np.uint8)
    theirs = ResizeShortestEdge(shortest, longest).get_transform(image).apply_image(image)
    assert resized_hw(image_hw, shortest, longest) == theirs.shape
    assert np.array_equal(resize(image, theirs.shape), theirs)


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_move_with_the_image(flip: bool) -> None:
    image = with_rectangle()
    geometry = Geometry((90, 200), flip)  # 1.5 times as high, twice as wide
    moved = geometry.apply_boxes(np.array([[20, 10, 60, 30]], np.float32), image.shape)
    assert moved.tolist() == [[80.0, 15.0, 160.0, 45.0] if flip else [40.0, 15.0, 120.0, 45.0]]
    assert bounds_of_bright(geometry.apply_image(image), 125) == moved[0].tolist()


def test_flipping_twice_changes_nothing() -> None:
    geometry = Geometry((60, 100), True)
    boxes = np.array([[20, 10, 60, 30], [0, 0, 100, 60]], np.float32)
    assert np.array_equal(geometry.apply_boxes(geometry.apply_boxes(boxes, (60, 100)), (60, 100)), boxes)
    image = with_rectangle()
    assert np.array_equal(geometry.apply_image(geometry.apply_image(image)), image)


def test_no_boxes_stay_no_boxes() -> None:
    assert Geometry((10, 10), True).apply_boxes(np.zeros((0, 4), np.float32), (20, 20)).shape == (0, 4)


def test_no_image_is_mirrored_unless_told() -> None:
    rng = np.random.default_rng(0)
    drawn = {sample_geometry(rng, (60, 100), MODEL, flip).flip for flip in (False,) for _ in range(50)}
    assert drawn == {False}
    assert {sample_geometry(rng, (60, 100), MODEL, True).flip for _ in range(50)} == {False, True}


def test_strong_view_keeps_the_geometry_and_the_weak_view() -> None:
    weak = with_rectangle()
    before = weak.copy()
    for seed in range(20):
        strong = strong_view(np.random.default_rng(seed), weak, STRONG.replaced(erasing=False, blur_probability=0.0))
        middle = (int(strong[0, 0]) + int(strong[20, 40])) // 2
        assert bounds_of_bright(strong, middle) == [20, 10, 60, 30]
    assert np.array_equal(weak, before)


def test_erasing_alone_leaves_the_weak_view() -> None:
    weak = with_rectangle()
    before = weak.copy()
    only_erasing = STRONG.replaced(jitter_probability=0.0, blur_probability=0.0)
    strong = [strong_view(np.random.default_rng(seed), weak, only_erasing) for seed in range(10)]
    assert not all(np.array_equal(view, weak) for view in strong)
    assert np.array_equal(weak, before)


def test_strong_view_is_a_function_of_the_generator() -> None:
    weak = with_rectangle()
    first, again, other = (strong_view(np.random.default_rng(seed), weak, STRONG) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_brightness_alone_scales_grey_levels() -> None:
    image = np.array([[0, 100, 200]], np.uint8)
    rng = np.random.default_rng(1)
    factor = np.random.default_rng(1).uniform(0.6, 1.4)
    assert jitter(rng, image, 0.4, 0.0).tolist() == [[0, round(100 * factor), min(255, round(200 * factor))]]


def test_contrast_alone_keeps_the_mean() -> None:
    image = np.array([[50, 150]], np.uint8)
    changed = jitter(np.random.default_rng(1), image, 0.0, 0.4)
    assert changed.mean() == pytest.approx(100, abs=1)
    assert changed[0, 0] != 50


def test_erased_share_is_within_its_limits() -> None:
    for seed in range(20):
        image = np.zeros((100, 120), np.uint8)
        erase(np.random.default_rng(seed), image, 0.05, 0.2, 0.3, 3.3)
        left, top, right, bottom = bounds_of_bright(image, 0)
        assert 0.04 <= (right - left) * (bottom - top) / image.size <= 0.21
