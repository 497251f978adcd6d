"""What embeddings of stage 1 are worth beside retrieval: how far they spread, attention inside a structure.

Shapes: N volumes, U distinct texts, E width of the space, P patches.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COLLAPSED_LENGTH = 0.98
COLLAPSED_RANK = 2.0
LEAST_TEXTS = 5  # fewer span hardly more than COLLAPSED_RANK dimensions anyway


def effective_rank(vectors: Floats) -> float:
    """Return exp of the entropy of the singular values' shares, of centred vectors (Roy and Vetterli, EUSIPCO 2007).

    Args:
        vectors: (N, E); the result lies between 1 and min(N, E), and is 0 where all are the same.
    """
    values = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    total = values.sum()
    if total < 1e-6:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def spread(images: Floats, texts: Floats) -> dict[str, Any]:
    """Say how far the images (N, E) and the distinct texts (U, E) of one structure differ; None of no text."""
    row: dict[str, Any] = {"effective_rank": effective_rank(images), "mean_length": _mean_length(images)}
    row["collapsed"] = row["mean_length"] > COLLAPSED_LENGTH or row["effective_rank"] < COLLAPSED_RANK
    some = len(texts) > 0
    row["texts_effective_rank"] = effective_rank(texts) if some else None
    row["texts_mean_length"] = _mean_length(texts) if some else None
    flat = len(texts) >= LEAST_TEXTS and row["texts_effective_rank"] < COLLAPSED_RANK
    row["texts_collapsed"] = len(texts) > 1 and (flat or row["texts_mean_length"] > COLLAPSED_LENGTH)
    return row


def _mean_length(vectors: Floats) -> float:
    """Return the length of the mean of vectors (n, E) of length 1; near 1 they are all alike."""
    return float(np.linalg.norm(vectors.mean(axis=0)))


def attention_inside(attention: Floats, shares: Floats, seen: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Compare where a query looks with where its structure is, in one volume.

    Args:
        attention: (P,) of the structure's queries; any scale.
        shares: (P,) of each patch that the structure fills.
        seen: (P,) patches that may be looked at.

    Returns:
        ``inside`` (share of the attention that falls on the structure), ``expected`` (the structure's share of what may be
        looked at) and ``hit`` (does the patch of greatest attention touch it); None where it is not in the volume.
    """
    expected = float(shares[seen].mean()) if seen.any() else 0.0
    if expected == 0.0 or attention.sum() <= 0:
        return None
    inside = float((attention * shares).sum() / attention.sum())
    return {"inside": inside, "expected": expected, "hit": bool(shares[int(attention.argmax())] > 0)}
