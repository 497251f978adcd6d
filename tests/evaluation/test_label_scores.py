"""Averages of precision, recall and F1 by hand, unknown cells, and resamples against texts drawn from scratch."""

import numpy as np
import pytest

from d2rnet.evaluation.label_scores import LABEL_SCORES, label_scores
from d2rnet.evaluation.labeller import Labeller, class_matrix

TRUTH = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
CLAIMED = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
ALL = np.ones_like(TRUTH)


def corpus(truth, claimed, known=None):
    known = np.ones_like(truth) if known is None else known
    return {key: float(value[0]) for key, value in label_scores(truth, claimed, known, np.ones((len(truth), 1))).items()}


def test_by_hand():
    """Class 0: 2 hits of 2 true, 3 claimed; class 1: true once, never claimed; class 2: claimed once, never true."""
    found = corpus(TRUTH, CLAIMED)
    assert list(found) == list(LABEL_SCORES)
    assert (found["micro_precision"], found["micro_recall"]) == (2 / 4, pytest.approx(2 / 3))
    assert found["micro_f1"] == pytest.approx(4 / 7)
    assert found["macro_precision"] == pytest.approx((2 / 3 + 0) / 2)  # class 2 is not true anywhere: not in the mean
    assert found["macro_recall"] == pytest.approx((1 + 0) / 2)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 0) / 2)
    assert found["weighted_precision"] == pytest.approx((2 * 2 / 3 + 1 * 0) / 3)
    assert found["weighted_recall"] == pytest.approx(2 / 3)
    assert found["weighted_f1"] == pytest.approx(2 * 0.8 / 3)
    assert found["example_precision"] == pytest.approx(
        (1 + 1 / 2 + 0) / 3
    )  # the fourth report says nothing, rightly: left out
    assert found["example_recall"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["example_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    weight = (12 - 3) / 6
    assert found["crg"] == pytest.approx(4.5 / (9 - (2 * weight - weight - 2)))


def test_cells_whose_truth_is_unknown_count_nowhere():
    known = ALL.copy()
    known[2, 0] = False  # the third report's only claim
    found = corpus(TRUTH, CLAIMED, known)
    assert found["micro_precision"] == pytest.approx(2 / 3)
    assert found["example_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    weight = (11 - 3) / 6
    assert found["crg"] == pytest.approx(4 / (8 - (2 * weight - weight - 1)))
    assert found == corpus(TRUTH | ~known, CLAIMED, known)  # whatever stands there


def test_nothing_true_and_nothing_said_is_no_score_and_not_zero():
    nothing = np.zeros((2, 3), dtype=bool)
    assert all(np.isnan(value) for value in corpus(nothing, nothing).values())
    silent = corpus(TRUTH, np.zeros_like(TRUTH))
    assert np.isnan(silent["micro_precision"])
    assert (silent["micro_recall"], silent["micro_f1"], silent["macro_f1"], silent["example_precision"]) == (0, 0, 0, 0)


def test_a_resample_scores_as_the_reports_it_holds():
    rng = np.random.default_rng(0)
    truth, claimed, known = rng.random((20, 5)) < 0.3, rng.random((20, 5)) < 0.3, rng.random((20, 5)) < 0.9
    counts = rng.integers(0, 3, size=(20, 6))
    drawn = label_scores(truth, claimed, known, counts)
    for column in range(6):
        rows = np.repeat(np.arange(20), counts[:, column])
        again = corpus(truth[rows], claimed[rows], known[rows])
        for key, values in drawn.items():
            assert values[column] == pytest.approx(again[key], nan_ok=True), key


def test_a_labeller_reads_each_text_under_each_convention():
    def read(text, *, uncertain_counts):
        return [word.strip("?") for word in text.split() if uncertain_counts or not word.endswith("?")]

    labeller = Labeller(("b", "a"), {"doubt_yes": True, "doubt_no": False}, read)
    found = labeller.matrices(["a b?", "", "b"])
    assert found["doubt_yes"].tolist() == [[True, True], [False, False], [True, False]]
    assert found["doubt_no"].tolist() == [[False, True], [False, False], [True, False]]
    with pytest.raises(KeyError):
        class_matrix([["c"]], ("a",))
