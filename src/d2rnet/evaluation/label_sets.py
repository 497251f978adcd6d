"""From a set of labels to a stored report: the baseline that a generator must beat to have learnt anything.

A classifier of 18 abnormalities of chest CT and a look-up by label set won a report challenge of 2026. Here: of
the training reports whose labels are the wanted set, or else of those nearest to it (greatest Jaccard index), the medoid,
which shares most words with the others.

Shapes: M training reports, C labels, N questions.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.labeller import Named


class ReportStore:
    """Training reports by their labels."""

    def __init__(self, texts: Sequence[str], labels: Named, *, candidates: int) -> None:
        """Sort the reports by label set.

        Args:
            texts: M cleaned reports; each different pair of text and labels should be there once per study.
            labels: (M, C) bool.
            candidates: of one label set at most so many reports, the first, are searched for the medoid.

        Raises:
            ValueError: no report.
        """
        if not texts:
            raise ValueError("no report to choose from")
        self.texts = texts
        self._sets, places = np.unique(labels, axis=0, return_inverse=True)  # (K, C)
        self._members: list[list[int]] = [[] for _ in self._sets]
        for row, place in enumerate(places.ravel().tolist()):
            self._members[place].append(row)
        self._most = candidates
        self._medoids: dict[tuple[int, ...], int] = {}

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return self._sets.sum(axis=1)

    def answer(self, wanted: Named) -> int:
        """Return the row of the report that answers a (C,) label set."""
        shared = (self._sets & wanted).sum(axis=1)
        either = self._sizes + wanted.sum() - shared
        likeness = np.where(either > 0, shared / np.maximum(either, 1), 1.0)  # two empty sets are the same
        nearest = tuple(np.flatnonzero(likeness == likeness.max()).tolist())
        if nearest not in self._medoids:
            rows = sorted(row for place in nearest for row in self._members[place])[: self._most]
            self._medoids[nearest] = rows[medoid([self.texts[row] for row in rows])]
        return self._medoids[nearest]


def medoid(texts: Sequence[str]) -> int:
    """Return the place of the text with the greatest mean word overlap with all (Dice of the sets of words).

    Of equals it is the first. A text that is there several times counts so often.
    """
    words = [frozenset(text.split()) for text in texts]
    overlap = [sum(_dice(own, other) for other in words) for own in words]
    return int(np.argmax(np.round(overlap, 9)))


def _dice(first: frozenset[str], second: frozenset[str]) -> float:
    return 2 * len(first & second) / (len(first) + len(second)) if first or second else 1.0
