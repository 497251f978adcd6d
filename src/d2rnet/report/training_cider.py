"""CIDEr of single reports, with the word weights of the training reports: a reward that needs no corpus of its own.

Source: CIDEr-D (Vedantam et al., CVPR 2015) as pycocoevalcap computes it, with one reference. There, and so in the evaluation
(evaluation/caption_scores.py), the references that are scored against weigh the n-grams; here the training reports do, counted
once, so that a report's value does not depend on the others of its batch.

Shapes: T words of a report, G distinct n-grams of it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.report.text.vocabulary import UNK_ID

ORDERS = (1, 2, 3, 4)
LENGTH_DEVIATION = 6.0  # of the penalty on another number of bigrams
GREATEST = 10.0
Numbers = NDArray[np.int64]


class TrainingCider:
    """Scores reports. It keeps the n-grams that several training reports hold: those of one weigh as much as unseen ones."""

    def __init__(self, reports: Iterable[str], ids: Mapping[str, int]) -> None:
        """Count in how many reports each n-gram is.

        Args:
            reports: the training reports, as they are learnt: words separated by single spaces.
            ids: word -> id of the vocabulary; other words count as one.
        """
        self._ids = dict(ids)
        documents = [self._numbers(report) for report in reports]
        self._log_reports = math.log(max(len(documents), 1))
        self._known: dict[int, tuple[Numbers, NDArray[np.float64]]] = {}
        for order in ORDERS:
            nothing: list[Numbers] = [np.zeros(0, dtype=np.int64)]
            held = [np.unique(self._ngrams(numbers, order)) for numbers in documents]
            found, counts = np.unique(np.concatenate(nothing + held), return_counts=True)
            self._known[order] = found[counts > 1], np.log(counts[counts > 1])

    def score(self, reference: str, written: str) -> float:
        """Return the CIDEr of a report beside its reference: 0 to 10."""
        theirs = self._numbers(reference)
        ours = self._numbers(written)
        cosines = [self._clipped_cosine(self._vector(ours, order), self._vector(theirs, order)) for order in ORDERS]
        bigrams = max(len(ours) - 1, 0) - max(len(theirs) - 1, 0)
        return GREATEST * float(np.mean(cosines)) * math.exp(-(bigrams**2) / (2 * LENGTH_DEVIATION**2))

    def _numbers(self, report: str) -> Numbers:
        """Return the ids of the words: (T,)."""
        return np.array([self._ids.get(word, UNK_ID) for word in report.split()], dtype=np.int64)

    def _ngrams(self, numbers: Numbers, order: int) -> Numbers:
        """Return a number for each n-gram of a report, (T - order + 1,): its ids as digits; beyond 64 bits they wrap."""
        if len(numbers) < order:
            return numbers[:0]
        found = np.zeros(len(numbers) - order + 1, dtype=np.int64)
        for place in range(order):
            found = found * len(self._ids) + numbers[place : place + len(found)]
        return found

    def _vector(self, numbers: Numbers, order: int) -> tuple[Numbers, NDArray[np.float64]]:
        """Return the distinct n-grams of a report, (G,), and how often each is there times log(reports / those with it)."""
        found, counts = np.unique(self._ngrams(numbers, order), return_counts=True)
        known, log_frequencies = self._known[order]
        log_frequency = np.zeros(len(found))
        if len(known):
            place = np.searchsorted(known, found).clip(max=len(known) - 1)
            log_frequency = np.where(known[place] == found, log_frequencies[place], 0.0)
        return found, counts * (self._log_reports - log_frequency)

    @staticmethod
    def _clipped_cosine(ours: tuple[Numbers, Any], theirs: tuple[Numbers, Any]) -> float:
        """Return the cosine of two vectors, of which ours counts no n-gram more than theirs does."""
        _, here, there = np.intersect1d(ours[0], theirs[0], assume_unique=True, return_indices=True)
        product = np.minimum(ours[1][here], theirs[1][there]) @ theirs[1][there]
        norms = np.linalg.norm(ours[1]) * np.linalg.norm(theirs[1])
        return float(product / norms) if norms else 0.0
