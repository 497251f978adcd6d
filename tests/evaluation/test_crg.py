"""CRG at its anchors and by hand."""

import numpy as np
import pytest

from d2rnet.evaluation.crg import crg


def of(truth: list[int], claimed: list[int]) -> float:
    true, said = np.array(truth, dtype=bool), np.array(claimed, dtype=bool)
    return float(crg((true & said).sum(), (true & ~said).sum(), (said & ~true).sum(), true.size))


@pytest.mark.parametrize("positives", [1, 3, 9])  # however rare the findings are
def test_anchors(positives):
    truth = [1] * positives + [0] * (10 - positives)
    wrong = [1 - value for value in truth]
    assert of(truth, truth) == 1
    assert of(truth, [0] * 10) == pytest.approx(1 / 3)
    assert of(truth, [1] * 10) == pytest.approx(1 / 3)
    assert of(truth, wrong) == pytest.approx(1 / 5)


def test_by_hand():
    """T = 10, A = 2: w = 2, U = 4; one hit, one miss, one invention: s = 2 - 2 - 1 = -1, 4 / (8 + 1)."""
    assert of([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]) == pytest.approx(4 / 9)


def test_a_miss_of_a_rare_finding_costs_more_than_an_invention():
    truth = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert of(truth, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]) < of(truth, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0])


def test_without_a_positive_or_without_a_negative_cell_there_is_no_score():
    assert np.isnan(of([0, 0], [0, 0]))
    assert np.isnan(of([0, 0], [1, 0]))
    assert np.isnan(of([1, 1], [1, 0]))
    assert np.isnan(crg([0], [0], [0], [0])).all()


def test_resamples_at_once():
    assert crg([1, 0], [0, 1], [0, 9], [10, 10]) == pytest.approx([1.0, 0.2])
