"""Bootstrap over images: known cases, and resamples scored as if their images had really been repeated."""

from dataclasses import replace

import numpy as np
import pytest
from detection_samples import random_case, record, result
from paired_bootstrap import bootstrap_ap50

from d2rnet.cxr.boxes.average_precision import Ranking, coco_ap, voc_ap
from d2rnet.cxr.boxes.coco_scores import coco_scores, match_results, mean_over_classes
from d2rnet.evaluation.resampling import basic_interval, percentile_interval, resample_counts

FOUND, MISSED = record(1, [[0, 0, 10, 10]], [3]), record(2, [[0, 0, 10, 10]], [3])
HIT = [result(1, 4, [0, 0, 10, 10], 0.9)]


def test_counts_of_a_resample_sum_to_the_number_of_cases() -> None:
    counts = resample_counts(7, samples=50, seed=3)
    assert counts.shape == (7, 50)
    assert (counts.sum(axis=0) == 7).all()
    assert (counts == resample_counts(7, samples=50, seed=3)).all()
    assert (counts != resample_counts(7, samples=50, seed=4)).any()


def test_interval_is_the_middle_95_percent_without_what_is_undefined() -> None:
    assert percentile_interval([*range(101), np.nan]) == [2.5, 97.5]
    assert percentile_interval([np.nan]) is None


def test_the_basic_interval_mirrors_the_draws_at_the_value_and_stays_in_range() -> None:
    draws = np.arange(101) / 100  # middle 95 %: 0.025 to 0.975
    assert basic_interval(0.7, draws) == [0.425, 1.0]  # 1.4 - 0.975, 1.4 - 0.025
    assert basic_interval(0.7, draws, greatest=2.0) == [0.425, 1.375]
    assert basic_interval(-0.2, draws, least=-1.0) == [-1.0, -0.425]
    assert basic_interval(None, draws) is None and basic_interval(0.5, [np.nan]) is None


def test_the_weights_of_one_hit_and_one_miss() -> None:
    ranking = Ranking(np.array([0]), np.array([[True]]), np.array([0, 1]))
    weights = np.array([[2, 0, 1, 0], [0, 2, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(coco_ap(ranking, weights), [[1, 0, 51 / 101, np.nan]])
    np.testing.assert_allclose(voc_ap(ranking, weights), [[1, 0, 0.5, np.nan]])


def test_a_resample_scores_as_the_images_it_repeats() -> None:
    records, results = random_case(12, seed=8)
    counts = resample_counts(12, samples=4, seed=1)
    scored = match_results(records, results)
    by_weight = mean_over_classes(scored.per_class([1], counts))[0]
    for column in range(4):
        drawn, found = [], []
        for row in np.repeat(np.arange(12), counts[:, column].astype(int)):
            drawn.append(replace(records[row], image_id=len(drawn) + 1))
            found += [{**item, "image_id": len(drawn)} for item in results if item["image_id"] == records[row].image_id]
        assert by_weight[column] == pytest.approx(coco_scores(drawn, found)["AP50"], abs=1e-6)


def test_the_known_distribution_of_two_images() -> None:
    """Of two images, the hit twice, each once or the miss twice: with probabilities 1/4, 1/2, 1/4."""
    comparison = bootstrap_ap50([FOUND, MISSED], HIT, [], samples=2000, seed=0)
    assert (comparison.ap50_a, comparison.ap50_b) == (pytest.approx(51 / 101, abs=1e-6), 0)
    assert comparison.interval_difference == pytest.approx([102 / 101 - 1, 1], abs=1e-6)  # 2 * 51/101 - 1 and (cut) - 0
    assert comparison.interval_b == [0, pytest.approx(1 - 0.025**0.5, abs=1e-6)]  # none of two cases
    low, high = comparison.interval_a or (0, 0)
    assert 0 < low < 0.1 and 0.9 < high < 1
    counts = resample_counts(2, samples=2000, seed=0)
    assert np.mean(counts[0] == 1) == pytest.approx(0.5, abs=0.04)


def test_the_difference_of_a_detector_and_itself_is_nothing() -> None:
    records, results = random_case(30, seed=2)
    comparison = bootstrap_ap50(records, results, results, samples=100, seed=0)
    assert comparison.difference == 0
    assert comparison.interval_difference == [0, 0]
    low, high = comparison.interval_a or (0, 0)
    assert low < comparison.ap50_a < high
    assert (comparison.images, comparison.samples) == (30, 100)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    records, results = random_case(60, seed=4)
    worse = [{**item, "score": item["score"] * 0.9} if item["image_id"] % 10 == 0 else item for item in results]
    comparison = bootstrap_ap50(records, results, worse, samples=300, seed=0)
    width = {name: np.ptp(getattr(comparison, f"interval_{name}")) for name in ("a", "difference")}
    assert width["difference"] < 0.5 * width["a"]


def test_nothing_to_score() -> None:
    comparison = bootstrap_ap50([record(1, [], [])], [], [], samples=5, seed=0)
    assert (comparison.ap50_a, comparison.difference, comparison.interval_difference) == (None, None, None)
