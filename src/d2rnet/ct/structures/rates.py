"""Precision, recall and F1 of what is said of many records against what is true of them. Shapes: N records, C classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.clinical import precision_recall_f1
from d2rnet.figures.tables import markdown_table

Matrix = NDArray[np.bool_]


def rates(truth: Matrix, said: Matrix, names: Sequence[str]) -> dict[str, Any]:
    """Compare two (N, C) matrices.

    Args:
        truth: (N, C) bool.
        said: (N, C) bool.
        names: of the C classes.

    Returns:
        ``per_class``: name -> precision, recall, f1, true, said (a share of nothing is None); ``macro_f1`` over the classes
        that are true somewhere, ``micro_f1``, ``weighted_f1`` (by how often a class is true); None where nothing is true.
    """
    hits = (truth & said).sum(axis=0)  # (C,)
    true = truth.sum(axis=0)  # (C,)
    claimed = said.sum(axis=0)  # (C,)
    per_class = {name: one_rate(int(hits[place]), int(true[place]), int(claimed[place])) for place, name in enumerate(names)}
    there = [entry for entry in per_class.values() if entry["true"]]
    total = sum(entry["true"] for entry in there)
    return {
        "per_class": per_class,
        "macro_f1": float(np.mean([entry["f1"] for entry in there])) if there else None,
        "micro_f1": one_rate(int(hits.sum()), int(true.sum()), int(claimed.sum()))["f1"] if there else None,
        "weighted_f1": sum(entry["f1"] * entry["true"] for entry in there) / total if there else None,
    }


def one_rate(hits: int, true: int, said: int) -> dict[str, Any]:
    """Return precision, recall and F1 of counts beside the counts; a share of nothing is None."""
    return {**precision_recall_f1(hits, true, said), "true": true, "said": said}


def rate_lines(per_class: dict[str, dict[str, Any]], header: str) -> list[str]:
    """Lay rates out as the lines of a Markdown table; what is a share of nothing is a dash."""
    rows = [
        [name, str(entry["true"]), str(entry["said"]), *(_shown(entry[key]) for key in ("precision", "recall", "f1"))]
        for name, entry in per_class.items()
    ]
    return markdown_table([header, "true", "said", "precision", "recall", "F1"], rows)


def _shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
