"""Intervals of the bootstrap: numbers by hand. How often they hold: tests/benchmarks/test_near_one_coverage.py."""

import math

import numpy as np
import pytest

from d2rnet.evaluation.resampling import logit_interval, seeds_interval


def expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_logit_interval_by_hand() -> None:
    draws = [0.85, 0.95] * 50  # mean 0.9, standard deviation 0.05
    centre, half = math.log(9), 1.959964 * 0.05 / 0.09
    assert logit_interval(0.9, [*draws, np.nan], cases=7) == pytest.approx(
        [expit(centre - half), expit(centre + half)], abs=1e-6
    )


def test_the_logit_interval_takes_the_bias_of_the_draws_out() -> None:
    draws = np.array([0.55, 0.65] * 50)  # 0.1 above the value, whose slope is 1 / 4
    half = 1.959964 * 0.05 / 0.25
    assert logit_interval(0.5, draws, cases=7) == pytest.approx([expit(-0.4 - half), expit(-0.4 + half)], abs=1e-6)


@pytest.mark.parametrize("value", [1.0, 1.0 + 2e-16, 1.0 - 2e-16])
def test_a_perfect_score_is_not_certain(value: float) -> None:
    assert logit_interval(value, [value] * 5, cases=20) == [pytest.approx(0.025 ** (1 / 20), abs=1e-6), 1.0]
    assert logit_interval(1.0 - value, [0.0] * 5, cases=20) == [0.0, pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-6)]


def test_no_value_has_no_interval() -> None:
    assert logit_interval(None, [0.5], cases=3) is None
    assert logit_interval(math.nan, [0.5], cases=3) is None
    assert logit_interval(0.5, [math.nan], cases=3) is None
    assert logit_interval(0.5, [0.5], cases=3) == [0.5, 0.5]


@pytest.mark.filterwarnings("error")
def test_the_ends_stay_in_range_whatever_is_drawn() -> None:
    low, high = logit_interval(1e-6, [0.9, 0.1], cases=3) or (-1.0, 2.0)
    assert 0 <= low <= high <= 1
    low, high = logit_interval(1 - 1e-6, [0.0, 0.0, 1.0], cases=3) or (-1.0, 2.0)
    assert 0 <= low <= high <= 1


def test_the_interval_over_seeds_by_hand() -> None:
    values = [0.2, 0.3, 0.4]  # standard error 0.1 / sqrt(3), t of 2 degrees 4.3027
    drawn = [0.29, 0.31] * 50  # standard deviation 0.01 (n), with n - 1: 0.01 * sqrt(100 / 99)
    half = math.hypot(4.3027 * 0.1 / math.sqrt(3), 1.959964 * 0.01 * math.sqrt(100 / 99))
    assert seeds_interval(values, [*drawn, np.nan]) == pytest.approx([0.3 - half, 0.3 + half], abs=1e-6)


@pytest.mark.parametrize(("values", "drawn"), [([0.3], [0.2, 0.4]), ([0.3, np.nan], [0.2, 0.4]), ([0.3, 0.4], [np.nan, 0.4])])
def test_one_seed_says_nothing_about_seeds(values: list[float], drawn: list[float]) -> None:
    assert seeds_interval(values, drawn) is None


def test_of_many_seeds_the_t_of_eleven_is_taken() -> None:
    values = np.arange(20.0)
    low, high = seeds_interval(values, [9.5, 9.5]) or (0, 0)
    assert high - low == pytest.approx(2 * 2.2281 * values.std(ddof=1) / math.sqrt(20), abs=1e-5)
