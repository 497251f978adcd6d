"""The linear classifier against its optimality condition, and thresholds by hand."""

import numpy as np
import pytest

from d2rnet.ct.evaluation.linear_probe import best_thresholds, fit_probe

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(3, 5, size=(60, 4)).astype(np.float32)
LABELS = np.stack([FEATURES[:, 0] > 3, FEATURES[:, 1] + RNG.normal(0, 3, 60) > 3], axis=1)
ALL = np.ones_like(LABELS)


def test_at_the_optimum_the_gradient_is_zero():
    """d/dw of mean log loss + penalty / 2 |w|^2: X^T (p - y) / n + penalty w; d/db: mean(p - y). Labels do not share."""
    known = ALL.copy()
    known[::3, 1] = False
    probe = fit_probe(FEATURES, LABELS, known, penalty=0.1, max_iterations=500)
    inputs = (FEATURES - FEATURES.mean(axis=0)) / FEATURES.std(axis=0)
    for label in range(2):
        rows = known[:, label]
        error = (probe.probabilities(FEATURES) - LABELS)[rows, label]
        assert inputs[rows].T @ error / rows.sum() + 0.1 * probe.weight[label] == pytest.approx(np.zeros(4), abs=1e-5)
        assert error.mean() == pytest.approx(0, abs=1e-5)
    alone = fit_probe(FEATURES[known[:, 1]], LABELS[known[:, 1]], ALL[known[:, 1]], penalty=0.1, max_iterations=500)
    assert alone.probabilities(FEATURES)[:, 1] == pytest.approx(probe.probabilities(FEATURES)[:, 1], abs=0.1)


def test_it_learns_what_a_line_separates():
    probe = fit_probe(FEATURES, LABELS, ALL, penalty=0.001, max_iterations=200)
    said = probe.probabilities(FEATURES) > 0.5
    assert (said == LABELS)[:, 0].mean() > 0.97
    assert (said == LABELS)[:, 1].mean() > 0.7


def test_features_that_do_not_vary_do_no_harm():
    flat = np.concatenate([FEATURES, np.full((60, 1), 7, np.float32)], axis=1)
    probe = fit_probe(flat, LABELS, ALL, penalty=0.01, max_iterations=200)
    assert np.isfinite(probe.probabilities(flat)).all()


def thresholds(values, truth, known=None):
    column = np.array(values, dtype=float)[:, None]
    judged = np.ones((len(values), 1), dtype=bool) if known is None else np.array(known, dtype=bool)[:, None]
    return best_thresholds(column, np.array(truth, dtype=bool)[:, None], judged)[0]


def test_thresholds_by_hand():
    assert thresholds([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0]) == pytest.approx(0.5)  # half-way between 0.6 and 0.4
    assert thresholds([0.9, 0.6, 0.4, 0.1], [0, 0, 0, 1]) == pytest.approx(0.05)  # all claimed: below the lowest
    # F1 of the first 1, 2, 3: 2/3, 1/2, 4/5
    assert thresholds([0.9, 0.6, 0.4], [1, 0, 1]) == pytest.approx(0.2)
    assert thresholds([0.5, 0.5, 0.1], [1, 0, 0]) == pytest.approx(0.3)  # no threshold parts two equal probabilities


def test_a_label_without_a_known_positive_keeps_the_default():
    assert thresholds([0.9, 0.1], [0, 0]) == 0.5
    assert thresholds([0.9, 0.3], [1, 0], [0, 1]) == 0.5
    assert thresholds([], []) == 0.5
