"""Properties of the functions that move boxes from frame to frame."""

from collections import Counter

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from property_settings import QUICK

from d2rnet.cxr.boxes.coco import is_box_xywh
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy, xyxy_to_xywh
from d2rnet.cxr.conversion.box_limits import check_boxes
from d2rnet.cxr.images.radiograph import reduced_hw
from d2rnet.cxr.report_model.image_cache import letterbox_of
from d2rnet.cxr.sources.box_tables import CORNERS, keep_valid_corners
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import BOX_COLUMNS
from d2rnet.files.problems import Problems

side, wild = st.integers(1, 4000), st.floats(-1e4, 1e4) | st.sampled_from([float("nan"), float("inf"), -1.0, 0.0])
action = st.sampled_from(["stop", "clip", "list"])
boxes = st.lists(st.tuples(wild, wild, wild, wild), max_size=6)


def box_rows(corners) -> pd.DataFrame:
    """Rows of image "a" with these corners."""
    rows = [("a", "R1", 4, *box, f"t.csv:row {number}") for number, box in enumerate(corners, start=1)]
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS)).astype(dict.fromkeys(CORNERS, "float64"))


@QUICK
@given(boxes)
def test_every_corner_is_kept_or_named(corners):
    problems = Problems()
    kept = keep_valid_corners(box_rows(corners), file="t.csv", problems=problems)
    assert len(kept) + len(problems) == len(corners)
    values = kept[CORNERS].to_numpy()
    assert np.isfinite(values).all() and (values[:, 2:] > values[:, :2]).all()


@QUICK
@given(boxes, side, side, action, action, st.floats(0, 50))
def test_checked_boxes_lie_in_their_image_and_all_are_counted(corners, height, width, within, beyond, tolerance):
    problems = Problems()
    valid = keep_valid_corners(box_rows(corners), file="t.csv", problems=Problems())
    settings = LabelledSettings(box_tolerance_px=tolerance, boxes_within_tolerance=within, boxes_beyond_tolerance=beyond)
    checked = check_boxes(valid, {"a": (height, width)}, settings, problems)
    values = checked.boxes[CORNERS].to_numpy()
    counts = checked.counts
    assert counts["boxes_kept"] + len(checked.listed) + len(problems) == counts["boxes_in"] == len(valid)
    assert isinstance(counts, Counter)
    assert (values[:, 2:] > values[:, :2]).all() and (values >= 0).all() and (values <= [width, height, width, height]).all()


@QUICK
@given(st.lists(st.tuples(*[st.integers(-5000, 5000)] * 4), max_size=6))
def test_corners_and_sizes_are_the_same_boxes(corners):
    there = xyxy_to_xywh(np.array(corners, dtype=float).reshape(-1, 4))
    assert xywh_to_xyxy(there).tolist() == [list(map(float, box)) for box in corners]


@QUICK
@given(st.lists(st.one_of(wild, st.integers(), st.booleans(), st.none(), st.text(max_size=2)), max_size=5))
def test_a_box_is_four_finite_numbers(values):
    if is_box_xywh(values):
        assert len(values) == 4 and np.isfinite(values).all() and min(values[2:]) > 0


@QUICK
@given(side, side, st.integers(1, 600))
def test_letterbox_holds_every_box_of_its_image(height, width, size):
    box = letterbox_of((height, width), size).boxes(np.array([[0, 0, width, height]], dtype=np.float32))[0]
    assert (box >= -1e-3).all() and (box <= size + 1).all()


@QUICK
@given(side, side, st.integers(1, 600))
def test_reduced_images_keep_their_shape(height, width, longest):
    small = reduced_hw(height, width, longest)
    assert max(small) <= max(longest, 1) or small == (height, width)
    assert min(small) >= 1 and (small == (height, width)) == (max(height, width) <= longest or small == (height, width))
