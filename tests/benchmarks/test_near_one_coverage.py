"""How often intervals of an area under the ROC curve hold the true value: near 1 the basic one fails."""

import pytest
from near_one_coverage import auroc_coverage


@pytest.mark.parametrize(
    ("truth", "images", "share", "basic_fails"),
    [(0.97, 120, 0.7, True), (0.99, 120, 0.3, True), (0.97, 40, 0.5, True), (0.9, 120, 0.5, False), (0.7, 120, 0.5, False)],
)
def test_the_logit_interval_holds_the_true_area(truth: float, images: int, share: float, basic_fails: bool) -> None:
    """300 test sets: a share of 0.95 is uncertain by 0.025."""
    held = auroc_coverage(truth, images, share, test_sets=300, resamples=100)
    assert 0.91 <= held["logit"] <= 0.99
    assert (held["basic"] < 0.89) == basic_fails
