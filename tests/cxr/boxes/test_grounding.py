"""Grounding score: most attended box against drawn lesions and against a random box."""

from typing import Any

import pytest

from d2rnet.cxr.boxes.grounding import grounding_score
from d2rnet.errors import DatasetError

ENTRIES = {
    "a": {"boxes": [[0, 0, 10, 10], [50, 50, 20, 20]], "labels": ["Cardiomegaly", "Nodule/Mass"]},
    "b": {"boxes": [], "labels": []},
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
            ("a nodule is seen .", 0),  # a miss
            ("the heart is enlarged .", 0),  # IoU 0.01 with the heart: a miss, and so would be any box
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
        "true_sentences": 3,
        "true_hit_rate": pytest.approx(1 / 3),
        "true_random_hit_rate": pytest.approx(1 / 3),
        "true_reachable_rate": pytest.approx(2 / 3),
    }


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
    with pytest.raises(DatasetError, match=r"attends to boxes \[2\] and 2; its entry has 2"):
        grounding_score([report("a", ("a nodule .", 2))], ENTRIES, TRUTH)
