"""Grounding score: most attended and linked box against drawn lesions and against a random box, and on which side they lie."""

from typing import Any

import pytest

from d2rnet.cxr.boxes.grounding import grounding_score
from d2rnet.errors import DatasetError

ENTRIES = {
    "a": {
        "boxes": [[0, 0, 10, 10], [50, 50, 20, 20]],
        "labels": ["Cardiomegaly", "Nodule/Mass"],
        "scores": [0.9, 0.8],
        "width": 100,
    },
    "b": {"boxes": [], "labels": [], "scores": [], "width": 100},
}
TRUTH = {"a": [("Nodule/Mass", [51, 50, 70, 70]), ("Cardiomegaly", [0, 0, 100, 100])], "b": []}


def report(name: str, *sentences: tuple[str, int | None]) -> dict[str, Any]:
    """A report whose sentences attend to a box; the first box is never listed."""
    return {
        "id": name,
        "sentences": [
            {"text": text, "boxes": [attended] if attended else [], "attended": attended} for text, attended in sentences
        ],
    }


def test_rates_by_hand():
    generated = [
        report(
            "a",
            ("there is a nodule in the left lung .", 1),  # hit; one of two boxes would hit
            ("a right nodule is seen .", 0),  # a miss on its side; its linked box, a hit, lies on the other
            ("the heart is enlarged .", 0),  # IoU 0.01 with the heart: a miss, linked or not, and so would be any box
            ("there is a left pleural effusion .", None),  # not in the image, and unfinished
            ("no pneumothorax .", 0),  # names no lesion as there
        ),
        report("b", ("possible left nodule .", None)),  # no box to attend to
    ]
    assert grounding_score(generated, ENTRIES, TRUTH) == {
        "sentences": 4,
        "sentences_of_entries_without_boxes": 1,
        "entries_without_truth": 0,
        "hit_rate": pytest.approx(1 / 4),
        "random_hit_rate": pytest.approx((0.5 + 0.5) / 4),
        "ratio": pytest.approx(1.0),
        "reachable_rate": pytest.approx(2 / 4),
        "listed_rate": pytest.approx(1 / 4),
        "linked_rate": pytest.approx(3 / 4),
        "linked_hit_rate": pytest.approx(2 / 4),
        "true_sentences": 3,
        "true_hit_rate": pytest.approx(1 / 3),
        "true_random_hit_rate": pytest.approx(1 / 3),
        "true_reachable_rate": pytest.approx(2 / 3),
        "true_linked_hit_rate": pytest.approx(2 / 3),
        "side_sentences": 3,
        "other_side_rate": 0.0,
        "linked_other_side_rate": pytest.approx(1 / 3),
    }


def test_the_first_linked_box_counts_and_the_file_is_believed():
    sentence = {"text": "left nodule .", "boxes": [], "attended": 0, "linked": [0, 1]}
    found = grounding_score([{"id": "a", "sentences": [sentence]}], ENTRIES, TRUTH)
    assert (found["linked_hit_rate"], found["reachable_rate"]) == (0.0, 1.0)
    assert (found["side_sentences"], found["other_side_rate"], found["linked_other_side_rate"]) == (1, 1.0, 1.0)
    found = grounding_score([{"id": "a", "sentences": [sentence | {"linked": []}]}], ENTRIES, TRUTH)
    assert (found["linked_rate"], found["linked_hit_rate"], found["linked_other_side_rate"]) == (0.0, 0.0, 0.0)


def test_sentences_that_name_no_side_or_both_are_in_no_rate_of_sides():
    found = grounding_score([report("a", ("a nodule .", 1), ("bilateral nodules .", 1))], ENTRIES, TRUTH)
    assert (found["side_sentences"], found["other_side_rate"], found["linked_other_side_rate"]) == (0, None, None)


def test_a_box_on_a_lateral_image_is_on_no_other_side():
    generated = [report("a", ("a left nodule .", 1), ("a right nodule .", 1))]
    for view, errors in (("PA", 0.5), ("LATERAL", 0.0)):
        found = grounding_score(generated, {"a": ENTRIES["a"] | {"views": [view]}}, TRUTH)
        assert (found["side_sentences"], found["other_side_rate"], found["linked_other_side_rate"]) == (2, errors, errors)


@pytest.mark.parametrize(("shift", "hits"), [(0, 1.0), (6, 1.0), (7, 0.0)])
def test_overlap_of_half_is_the_least(shift: float, hits: float):
    """Boxes of 20 x 20 shifted by 6 px share 280 of 520 (0.54), by 7 px 260 of 540 (0.48)."""
    truth = {"a": [("Nodule/Mass", [50 + shift, 50, 70 + shift, 70])]}
    assert grounding_score([report("a", ("a nodule .", 1))], ENTRIES, truth)["hit_rate"] == hits


def test_the_most_attended_box_counts_listed_or_not():
    for attended, hits in ((1, 1.0), (0, 0.0)):
        assert grounding_score([report("a", ("a nodule .", attended))], ENTRIES, TRUTH)["hit_rate"] == hits
    unlisted = {"id": "a", "sentences": [{"text": "a nodule .", "boxes": [], "attended": 1}]}
    found = grounding_score([unlisted], ENTRIES, TRUTH)
    assert (found["hit_rate"], found["listed_rate"]) == (1.0, 0.0)


def test_class_of_the_sentence_decides():
    """The nodule's box is no hit for a sentence about the heart."""
    assert grounding_score([report("a", ("cardiomegaly .", 1))], ENTRIES, TRUTH)["hit_rate"] == 0


def test_images_without_truth_are_counted_not_scored():
    found = grounding_score([report("a", ("a nodule .", 1))], ENTRIES, {})
    assert (found["entries_without_truth"], found["sentences"], found["hit_rate"]) == (1, 0, None)


def test_boxes_and_ids_of_another_run_are_refused():
    with pytest.raises(DatasetError, match="report zz: not among the entries"):
        grounding_score([report("zz", ("a nodule .", 0))], ENTRIES, TRUTH)
    with pytest.raises(DatasetError, match=r"attends to boxes \[2\] and 2, linked \[1\]; its entry has 2"):
        grounding_score([report("a", ("a nodule .", 2))], ENTRIES, TRUTH)
