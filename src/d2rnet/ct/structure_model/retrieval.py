"""Retrieval of stage 1, structure by structure: a volume's own text among the distinct ones and back, beside its chance.

Candidates that are equally near count as in random order: where k of t equals are among the first ones, the right one is found
with a chance of k / t. So texts that a model cannot tell apart are found as by chance.

Shapes: N volumes, n of them known to have a text, U distinct texts, E width of the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.structure_model.diagnostics import Floats
from d2rnet.evaluation.resampling import percentile_interval

RANKS = (1, 5, 10)
HEADLINE_RANK = 5
EQUAL = 1e-5  # cosines closer than that are equal: vectors of one text in batches of other lengths differ by rounding


@dataclass(frozen=True)
class Places:
    """Where the right candidates of n queries stand. Those that are equally near are taken to be in random order.

    Attributes:
        before: (n,) candidates that are nearer than the best right one.
        equals: (n,) candidates as near as it, itself among them.
        right: (n,) right ones among these.
    """

    before: NDArray[np.int64]
    equals: NDArray[np.int64]
    right: NDArray[np.int64]

    def found(self, rank: int) -> Floats:
        """Return (n,) the chance that a right candidate is among the first ``rank``; 0 or 1 where it has no equal."""
        rows = zip((rank - self.before).tolist(), self.equals.tolist(), self.right.tolist(), strict=True)
        return np.array([_chance_of_any(equals, right, left) for left, equals, right in rows], np.float64)


def image_to_text(images: Floats, texts: Floats, own: NDArray[np.int64]) -> Places:
    """Return where each volume's own text stands among the distinct ones.

    Args:
        images: (N, E).
        texts: (U, E), each text once. Some may have one vector: what differs behind ``text.max_tokens``, or in words that the
            vocabulary lacks.
        own: (N,) place of each volume's text.
    """
    scores = images @ texts.T  # (N, U)
    wanted = scores[np.arange(len(own)), own][:, None]
    return _places(scores, wanted, np.ones(len(own), np.int64))


def text_to_image(images: Floats, texts: Floats, own: NDArray[np.int64]) -> Places:
    """Return where the best of the volumes that have a text stands, for each distinct text: any of them counts."""
    scores = texts @ images.T  # (U, N)
    has = np.arange(len(texts))[:, None] == own
    best = np.where(has, scores, -np.inf).max(axis=1, keepdims=True)
    return _places(scores, best, (has & (scores >= best - EQUAL)).sum(axis=1))


def _places(scores: Floats, wanted: Floats, right: NDArray[np.int64]) -> Places:
    """Place scores ``wanted`` (n, 1) among those of all candidates (n, candidates)."""
    before = (scores > wanted + EQUAL).sum(axis=1)
    return Places(before, (scores >= wanted - EQUAL).sum(axis=1) - before, right)


def chance_of_any(count: int, right: Sequence[int], rank: int) -> float | None:
    """Return how often ``rank`` of ``count`` candidates, drawn blindly, hold one of the right ones; mean over queries."""
    return float(np.mean([_chance_of_any(count, some, rank) for some in right])) if right else None


def _chance_of_any(count: int, right: int, rank: int) -> float:
    drawn = min(max(rank, 0), count)
    return 1 - comb(count - right, drawn) / comb(count, drawn)


@dataclass(frozen=True)
class Retrieved:
    """Retrieval of one structure.

    Attributes:
        known: (N,) bool, volumes whose report speaks of it.
        texts: (U, E) the distinct texts.
        by_image: place of each one's own text among the distinct ones.
        by_text: place of the best volume of each distinct text.
        sharing: how many volumes share each distinct text, the commonest first.
    """

    known: NDArray[np.bool_]
    texts: Floats
    by_image: Places
    by_text: Places
    sharing: list[int]


def retrieve(images: Floats, texts: Floats, known: NDArray[np.bool_], numbers: NDArray[np.int64]) -> Retrieved:
    """Look up the texts of one structure.

    Args:
        images: (N, E).
        texts: (N, E).
        known: (N,) whether there is a text.
        numbers: (N,) equal for equal texts.
    """
    if not known.any():
        nothing = np.zeros(0, np.int64)
        places = Places(nothing, nothing, nothing)
        return Retrieved(known, texts[known], places, places, [])
    _, first, own = np.unique(numbers[known], return_index=True, return_inverse=True)
    own_images, distinct = images[known], texts[known][first]
    sharing = sorted(np.bincount(own).tolist(), reverse=True)
    by_image, by_text = image_to_text(own_images, distinct, own), text_to_image(own_images, distinct, own)
    return Retrieved(known, distinct, by_image, by_text, sharing)


def retrieval_scores(retrieved: Retrieved, counts: NDArray[np.float32]) -> dict[str, Any]:
    """Return retrieval both ways of one structure; None where no report speaks of it.

    Args:
        retrieved: of N volumes.
        counts: (N, R) how often each volume is in each resample of patients.
    """
    known, sharing = retrieved.known, retrieved.sharing
    row: dict[str, Any] = {"volumes": int(known.sum()), "distinct_texts": len(sharing)}
    for rank in RANKS:
        row[f"image_to_text_recall_at_{rank}"] = _mean(retrieved.by_image.found(rank))
        row[f"image_to_text_chance_at_{rank}"] = min(1.0, rank / len(sharing)) if sharing else None
        row[f"image_to_text_commonest_at_{rank}"] = sum(sharing[:rank]) / sum(sharing) if sharing else None
        row[f"text_to_image_recall_at_{rank}"] = _mean(retrieved.by_text.found(rank))
        row[f"text_to_image_chance_at_{rank}"] = chance_of_any(int(known.sum()), sharing, rank)
    row["image_to_text_recall_at_5_interval"] = _interval(retrieved.by_image.found(HEADLINE_RANK), counts[known])
    return row


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _interval(values: Floats, counts: NDArray[np.float32]) -> list[float] | None:
    """Return the 95 % percentile interval of a mean over volumes, of resamples of patients."""
    if not len(values):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentile_interval(values @ counts / counts.sum(axis=0))
