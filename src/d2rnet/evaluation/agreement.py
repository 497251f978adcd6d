"""Where boxes and reports agree: the score from which on a box counts, a threshold a class.

Agreement is the micro F1, over entries and classes, of "a box of the class is kept" with "the report names the class".
F1 = 2 hits / (named + kept) is at its greatest F where each class's threshold has the greatest 2 hits - F kept (Dinkelbach,
Management Science 1967), so that F and thresholds are found in turn. A class that few reports name would only fit noise: it
takes the threshold of all classes together.

Shapes: n entries, C = 22 classes, m scores.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.clinical import Named, precision_recall_f1

Scores = NDArray[np.float64]
KEEPS_NOTHING = 1.0  # no softmax score over 23 classes gets there


def micro_f1(named: Named, kept: Named) -> float:
    """Return the F1 of what is kept against what is named, both of one shape; 0 where neither has anything."""
    return worth(named, kept)["f1"] or 0.0


def pooled_threshold(best: Scores, named: Named) -> float:
    """Return the one threshold of all classes with the greatest micro F1; arguments as for :func:`class_thresholds`."""
    cuts, hits, kept = _cuts(best.ravel(), named.ravel())
    return float(cuts[int(np.argmax(2 * hits / np.maximum(kept + named.sum(), 1)))])


def class_thresholds(best: Scores, named: Named, *, min_reports: int) -> Scores:
    """Return the (C,) thresholds that have the greatest micro F1 together.

    Args:
        best: (n, C) highest score of a class in an entry, 0 without a box.
        named: (n, C) whether the entry's report names it.
        min_reports: classes that fewer entries name take the pooled threshold.
    """
    least = np.full(best.shape[1], pooled_threshold(best, named))
    own = np.flatnonzero(named.sum(axis=0) >= min_reports)
    reached = -1.0
    while (now := micro_f1(named, best >= least)) > reached:
        reached = now
        for category in own:
            cuts, hits, kept = _cuts(best[:, category], named[:, category])
            least[category] = cuts[int(np.argmax(2 * hits - reached * kept))]
    return least


def _cuts(scores: Scores, named: Named) -> tuple[Scores, Scores, Scores]:
    """Return the thresholds that tell scores (m,) apart, greatest first, the hits of each and what each keeps."""
    order = np.argsort(-scores, kind="stable")
    found = scores[order]
    last = np.append(found[1:] < found[:-1], True) & (found > 0)  # of its score
    hits = np.cumsum(named[order])[last]
    return np.append(KEEPS_NOTHING, found[last]), np.append(0, hits), np.append(0, np.flatnonzero(last) + 1)


def worth(named: Named, kept: Named) -> dict[str, Any]:
    """Return ``precision``, ``recall`` and ``f1``, None for a share of nothing; ``named`` and ``kept`` count both sides."""
    hits, true, said = int((named & kept).sum()), int(named.sum()), int(kept.sum())
    return {**precision_recall_f1(hits, true, said), "named": true, "kept": said}
