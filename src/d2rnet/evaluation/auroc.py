"""Area under the ROC curve, on all cases and on resamples of them."""

import numpy as np
from numpy.typing import NDArray


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability that a positive case scores above a negative one; equal scores count half.

    Args:
        scores: (n,).
        positive: (n,).
        weights: (n, S) how often each case counts in each of S resamples; (n, 1) ones for the cases as they are.

    Returns:
        (S,) values in [0, 1]; NaN where one kind of case is missing.
    """
    if not len(scores):
        return np.full(weights.shape[1], np.nan)
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    ordered = weights[order].astype(np.float64)
    above, below = (np.add.reduceat(ordered * kind[order, None], starts, axis=0) for kind in (positive, ~positive))
    passed = np.cumsum(below, axis=0) - below  # negatives of a smaller score
    pairs = above.sum(axis=0) * below.sum(axis=0)
    won = (above * (passed + below / 2)).sum(axis=0)
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
