"""Paired bootstrap of AP50 over images, for two lists of results on the same images.

Images are matched once; a resample only weighs them. Both lists are scored on the same resamples, so that the interval of the
difference leaves out what is common to both (easy and hard images).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.coco_scores import REPORTED, as_figure, match_results, mean_over_classes, unweighted
from d2rnet.cxr.boxes.records import Record
from d2rnet.evaluation.resampling import basic_interval, logit_interval, resample_counts


@dataclass(frozen=True)
class PairedAP50:
    """AP50 of two result lists a and b and of their difference a - b, each with its bootstrap 95 % interval.

    Values are in [0, 1] (differences in [-1, 1]); None where no image has a box.
    """

    ap50_a: float | None
    ap50_b: float | None
    difference: float | None
    interval_a: list[float] | None
    interval_b: list[float] | None
    interval_difference: list[float] | None
    images: int
    samples: int


def bootstrap_ap50(
    records: Sequence[Record],
    results_a: Sequence[dict[str, Any]],
    results_b: Sequence[dict[str, Any]],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> PairedAP50:
    """Compare two detectors by COCO AP50 on the same images.

    Args:
        records: every image that was looked at, those without boxes too.
        results_a: COCO results of one detector on these images.
        results_b: COCO results of the other.
        samples: number of resamples of the images.
        seed: of the resamples.

    Raises:
        DatasetError: a result of an image that is not among the records.
    """
    (a, drawn_a), (b, drawn_b) = (
        ap50_with_resamples(records, results, samples=samples, seed=seed) for results in (results_a, results_b)
    )
    cases = sum(len(record.classes) > 0 for record in records)
    return PairedAP50(
        ap50_a=as_figure(a),
        ap50_b=as_figure(b),
        difference=as_figure(a - b),
        interval_a=logit_interval(a, drawn_a, cases=cases),
        interval_b=logit_interval(b, drawn_b, cases=cases),
        interval_difference=basic_interval(a - b, drawn_a - drawn_b, least=-1.0),
        images=len(records),
        samples=samples,
    )


def ap50_with_resamples(
    records: Sequence[Record], results: Sequence[dict[str, Any]], *, samples: int, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """COCO AP50 on all images, and on resamples of them that depend on ``samples``, ``seed`` and the number of images only.

    Args:
        records: every image that was looked at.
        results: COCO results on these images.
        samples: S, number of resamples.
        seed: of the resamples.

    Returns:
        AP50 and (S,) AP50 of the resamples; each the mean over the classes that have a box there, NaN if none has.
    """
    scored = match_results(records, results, areas=("all",))
    counts = resample_counts(len(records), samples=samples, seed=seed)
    value, drawn = (
        mean_over_classes(scored.per_class([REPORTED["AP50"]], weights))[0] for weights in (unweighted(len(records)), counts)
    )
    return float(value[0]), drawn
