"""A labeller turns reports into findings: which of C classes each of N texts names, under each way to count doubt.

Both wings score reports by what they name; only the classes and the reading of a sentence differ (clinical.py for the 22
lesions of radiographs, ct/evaluation for the 18 abnormalities of chest CT).

Shapes: N reports, C classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Named = NDArray[np.bool_]


class Reader(Protocol):
    """Reads one text."""

    def __call__(self, text: str, *, uncertain_counts: bool) -> Collection[str]:
        """Return the classes that a text says are there; with ``uncertain_counts`` also those that it doubts."""


@dataclass(frozen=True)
class Judged:
    """Labels of N reports under one protocol: ``truth``, ``claimed`` and, False where the truth is not known, ``known``."""

    truth: Named
    claimed: Named
    known: Named


@dataclass(frozen=True)
class Labeller:
    """Texts to findings.

    Attributes:
        classes: names of the C classes, in the order of the columns.
        conventions: name of each convention -> whether a doubted finding counts as there; the first is the headline.
        read: which classes one text names.
    """

    classes: tuple[str, ...]
    conventions: Mapping[str, bool]
    read: Reader

    def matrices(self, texts: Sequence[str]) -> dict[str, Named]:
        """Return convention -> (N, C) bool: which classes each text names."""
        return {name: self.matrix(texts, uncertain_counts=counts) for name, counts in self.conventions.items()}

    def matrix(self, texts: Sequence[str], *, uncertain_counts: bool) -> Named:
        """Return (N, C) bool: which classes each text names under one way to count doubt."""
        return class_matrix([self.read(text, uncertain_counts=uncertain_counts) for text in texts], self.classes)


def class_matrix(names: Sequence[Collection[str]], classes: Sequence[str]) -> Named:
    """Return (N, C) bool: which classes are among the names of each of N entries."""
    places = {name: place for place, name in enumerate(classes)}
    matrix = np.zeros((len(names), len(classes)), dtype=bool)
    for row, found in enumerate(names):
        matrix[row, [places[name] for name in found]] = True
    return matrix
