"""Precision, recall and F1 of labels, averaged in the four ways that tables of the field differ by, and CRG.

Computed from weights of the reports, so that the corpus and each of its resamples go through the same code.

* micro: all cells (reports by classes) pooled.
* macro: mean over the classes that are true somewhere. Such a class has precision 0 where nobody claims it.
* weighted: the same mean, each class weighted by how often it is true.
* example: mean over the reports in which anything is true or claimed; a share of nothing is 0 there. Reports in which nothing
  is true and nothing claimed are left out, so that saying nothing is no hit. (scikit-learn's ``samples`` counts them as 0, and
  is lower by their share.)

A cell whose truth is unknown counts nowhere.
Shapes: N reports, C classes, S resamples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.crg import crg
from d2rnet.evaluation.labeller import Judged, Named

AVERAGES = ("micro", "macro", "weighted", "example")
RATES = ("precision", "recall", "f1")
LABEL_SCORES = (*(f"{average}_{rate}" for average in AVERAGES for rate in RATES), "crg")
Values = NDArray[np.float64]


def label_scores(truth: Named, claimed: Named, known: Named, counts: NDArray[Any]) -> dict[str, Values]:
    """Compare claimed with true labels.

    Args:
        truth: (N, C) bool.
        claimed: (N, C) bool.
        known: (N, C) bool, False where the truth is not known.
        counts: (N, S) how often each report is in each resample; a column of ones is the corpus.

    Returns:
        Each of LABEL_SCORES -> (S,); NaN for a share of nothing.
    """
    truth = truth & known
    claimed = claimed & known
    weights = np.asarray(counts, dtype=np.float64).T  # (S, N)
    hits = weights @ (truth & claimed)  # (S, C)
    true = weights @ truth  # (S, C)
    named = weights @ claimed  # (S, C)
    cells = weights @ known.sum(axis=1)  # (S,)
    pooled = hits.sum(axis=1), true.sum(axis=1), named.sum(axis=1)  # (S,) each
    found = _named("micro", _rates(*pooled))
    of_classes = _rates(hits, true, named, nothing=0.0)  # (S, C) each
    held = (true > 0).astype(np.float64)
    found |= _named("macro", tuple(_mean(rate, held) for rate in of_classes))
    found |= _named("weighted", tuple(_mean(rate, true) for rate in of_classes))
    of_reports = _rates(*((one.sum(axis=1)) for one in (truth & claimed, truth, claimed)), nothing=0.0)  # (N,) each
    said = (truth | claimed).any(axis=1)  # (N,)
    found |= _named("example", tuple(_mean(rate, weights * said) for rate in of_reports))
    found["crg"] = crg(pooled[0], pooled[1] - pooled[0], pooled[2] - pooled[0], cells)
    return found


def draw_labels(labels: Mapping[str, Judged], counts: NDArray[Any]) -> dict[str, Values]:
    """Return ``<protocol>_<score>`` -> (S,) for the labels under each protocol; counts as in :func:`label_scores`."""
    return {
        f"{protocol}_{score}": values
        for protocol, judged in labels.items()
        for score, values in label_scores(judged.truth, judged.claimed, judged.known, counts).items()
    }


def _named(average: str, values: tuple[Values, ...]) -> dict[str, Values]:
    return {f"{average}_{rate}": value for rate, value in zip(RATES, values, strict=True)}


def _rates(hits: Values, true: Values, claimed: Values, *, nothing: float = np.nan) -> tuple[Values, Values, Values]:
    """Return precision, recall and F1 of counts of one shape; ``nothing`` for a share of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = hits / claimed, hits / true, 2 * hits / (true + claimed)
    wholes = claimed, true, true + claimed
    precision, recall, f1 = (np.where(whole > 0, share, nothing) for share, whole in zip(shares, wholes, strict=True))
    return precision, recall, f1


def _mean(values: Values, weights: Values) -> Values:
    """Return the (S,) means of values (S, X) or (X,) under weights (S, X); NaN where all weights are 0."""
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (values * weights).sum(axis=1) / total, np.nan)
