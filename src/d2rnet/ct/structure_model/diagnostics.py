"""What embeddings of stage 1 are worth: retrieval beside its chance, rank, zero-shot AUROC, attention inside a structure.

Shapes: N volumes, U distinct texts, E width of the space, P patches.
"""

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RANKS = (1, 5, 10)


def image_to_text(images: Floats, texts: Floats, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of each volume's own text among the distinct ones.

    Args:
        images: (N, E).
        texts: (U, E), each text once.
        own: (N,) place of each volume's text.
    """
    scores = images @ texts.T  # (N, U)
    return 1 + (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)


def text_to_image(images: Floats, texts: Floats, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of the best of the volumes that have a text, for each distinct text: any of them counts."""
    scores = texts @ images.T  # (U, N)
    best = np.array([row[own == number].max() for number, row in enumerate(scores)])
    return 1 + (scores > best[:, None]).sum(axis=1)


def recall(ranks: NDArray[np.int64], rank: int) -> float | None:
    """Return the share of ranks up to ``rank``; None of none."""
    return float((ranks <= rank).mean()) if len(ranks) else None


def chance_of_any(count: int, right: Sequence[int], rank: int) -> float | None:
    """Return how often ``rank`` of ``count`` candidates, drawn blindly, hold one of the right ones; mean over queries."""
    if not right:
        return None
    drawn = min(rank, count)
    return float(np.mean([1 - comb(count - some, drawn) / comb(count, drawn) for some in right]))


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
