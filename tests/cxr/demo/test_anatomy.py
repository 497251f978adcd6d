"""Phantoms: findings are dealt evenly, drawn where the truth says, and visible."""

from collections import Counter

import numpy as np
import pytest

from d2rnet.cxr.demo.anatomy import sample_anatomy, sample_frame
from d2rnet.cxr.demo.canvas import Frame, Layer, band, bounding_xyxy, ellipse, spline
from d2rnet.cxr.demo.exposure import draw_lateral, expose
from d2rnet.cxr.demo.findings import OPTIONS, Finding, Style, deal_findings
from d2rnet.cxr.demo.lesions import LEAST_SIDE, render_frontal
from d2rnet.findings.classes import CATEGORY_NAMES

STYLE = Style.of_difficulty(0.3)


def _render(findings, seed=3, size_px=224):
    rng = np.random.default_rng(seed)
    anatomy, frame = sample_anatomy(rng), sample_frame(rng, size_px)
    return *render_frontal(anatomy, frame, findings, STYLE, rng), frame


def test_frame_maps_the_midline_and_turns_clockwise():
    frame = Frame((100, 80), (40.0, 10.0), 20.0, np.pi / 2)
    assert frame.to_px([[0, 0], [1, 0]]) == pytest.approx(np.array([[40, 10], [40, 30]]))
    u, v = frame.grid
    assert (u[30, 40], v[30, 40]) == pytest.approx((1, 0), abs=1e-5)


def test_layer_fills_a_polygon_where_it_says():
    frame = Frame((40, 40), (0.0, 0.0), 10.0, 0.0)
    mask = Layer(frame).fill([(1, 1), (3, 1), (3, 2), (1, 2)]).values()
    assert mask[15, 20] == 1 and mask[5, 5] == 0
    x0, y0, x1, y1 = bounding_xyxy(mask)
    assert (x0, y0, x1, y1) == pytest.approx((10, 10, 31, 21), abs=1)
    assert bounding_xyxy(np.zeros((5, 5), np.float32)) is None


def test_spline_passes_through_its_points_and_takes_batches():
    points = np.array([[0, 0], [1, 2], [3, 1]], dtype=float)
    curve = spline(points, samples=4)
    assert curve.shape == (9, 2)
    assert curve[[0, 4, 8]] == pytest.approx(points)
    assert spline(np.stack([points, points + 1]), samples=4)[1] == pytest.approx(curve + 1)


def test_band_and_ellipse_have_the_asked_width():
    outline = band(np.array([[0, 0], [1, 0], [2, 0]]), 0.5)
    assert np.abs(outline[:, 1]) == pytest.approx(np.full(6, 0.25))
    assert np.ptp(ellipse((0, 0), (2, 1)), axis=0) == pytest.approx([4, 2])


def test_deck_is_balanced_and_findings_of_a_picture_take_different_places():
    pictures = deal_findings(440, np.random.default_rng(0))
    assert sum(not findings for findings in pictures) == 119  # 27 %
    assert {len(findings) for findings in pictures} == {0, 1, 2, 3, 4}
    counts = Counter(finding.category for findings in pictures for finding in findings)
    assert set(counts) == set(CATEGORY_NAMES)
    assert min(counts.values()) >= 0.08 * 440
    assert max(counts.values()) - min(counts.values()) <= 5
    for findings in pictures:
        assert len({finding.category for finding in findings}) == len(findings)


def test_options_of_one_class_never_share_all_sides():
    assert set(OPTIONS) == set(CATEGORY_NAMES)
    assert {option.side for option in OPTIONS["Pneumothorax"]} == {"left", "right"}


@pytest.mark.parametrize("size, word", [(0, "small"), (0.333, "small"), (0.334, "moderate"), (0.67, "large"), (1.0, "large")])
def test_size_words_are_thirds(size, word):
    assert Finding("Nodule/Mass", size=size).size_word == word
    severity = {"small": "mild", "moderate": "moderate", "large": "severe"}[word]
    assert Finding("Cardiomegaly", size=size).size_word == severity


@pytest.mark.parametrize("category", CATEGORY_NAMES)
def test_every_class_is_boxed_on_its_side_inside_the_picture(category):
    for option in OPTIONS[category][:6]:
        finding = Finding(category, option.side, option.zone, 0.5, option.kind)
        _, boxes, frame = _render([finding])
        height, width = frame.image_hw
        assert len(boxes) == (2 if option.side == "bilateral" else 1)
        for _, side, (x0, y0, x1, y1) in boxes:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert min(x1 - x0, y1 - y0) >= LEAST_SIDE * max(height, width) - 1e-6
            centre_u = ((x0 + x1) / 2 - frame.origin_xy[0]) / frame.unit_px
            if side:
                assert (centre_u > 0) == (side == "left"), (side, centre_u)


@pytest.mark.parametrize("category", CATEGORY_NAMES)
def test_every_class_changes_the_picture_inside_its_box_more_than_outside(category):
    option = OPTIONS[category][0]
    finding = Finding(category, option.side, option.zone, 0.6, option.kind)
    rng_a, rng_b = np.random.default_rng(5), np.random.default_rng(5)
    anatomy, frame = sample_anatomy(rng_a), sample_frame(rng_a, 224)
    sample_anatomy(rng_b), sample_frame(rng_b, 224)
    with_lesion, boxes = render_frontal(anatomy, frame, [finding], STYLE, rng_a)
    without, _ = render_frontal(anatomy, frame, [], STYLE, rng_b)
    inside = np.zeros(frame.image_hw, bool)
    for _, _, (x0, y0, x1, y1) in boxes:
        inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    change = np.abs(with_lesion - without)
    assert change[inside].mean() > 0.03
    assert change[inside].mean() > 2 * change[~inside].mean()


def test_size_of_the_box_follows_the_size_of_the_finding():
    areas = []
    for size in (0.1, 0.9):
        _, boxes, _ = _render([Finding("Pleural effusion", "right", "", size)])
        x0, y0, x1, y1 = boxes[0][2]
        areas.append((x1 - x0) * (y1 - y0))
    assert areas[1] > 1.3 * areas[0]


def test_harder_lesions_have_less_contrast_and_more_noise():
    easy, hard = Style.of_difficulty(0), Style.of_difficulty(1)
    assert easy.contrast > 2 * hard.contrast and easy.scale > hard.scale and easy.noise < hard.noise


def test_lungs_are_darker_than_heart_and_abdomen():
    attenuation, _, frame = _render([])

    def at(u, v):
        x, y = frame.to_px([[u, v]])[0].astype(int)
        return attenuation[y - 3 : y + 4, x - 3 : x + 4].mean()

    assert at(-0.6, 0.9) < at(0.2, 1.3) - 0.15
    assert at(-0.6, 0.9) < at(-0.5, 1.95) - 0.15
    assert at(0, 0.2) < at(0.1, 0.2)  # trachea against the spine beside it


def test_exposed_pictures_lie_in_0_1_and_keep_dense_parts_bright():
    attenuation, _, frame = _render([])
    picture = expose(attenuation, frame, STYLE, np.random.default_rng(0))
    assert picture.dtype == np.float32 and picture.shape == frame.image_hw
    assert picture.min() >= 0 and picture.max() <= 1
    assert np.corrcoef(picture.ravel(), attenuation.ravel())[0, 1] > 0.9


def test_lateral_view_is_drawn():
    rng = np.random.default_rng(0)
    frame = sample_frame(rng, 224)
    attenuation = draw_lateral(frame, rng)
    assert attenuation.shape == frame.image_hw and np.ptp(attenuation) > 0.4
