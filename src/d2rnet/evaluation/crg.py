"""CRG: a score of the labels of generated reports that pays for rare findings what they are worth.

Hamamci et al., "CRG Score: A Distribution-Aware Clinical Metric for Radiology Report Generation", arXiv 2505.17167. The paper
could not be read; the formula is reconstructed from what the scoring of the VLM3D challenge computes. All cells (reports by
labels) are pooled. With A true positives-or-missed (TP + FN) of T cells, a hit is worth ``w = (T - A) / (2 A)``, a miss costs
as much, and an invention costs 1:

    s = w TP - w FN - FP        U = w A = (T - A) / 2        CRG = U / (2 U - s)

So a perfect answer has 1, "nothing anywhere" and "everything everywhere" both 1/3, and the opposite of the truth 1/5, however
rare the findings are.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def crg(hits: ArrayLike, missed: ArrayLike, invented: ArrayLike, cells: ArrayLike) -> NDArray[np.float64]:
    """Compute the score of pooled counts.

    Args:
        hits: (S,) true positives TP.
        missed: (S,) false negatives FN.
        invented: (S,) false positives FP.
        cells: (S,) all judged cells T.

    Returns:
        (S,) in [1/5, 1]; NaN where no cell is positive (w divides 0 hits by A = 0) or none is negative (U and s are 0).
    """
    found, lost, false, judged = (np.asarray(value, dtype=np.float64) for value in (hits, missed, invented, cells))
    positive = found + lost
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = (judged - positive) / (2 * positive)
        most = (judged - positive) / 2  # U = w A
        score = weight * found - weight * lost - false
        return most / (2 * most - score)
