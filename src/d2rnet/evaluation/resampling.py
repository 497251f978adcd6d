"""The bootstrap over cases: how often each case is drawn, and the interval of what was computed from the draws.

Percentile and basic interval (Davison and Hinkley, Bootstrap Methods and their Application, 1997, ch. 5), and the normal one
on the logit scale, with the bias taken out (sec. 5.2). Average precision is higher on a small sample than on a large one, and
higher still on a resample, which holds some images twice and others not at all; the percentile interval takes that bias in
twice, the two others take it out. Near 1 the draws are skewed; the basic interval mirrors that to the wrong side, the logit
scale does away with it (docs/explanation/protocol.md).
Shapes: n cases, S resamples.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Z_975 = 1.959964  # of the normal distribution
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)  # of Student's t, 1 to 10 degrees
SMALLEST_SLOPE = 1e-9  # nearer to 0 or 1 a metric differs from them by rounding alone


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


def seeds_interval(values: ArrayLike, drawn: ArrayLike) -> list[float] | None:
    """Return a 95 % interval of a mean over trainings that covers their seeds and the cases, which all of them share.

    Its half width is the root of two squares: Student's t times the standard error over the seeds, and 1.96 times the standard
    deviation of the mean over resamples of the cases. (Half widths are added, not variances, for only the seeds are few: the
    modified large-sample method of Graybill and Wang, JASA 1980.) What cases and seeds do together is in both, so that the
    interval is rather too wide; with more than eleven seeds it takes the t of eleven.

    Args:
        values: (n,) the value of each seed on all cases.
        drawn: (S,) the mean over the seeds on each resample; values that are not finite are left out.

    Returns:
        Both ends; None with fewer than two seeds, or without finite values.
    """
    of_seeds = np.asarray(values, dtype=np.float64)
    of_cases = np.asarray(drawn, dtype=np.float64)
    of_cases = of_cases[np.isfinite(of_cases)]
    number = len(of_seeds)
    if number < 2 or of_cases.size < 2 or not np.isfinite(of_seeds).all():
        return None
    by_seeds = T_975[min(number - 1, len(T_975)) - 1] * of_seeds.std(ddof=1) / np.sqrt(number)
    half = float(np.hypot(by_seeds, Z_975 * of_cases.std(ddof=1)))
    middle = float(of_seeds.mean())
    return [round(middle - half, 6), round(middle + half, 6)]


def basic_interval(value: float | None, drawn: ArrayLike, *, least: float = 0.0, greatest: float = 1.0) -> list[float] | None:
    """Return the middle 95 % of the draws, mirrored at the value itself and cut to the range of the metric.

    Args:
        value: the metric on all cases.
        drawn: (S,) the metric on the resamples; values that are not finite are left out.
        least: smallest possible value of the metric.
        greatest: largest possible one.

    Returns:
        Both ends, None if there is no value or no finite draw.
    """
    ends = percentile_interval(drawn)
    if value is None or not np.isfinite(value) or ends is None:
        return None
    low, high = (min(max(2 * value - end, least), greatest) for end in reversed(ends))
    return [round(float(low), 6), round(float(high), 6)]


def logit_interval(value: float | None, drawn: ArrayLike, *, cases: int) -> list[float] | None:
    """Return the normal 95 % interval of a share on the logit scale, with the bias of the draws taken out.

    Spread and bias of the draws are carried to the logit scale by its slope at the value, ``1 / (x (1 - x))`` (delta method;
    for areas under the ROC curve Pepe, The Statistical Evaluation of Medical Tests, 2003, sec. 5.2), so that no draw of
    exactly 0 or 1 is infinite. At a value of 0 or 1 all draws agree, and say nothing: the other end is then that of ``cases``
    successes in as many trials (Clopper and Pearson, Biometrika 1934), 0.83 for 20.

    Args:
        value: the metric on all cases, in [0, 1].
        drawn: (S,) the metric on the resamples; values that are not finite are left out.
        cases: how many could have gone wrong: of an area under the ROC curve the images of the rarer kind.

    Returns:
        Both ends, None if there is no value or no finite draw. With a strong bias the value may lie outside.
    """
    numbers = np.asarray(drawn, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if value is None or not np.isfinite(value) or not numbers.size:
        return None
    slope = value * (1 - value)
    if slope < SMALLEST_SLOPE:
        least = ((1 - LEVEL) / 2) ** (1 / max(cases, 1))
        return [round(least, 6), 1.0] if value > 0.5 else [0.0, round(1 - least, 6)]
    centre = np.log(value / (1 - value)) - (numbers.mean() - value) / slope
    half = Z_975 * numbers.std() / slope
    return [round(float((1 + np.tanh(end / 2)) / 2), 6) for end in (centre - half, centre + half)]
