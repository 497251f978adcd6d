"""Boxes at, over and beyond the edge of their image: stopped at, clipped or listed, and counted."""

import pandas as pd
import pytest
from pydantic import ValidationError

from d2rnet.cxr.conversion.bad_fraction import limit_listed
from d2rnet.cxr.conversion.box_limits import check_boxes
from d2rnet.cxr.sources.box_tables import BOX_DTYPES, CORNERS
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.tables import BOX_COLUMNS
from d2rnet.files.problems import Problems

SIZES = {"a": (10, 20)}  # height, width
INSIDE = (0, 0, 20, 10)


def boxes(*corners, source_id="a"):
    rows = [(source_id, "R1", 7, *box, f"boxes.csv:row {number}") for number, box in enumerate(corners, start=1)]
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS)).astype(BOX_DTYPES)


def check(*corners, **settings):
    problems = Problems()
    return check_boxes(boxes(*corners), SIZES, LabelledSettings(**settings), problems), problems


def corners_of(checked):
    return checked.boxes[CORNERS].to_numpy().tolist()


def actions(checked):
    return {key: number for key, number in checked.counts.items() if "tolerance" in key and number}


def test_boxes_up_to_one_pixel_outside_are_clipped_and_counted():
    checked, problems = check((-1, 0, 5, 5), (0, 0, 21, 5), INSIDE, (0, 3, 4, 11))
    assert corners_of(checked) == [[0, 0, 5, 5], [0, 0, 20, 5], [0, 0, 20, 10], [0, 3, 4, 10]]
    assert checked.counts == {
        "boxes_in": 4,
        "boxes_of_left_out_images": 0,
        "boxes_clipped_within_tolerance": 3,
        "boxes_listed_within_tolerance": 0,
        "boxes_clipped_beyond_tolerance": 0,
        "boxes_listed_beyond_tolerance": 0,
        "boxes_kept": 4,
    }
    assert (len(problems), checked.listed) == (0, [])


@pytest.mark.parametrize(
    ("box", "kind", "words"),
    [
        (
            (0, 0, 21.01, 5),
            "box_outside_image",
            "row 1 (image a): got x_min 0, y_min 0, x_max 21.01, y_max 5 in 20 x 10 (w x h) px",
        ),
        ((-1.5, 2, 3, 4), "box_outside_image", "x_min -1.5"),
        ((1, -2, 3, 4), "box_outside_image", "y_min -2"),
        ((0, 0, 5, 15), "box_outside_image", "at most 1 px outside"),
        ((30, 0, 40, 5), "box_outside_image", "data.labelled.size_table"),
        ((20, 0, 20.5, 5), "zero_area", "a box with an area"),
        ((-0.5, 0, 0, 5), "zero_area", "boxes_within_tolerance: list"),
        ((0, 10, 5, 11), "zero_area", "a box with an area"),
    ],
)
def test_box_further_outside_is_named(box, kind, words):
    checked, problems = check(box)
    assert checked.boxes.empty
    assert problems.counts() == {kind: 1}
    assert words in problems.text()


@pytest.mark.parametrize("outside", [(-0.01, 0, 5, 5), (0, 0, 20.01, 10), (0, -0.01, 5, 5), (0, 0, 5, 10.01)])
def test_the_edge_itself_is_inside(outside):
    strict = {"box_tolerance_px": 0, "boxes_beyond_tolerance": "list"}
    checked, problems = check(INSIDE, outside, **strict)
    assert corners_of(checked) == [list(INSIDE)]
    assert actions(checked) == {"boxes_listed_beyond_tolerance": 1}
    assert len(problems) == 0


def test_tolerance_divides_the_kinds_at_its_own_value():
    checked, _ = check((0, 0, 25, 5), (0, 0, 25.01, 5), box_tolerance_px=5, boxes_beyond_tolerance="list")
    assert corners_of(checked) == [[0, 0, 20, 5]]
    assert actions(checked) == {"boxes_clipped_within_tolerance": 1, "boxes_listed_beyond_tolerance": 1}
    assert checked.listed == [
        {
            "source_id": "a",
            "origin": "boxes.csv:row 2",
            "x_min": 0.0,
            "y_min": 0.0,
            "x_max": 25.01,
            "y_max": 5.0,
            "outside_px": pytest.approx(5.01),
            "height": 10,
            "width": 20,
        }
    ]


def test_far_boxes_are_clipped_where_wanted_and_nothing_left_is_a_problem():
    checked, problems = check((-100, -100, 5, 5), (15, 5, 900, 900), (30, 0, 40, 5), boxes_beyond_tolerance="clip")
    assert corners_of(checked) == [[0, 0, 5, 5], [15, 5, 20, 10]]
    assert actions(checked) == {"boxes_clipped_beyond_tolerance": 2}
    assert problems.counts() == {"zero_area": 1}
    assert "row 3 (image a): got x_min 30" in problems.text()


def test_a_box_wholly_outside_is_listed_where_wanted():
    checked, problems = check((30, 0, 40, 5), (20, 0, 20.5, 5), boxes_within_tolerance="list", boxes_beyond_tolerance="list")
    assert checked.boxes.empty
    assert actions(checked) == {"boxes_listed_within_tolerance": 1, "boxes_listed_beyond_tolerance": 1}
    assert [record["outside_px"] for record in checked.listed] == [20.0, 0.5]
    assert len(problems) == 0


def test_slips_of_rounding_can_stop_too():
    checked, problems = check((0, 0, 20.5, 5), (0, 0, 30, 5), boxes_within_tolerance="stop", boxes_beyond_tolerance="clip")
    assert corners_of(checked) == [[0, 0, 20, 5]]
    assert problems.counts() == {"box_outside_image": 1}
    assert "expected a box inside its image" in problems.text()


def test_boxes_of_other_images_are_left_out_and_counted():
    checked = check_boxes(boxes((0, 0, 5, 5)), {"b": (10, 20)}, LabelledSettings(), Problems())
    assert checked.boxes.empty
    assert checked.counts["boxes_of_left_out_images"] == 1


def test_no_boxes():
    checked, _ = check()
    assert checked.boxes.shape == (0, len(BOX_COLUMNS))
    assert checked.counts["boxes_kept"] == 0


@pytest.mark.parametrize(("most", "found"), [(0.24, {"too_many_listed_boxes": 1}), (0.25, {})])
def test_too_many_listed_boxes_are_one_problem(most, found):
    checked, problems = check((0, 0, 30, 5), INSIDE, INSIDE, INSIDE, boxes_beyond_tolerance="list")
    limit_listed(checked, problems, root="data", most=most)
    assert problems.counts() == found
    if found:
        assert "got 1 of 4 boxes outside their images; the first is boxes.csv:row 1 of image a" in problems.text()


@pytest.mark.parametrize(
    "wrong", [{"box_tolerance_px": -1}, {"boxes_beyond_tolerance": "ignore"}, {"box_tolerance_px": "nan"}]
)
def test_settings_have_bounds(wrong):
    with pytest.raises(ValidationError):
        LabelledSettings(**wrong)
