"""Labels of boxes: the best place is kept, none lies outside the picture or on another one while there is room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2rnet.figures.label_places import place_labels

PICTURE = (100.0, 80.0)
SIZE = (10.0, 6.0)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((20, 30, 60, 50), (20, 24)),  # above the upper left corner
        ((20, 2, 60, 50), (20, 0)),  # no room above
        ((95, 30, 100, 50), (90, 24)),  # no room to the right
        ((0, 0, 100, 80), (0, 0)),
    ],
)
def test_place_of_one_label(box, place):
    assert place_labels([box], [SIZE], PICTURE) == [place]


def test_labels_of_the_same_box_stand_side_by_side():
    places = place_labels([(20, 30, 60, 50)] * 3, [SIZE] * 3, PICTURE)
    assert places[0] == (20, 24) and len(set(places)) == 3
    assert not any(overlap(a, b) for i, a in enumerate(places) for b in places[:i])


def test_where_there_is_no_room_the_least_is_covered():
    first, second = place_labels([(0, 0, 10, 6)] * 2, [(10, 6), (10, 6)], (10, 9))
    assert first == (0, 0) and second == (0, 3)


def test_a_label_larger_than_the_picture_begins_at_its_corner():
    assert place_labels([(1, 1, 3, 3)], [(200, 90)], PICTURE) == [(0, 0)]


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 70), st.floats(0, 60), st.floats(0, 60)), max_size=12))
def test_labels_lie_inside_the_picture(corners):
    boxes = [(x, y, min(100, x + w), min(80, y + h)) for x, y, w, h in corners]
    for left, top in place_labels(boxes, [SIZE] * len(boxes), PICTURE):
        assert 0 <= left <= PICTURE[0] - SIZE[0] and 0 <= top <= PICTURE[1] - SIZE[1]


def overlap(one, other):
    return abs(one[0] - other[0]) < SIZE[0] - 1e-9 and abs(one[1] - other[1]) < SIZE[1] - 1e-9
