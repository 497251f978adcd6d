"""Average precision of a ranking of detections, for many weightings of the images at once.

A weighting gives each image a count; all ones is the score itself, the counts of a resample with replacement give the score of
that resample. Detections are matched once. Only the points at hits matter: precision falls between them.

Shapes: N detections, T ways to tell hits (IoU thresholds), K hits of one of them, n images, S weightings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALL_POINTS = np.linspace(0, 1, 101)  # of COCO
CHUNK_CELLS = 1 << 19  # of the table (N, S) that one pass holds; measured: larger ones leave the processor's cache


@dataclass(frozen=True)
class Ranking:
    """Detections, best first, and the truth that they look for.

    Attributes:
        rows: (N,) int64, row of the image.
        hits: (T, N) bool.
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
    def precision(self) -> NDArray[np.float64]:
        """(K, S); 0 where there is no detection."""
        return np.divide(self.hits, self.detections, out=np.zeros_like(self.hits), where=self.detections > 0)

    @property
    def best_precision_from_here(self) -> NDArray[np.float64]:
        """(K, S) highest precision at this or any later hit."""
        return np.maximum.accumulate(self.precision[::-1], axis=0)[::-1]


def points(ranking: Ranking, weights: NDArray[np.float32]) -> Iterator[list[Points]]:
    """Count hits and detections along a ranking.

    Args:
        ranking: of one class, or of all.
        weights: (n, S) counts of the images, whole numbers.

    Yields:
        The points of as many weightings at a time as fit into the cache, in their order; a list over the T ways.
    """
    places = np.flatnonzero(ranking.hits.any(axis=0))
    last = places[-1] + 1 if len(places) else 0
    starts = np.concatenate([[0], places[:-1] + 1])
    step = max(1, CHUNK_CELLS // max(1, last))
    for first in range(0, weights.shape[1], step):
        chosen = np.ascontiguousarray(weights[:, first : first + step])
        truth = chosen[ranking.truth_rows].sum(axis=0, dtype=np.float64)
        images = chosen.sum(axis=0, dtype=np.float64)
        hits = chosen[ranking.rows[places]]
        between = np.add.reduceat(chosen[ranking.rows[:last]], starts, axis=0) if last else hits
        detections = np.cumsum(between, axis=0, dtype=np.float64)
        of_way = ranking.hits[:, places]
        yield [Points(np.cumsum(hits[own], axis=0, dtype=np.float64), detections[own], truth, images) for own in of_way]


def coco_ap(ranking: Ranking, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """COCO's average precision: mean over 101 recall points of the best precision at that recall or above.

    Returns:
        (T, S) values in [0, 1]; NaN where there is no truth.
    """

    def area(at: Points) -> NDArray[np.float64]:
        reached = np.searchsorted(RECALL_POINTS, at.recall, side="right")  # recall points at or below
        return (at.best_precision_from_here * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALL_POINTS)

    return _for_all(ranking, weights, area)


def voc_ap(ranking: Ranking, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """PASCAL VOC 2010's average precision: area under the precision envelope over all recall points.

    Returns:
        (T, S) values in [0, 1]; NaN where there is no truth.
    """

    def area(at: Points) -> NDArray[np.float64]:
        return (at.best_precision_from_here * np.diff(at.recall, axis=0, prepend=0)).sum(axis=0)

    return _for_all(ranking, weights, area)


def _for_all(
    ranking: Ranking, weights: NDArray[np.float32], area: Callable[[Points], NDArray[np.float64]]
) -> NDArray[np.float64]:
    values = [[np.where(at.truth > 0, area(at), np.nan) for at in of_ways] for of_ways in points(ranking, weights)]
    return np.concatenate(values, axis=1)
