"""Lesion agreement worked out by hand, reports against boxes, sides."""

import numpy as np
import pytest

from d2rnet.evaluation.clinical import (
    MEANS,
    SIDED_CLASSES,
    agreement,
    judge_lesions,
    named_matrix,
    sentence_grounding,
    side_agreement,
    sided_matrix,
)
from d2rnet.evaluation.label_scores import draw_labels
from d2rnet.evaluation.labeller import Judged, class_matrix
from d2rnet.findings import mentions
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mention_text import split_text

REFERENCES = ["Left pleural effusion. No pneumothorax.", "Cardiomegaly and edema.", "Lungs are clear."]
HYPOTHESES = ["Possible right pleural effusion. Cardiomegaly.", "Cardiomegaly.", "No effusion."]


def columns(matrix: np.ndarray) -> list[set[str]]:
    return [{name for name, held in zip(CATEGORY_NAMES, row, strict=True) if held} for row in matrix]


def test_matrices_hold_what_is_named():
    assert columns(named_matrix(REFERENCES, uncertain_counts=True)) == [{"Pleural effusion"}, {"Cardiomegaly", "Edema"}, set()]
    assert columns(named_matrix(HYPOTHESES, uncertain_counts=False)) == [{"Cardiomegaly"}, {"Cardiomegaly"}, set()]


def test_agreement_by_hand():
    """Truth: effusion; cardiomegaly, edema; nothing. Claimed: effusion, cardiomegaly; cardiomegaly; nothing."""
    scores = agreement(named_matrix(REFERENCES, uncertain_counts=True), named_matrix(HYPOTHESES, uncertain_counts=True))
    assert scores["micro_precision"] == pytest.approx(2 / 3)
    assert scores["micro_recall"] == pytest.approx(2 / 3)
    assert scores["micro_f1"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert scores["macro_precision"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["macro_recall"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["example_precision"] == pytest.approx((1 / 2 + 1) / 2)  # the third report names nothing, rightly: left out
    assert scores["example_recall"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["example_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert scores["per_class"]["Edema"] == {"precision": None, "recall": 0.0, "f1": 0.0, "true": 1, "claimed": 0}
    assert set(scores["per_class"]) == {"Pleural effusion", "Cardiomegaly", "Edema"}
    assert len(scores["classes_without_truth"]) == 19
    doubt_is_no = agreement(named_matrix(REFERENCES, uncertain_counts=False), named_matrix(HYPOTHESES, uncertain_counts=False))
    assert doubt_is_no["micro_recall"] == pytest.approx(1 / 3)


def test_saying_nothing_is_not_right():
    nothing, something = np.zeros((2, 22), dtype=bool), np.eye(2, 22, dtype=bool)
    assert agreement(something, nothing)["micro_f1"] == 0
    assert agreement(nothing, something)["micro_f1"] == 0
    assert agreement(nothing, something)["macro_f1"] is None
    assert agreement(nothing, nothing)["micro_f1"] is None


def test_a_draw_scores_as_the_reports_drawn():
    rng = np.random.default_rng(0)
    truth, claimed = rng.random((30, 22)) < 0.2, rng.random((30, 22)) < 0.2
    labels = {"some": Judged(truth, claimed, np.ones_like(truth))}
    counts = rng.integers(0, 3, size=(30, 5))
    drawn = draw_labels(labels, counts)
    for column in range(5):
        rows = np.repeat(np.arange(30), counts[:, column])
        again = agreement(truth[rows], claimed[rows])
        assert {mean: drawn[f"some_{mean}"][column] for mean in MEANS} == pytest.approx({mean: again[mean] for mean in MEANS})
    assert np.isnan(draw_labels(labels, np.zeros((30, 1)))["some_micro_f1"]).all()


def test_lesions_under_both_conventions():
    judged = judge_lesions(REFERENCES, HYPOTHESES)
    assert list(judged) == ["lesion22_uncertain_positive", "lesion22_uncertain_negative", "lesion_side"]
    conventions = [judged["lesion22_uncertain_positive"], judged["lesion22_uncertain_negative"]]
    assert [columns(found.claimed)[0] for found in conventions] == [{"Pleural effusion", "Cardiomegaly"}, {"Cardiomegaly"}]
    assert columns(judged["lesion22_uncertain_negative"].truth) == [{"Pleural effusion"}, {"Cardiomegaly", "Edema"}, set()]
    assert all(found.known.all() for found in judged.values())


def test_classes_and_their_sides_are_read_in_one_go(monkeypatch):
    read = []

    def noted(text):
        read.append(text)
        return split_text(text)

    monkeypatch.setattr(mentions, "split_text", noted)
    assert sided_matrix(REFERENCES).sum() == 3 and read == REFERENCES


def test_a_lesion_on_the_wrong_side_is_an_invention_and_a_miss():
    references = [
        "bilateral pleural effusions . the heart is enlarged .",
        "small left pneumothorax . the pneumothorax is new .",
        "there is a nodule in the right lung . no left effusion .",
    ]
    hypotheses = ["left pleural effusion . the heart is enlarged .", "right pneumothorax .", "there is a nodule ."]
    judged = judge_lesions(references, hypotheses)["lesion_side"]
    named = [{SIDED_CLASSES[place] for place in np.flatnonzero(row)} for row in judged.truth]
    assert named == [
        {"Pleural effusion, left", "Pleural effusion, right", "Cardiomegaly, no side"},
        {"Pneumothorax, left"},
        {"Nodule/Mass, right"},
    ]
    hits, true, claimed = 2, 5, 4  # of the heart and one effusion
    drawn = draw_labels({"lesion_side": judged}, np.ones((3, 1)))
    assert drawn["lesion_side_micro_f1"] == pytest.approx([2 * hits / (true + claimed)])


def test_sentences_against_boxes():
    sentences = [
        [
            {"text": "there is a left pleural effusion .", "boxes": [1, 0]},
            {"text": "the heart is enlarged .", "boxes": [1]},
            {"text": "no pneumothorax .", "boxes": [0]},
        ],
        [{"text": "there is a nodule .", "boxes": []}],
    ]
    labels = [["Cardiomegaly", "Pleural effusion"], ["Nodule/Mass"]]
    boxed = class_matrix([*labels[:1], []], CATEGORY_NAMES)  # the nodule's box is too weak to count
    assert sentence_grounding(sentences, labels, boxed) == {
        "sentences_naming_a_lesion": 3,
        "with_box_of_the_class": pytest.approx(2 / 3),
        "with_listed_box": pytest.approx(2 / 3),
        "with_listed_box_of_the_class": pytest.approx(1 / 3),
    }
    assert sentence_grounding([[]], [[]], boxed[1:])["with_listed_box"] is None


def test_sides_of_lesions_that_both_name():
    references = ["Left effusion. Right nodule.", "Bilateral effusions.", "Cardiomegaly.", "Left effusion."]
    hypotheses = ["Right effusion. Right nodule.", "Left effusion.", "Cardiomegaly.", "No left effusion."]
    assert side_agreement(references, hypotheses) == {
        "compared": 3,
        "same_side": pytest.approx(1 / 3),
        "wrong_side": pytest.approx(1 / 3),
    }
    assert side_agreement([""], [""]) == {"compared": 0, "same_side": None, "wrong_side": None}
