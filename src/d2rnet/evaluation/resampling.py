"""The bootstrap over cases: how often each case is drawn, and the interval of what was computed from the draws.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). Shapes: n cases, S resamples.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95


def resample_counts(cases: int, *, samples: int, seed: int) -> NDArray[np.float32]:
    """Draw with replacement, ``cases`` of ``cases``, again and again.

    Args:
        cases: n, number of cases (images, studies).
        samples: S, number of resamples.
        seed: the same seed gives the same draws, so that two systems can be compared on them.

    Returns:
        (n, S) float32 how often each case is in each resample; every column sums to n.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((cases, samples), dtype=np.float32)
    for column in range(samples if cases else 0):
        counts[:, column] = np.bincount(rng.integers(cases, size=cases), minlength=cases)
    return counts


def percentile_interval(values: ArrayLike) -> list[float] | None:
    """Return the least and greatest of the middle 95 % of the finite values, None if there are none."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return None
    tail = (1 - LEVEL) / 2
    return [round(float(edge), 6) for edge in np.quantile(numbers, [tail, 1 - tail])]
