"""Average precision of a ranking of detections, for many weightings of the images at once.

A weighting gives each image a count; all ones is the score itself, the counts of a resample with replacement give the score of
that resample. Detections are matched once. Only the points at hits matter: precision falls between them.

Shapes: N detections, K hits, n images, S weightings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALL_POINTS = np.linspace(0, 1, 101)  # of COCO
CHUNK_CELLS = 1 << 22


@dataclass(frozen=True)
class Ranking:
    """Detections, best first, and the truth that they look for.

    Attributes:
        rows: (N,) int64, row of the image.
        hits: (N,) bool.
        truth_rows: (M,) int64, row of the image of each truth box.
    """

    rows: NDArray[np.int64]
    hits: NDArray[np.bool_]
    truth_rows: NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """Counts at each hit of a ranking: (K, S) hits and all detections so far; (S,) truth boxes; (S,) images."""

    hits: NDArray[np.float64]
    detections: NDArray[np.float64]
    truth: NDArray[np.float64]
    images: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """(K, S); 0 where there is no truth."""
        return np.divide(self.hits, self.truth, out=np.zeros_like(self.hits), where=self.truth > 0)

    @property
    def best_precision_from_here(self) -> NDArray[np.float64]:
        """(K, S) highest precision at this or any later hit."""
        precision = np.divide(self.hits, self.detections, out=np.zeros_like(self.hits), where=self.detections > 0)
        return np.maximum.accumulate(precision[::-1], axis=0)[::-1]


def points(ranking: Ranking, weights: NDArray[np.float32]) -> Iterator[Points]:
    """Count hits and detections along a ranking.

    Args:
        ranking: of one class, or of all.
        weights: (n, S) counts of the images, whole numbers.

    Yields:
        The points of as many weightings at a time as fit into memory, in their order.
    """
    places = np.flatnonzero(ranking.hits)
    starts = np.concatenate([[0], places[:-1] + 1])
    last = places[-1] + 1 if len(places) else 0
    step = max(1, CHUNK_CELLS // max(1, last, len(ranking.truth_rows)))
    for first in range(0, weights.shape[1], step):
        chosen = np.ascontiguousarray(weights[:, first : first + step])
        truth = chosen[ranking.truth_rows].sum(axis=0, dtype=np.float64)
        images = chosen.sum(axis=0, dtype=np.float64)
        if not last:
            nothing = np.zeros((0, chosen.shape[1]))
            yield Points(nothing, nothing, truth, images)
            continue
        detections = np.cumsum(np.add.reduceat(chosen[ranking.rows[:last]], starts, axis=0), axis=0, dtype=np.float64)
        hits = np.cumsum(chosen[ranking.rows[places]], axis=0, dtype=np.float64)
        yield Points(hits, detections, truth, images)


def coco_ap(ranking: Ranking, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """COCO's average precision: mean over 101 recall points of the best precision at that recall or above.

    Returns:
        (S,) values in [0, 1]; NaN where there is no truth.
    """
    values = []
    for at in points(ranking, weights):
        reached = np.searchsorted(RECALL_POINTS, at.recall, side="right")  # recall points at or below
        mean = (at.best_precision_from_here * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALL_POINTS)
        values.append(np.where(at.truth > 0, mean, np.nan))
    return np.concatenate(values)


def voc_ap(ranking: Ranking, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """PASCAL VOC 2010's average precision: area under the precision envelope over all recall points.

    Returns:
        (S,) values in [0, 1]; NaN where there is no truth.
    """
    values = []
    for at in points(ranking, weights):
        area = (at.best_precision_from_here * np.diff(at.recall, axis=0, prepend=0)).sum(axis=0)
        values.append(np.where(at.truth > 0, area, np.nan))
    return np.concatenate(values)
