"""Boxes linked to a sentence: class, then side, then score; nothing where nothing is named."""

from typing import Any

import pytest

from d2rnet.cxr.boxes.evidence import box_sides, link_boxes, linked_boxes, named_side, shown_boxes, speaks_of

# four boxes: an effusion on the patient's right and two on the left, the heart
LABELS = ["Pleural effusion", "Pleural effusion", "Pleural effusion", "Cardiomegaly"]
SCORES = [0.9, 0.5, 0.6, 0.8]
SIDES = ["right", "left", "left", "left"]


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("there is a pleural effusion .", [0]),  # no side: the surest
        ("there is a right pleural effusion .", [0]),
        ("there is a left pleural effusion .", [2]),  # the surer one of its side, not the surest of all
        ("possible left pleural effusion .", [2]),  # what is doubted is named
        ("bilateral pleural effusions .", [0, 2]),  # one on each side, the surer first
        ("left pleural effusion with cardiomegaly .", [3, 2]),  # a midline class has no side
        ("right pleural effusion and a left pneumothorax .", [0]),  # no box of the other class
        ("no pleural effusion .", []),
        ("no effusion on the right , small effusion on the left .", [2]),
        ("the heart is normal in size .", []),
        ("the lungs are clear .", []),
        ("left rib fracture .", []),
        ("", []),
    ],
)
def test_class_then_side_then_score(text: str, linked: list[int]) -> None:
    assert link_boxes(text, LABELS, SCORES, SIDES) == linked


def test_a_box_on_the_other_side_stands_in_and_comes_last() -> None:
    labels, scores, sides = ["Nodule/Mass", "Cardiomegaly"], [0.9, 0.3], ["right", "left"]
    assert link_boxes("a nodule in the left lung .", labels, scores, sides) == [0]
    assert link_boxes("a nodule in the left lung and cardiomegaly .", labels, scores, sides) == [1, 0]
    assert link_boxes("bilateral nodules .", labels, scores, sides) == [0], "once, though both sides ask for it"


def test_the_first_of_equals_and_no_box_at_all() -> None:
    assert link_boxes("a nodule .", ["Nodule/Mass"] * 2, [0.5, 0.5], ["left", "right"]) == [0]
    assert link_boxes("a nodule .", [], [], []) == []


def test_sure_boxes_are_shown_and_weak_ones_that_a_sentence_needs() -> None:
    scores = [0.9, 0.5, 0.49, 0.3]
    assert shown_boxes(scores, [], 0.5) == [0, 1]
    assert shown_boxes(scores, [3, 0, 3], 0.5) == [0, 1, 3]
    assert shown_boxes(scores, [], 0.0) == [0, 1, 2, 3] and shown_boxes([], [], 0.5) == []


def test_the_side_of_a_shift_is_where_to() -> None:
    labels, sides = ["Mediastinal shift", "Mediastinal shift"], ["right", "left"]
    assert link_boxes("mediastinal shift to the left .", labels, [0.9, 0.4], sides) == [0]
    assert named_side("mediastinal shift to the left .") == ""


def test_sides_are_the_patient_s_in_every_image() -> None:
    boxes = [[10.0, 0.0, 20.0, 9.0], [35.0, 0.0, 40.0, 9.0], [41.0, 0.0, 20.0, 9.0]]  # centres 20, 55, 51
    one = {"boxes": boxes, "width": 100}
    assert box_sides(one) == ["right", "left", "left"]
    several = {"boxes": boxes, "width": 100, "widths": [100, 120], "box_image": [0, 1, 1]}  # middles 50 and 60
    assert box_sides(several) == ["right", "right", "right"]
    assert box_sides({"boxes": [], "width": 100}) == []


def test_boxes_of_lateral_images_have_no_side() -> None:
    boxes = [[10.0, 0.0, 20.0, 9.0], [35.0, 0.0, 40.0, 9.0], [41.0, 0.0, 20.0, 9.0]]
    study = {"boxes": boxes, "width": 100, "widths": [100, 120], "box_image": [0, 1, 1]}
    assert box_sides(study | {"views": ["PA", "LATERAL"]}) == ["right", "", ""]
    assert box_sides(study | {"views": ["XTABLE LATERAL", "AP AXIAL"]}) == ["", "right", "right"]
    assert box_sides({"boxes": boxes, "width": 100, "views": ["LL"]}) == ["", "", ""]


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("left pleural effusion .", [1]),  # that of its side, though a box on a lateral image is surer
        ("right pleural effusion .", [0]),  # it contradicts nothing, the box on the left does
        ("pleural effusion .", [0]),
        ("bilateral pleural effusions .", [1, 0]),
        ("right nodule .", [3]),
        ("left nodule .", [2]),
        ("right rib fracture .", [5]),
    ],
)
def test_a_box_without_a_side_comes_after_those_on_the_named_one(text: str, linked: list[int]) -> None:
    labels = ["Pleural effusion"] * 2 + ["Nodule/Mass"] * 2 + ["Rib fracture"] * 2
    assert link_boxes(text, labels, [1.0, 0.5, 0.9, 0.8, 0.7, 0.6], ["", "left", "", "right", "left", ""]) == linked


@pytest.mark.parametrize(("side", "speaks"), [("left", True), ("right", False), ("", True)])
def test_no_side_is_denied_by_none(side: str, speaks: bool) -> None:
    assert speaks_of("left nodule .", "Nodule/Mass", side) is speaks
    assert not speaks_of("no left nodule .", "Nodule/Mass", side)


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("a nodule in the left lung .", "left"),
        ("right effusion and right basilar atelectasis .", "right"),
        ("right effusion and left basilar atelectasis .", ""),
        ("bilateral effusions .", ""),
        ("no left effusion .", ""),
        ("cardiomegaly .", ""),
    ],
)
def test_the_one_side_that_a_sentence_names(text: str, side: str) -> None:
    assert named_side(text) == side


def test_what_a_file_says_is_taken_and_what_it_lacks_is_found() -> None:
    entry: dict[str, Any] = {
        "boxes": [[10, 0, 20, 9], [60, 0, 20, 9]],
        "width": 100,
        "labels": ["Edema"] * 2,
        "scores": [0.4, 0.7],
    }
    sentence = {"text": "right edema .", "attended": 1}
    assert linked_boxes(sentence, entry) == [0]
    assert linked_boxes({**sentence, "linked": [1]}, entry) == [1]
    assert linked_boxes({**sentence, "attended": None}, entry) == [], "an unfinished sentence says nothing yet"
