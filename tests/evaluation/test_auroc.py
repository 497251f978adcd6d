"""Area under the ROC curve, worked out by hand and pair by pair."""

import numpy as np
import pytest

from d2rnet.evaluation.auroc import auroc


def once(cases: int) -> np.ndarray:
    return np.ones((cases, 1), dtype=np.float32)


def test_by_hand_with_a_tie():
    scores, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auroc(scores, positive, once(4)) == pytest.approx([(1 + 1 + 0.5 + 1) / 4])
    double = np.array([[1], [2], [1], [0]], dtype=np.float32)
    assert auroc(scores, positive, double) == pytest.approx([(1 + 2 * 0.5) / 3])


def test_of_random_scores_it_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.random(40).round(1), rng.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive, once(40)) == pytest.approx([np.mean(pairs)])


def test_both_kinds_of_case_are_needed():
    assert np.isnan(auroc(np.array([0.5]), np.array([True]), once(1))).all()
    assert np.isnan(auroc(np.zeros(0), np.zeros(0, bool), np.zeros((0, 3), np.float32))).sum() == 3
