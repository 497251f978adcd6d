"""All metrics of a detector under the project's protocol (docs/explanation/protocol.md), with bootstrap intervals.

COCO's figures are those of :mod:`d2rnet.cxr.boxes.coco_scores`. Beside them: PASCAL VOC 2010 mean average precision at IoU
above 0.4, the VinBigData challenge's metric; free-response ROC (Bunch et al., J Appl Photogr Eng 1978), sensitivity to
lesions against false positives per image; area under the ROC curve of "any finding"; calibration of the scores.
Shapes: N detections, n images, C classes with a truth box, S weightings of the images (resamples).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.average_precision import Ranking, points, voc_ap
from d2rnet.cxr.boxes.coco_scores import (
    COCO_RANGE,
    IOU_THRESHOLDS,
    REPORTED,
    Scored,
    as_figure,
    match_results,
    mean_over_classes,
    scores_of,
    unweighted,
)
from d2rnet.cxr.boxes.matching import match_voc
from d2rnet.cxr.boxes.records import Record
from d2rnet.evaluation.auroc import auroc
from d2rnet.evaluation.resampling import basic_interval, logit_interval
from d2rnet.findings.classes import CATEGORY_NAMES, VINBIGDATA_NAMES

VOC_IOU = 0.4
FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # false positives per image
CALIBRATION_BINS = 10
HEADLINES = ("AP", "AP50", "AP40", "voc_mAP40_22", "voc_mAP40_14", "froc_mean", "auroc_any_finding")


@dataclass(frozen=True)
class Evaluated:
    """One network's detections, matched by both rules.

    Attributes:
        scored: matched by COCO's rule.
        voc_hits: (N,) bool, matched by PASCAL VOC's rule at IoU > 0.4.
        image_scores: (n,) highest score of any box of the image, 0 without a box.
        abnormal: (n,) bool, the image has a truth box.
    """

    scored: Scored
    voc_hits: NDArray[np.bool_]
    image_scores: NDArray[np.float64]
    abnormal: NDArray[np.bool_]

    def voc_ranking(self, category: int) -> Ranking:
        """Detections of a class (0-based), best first."""
        found = self.scored.found
        truth = self.scored.truth
        places = np.flatnonzero(found.classes == category)
        places = places[np.argsort(-found.scores[places], kind="stable")]
        return Ranking(found.rows[places], self.voc_hits[None, places], truth.rows[truth.classes == category])

    def pooled_ranking(self) -> Ranking:
        """Detections of all classes with a truth box, best first; of equal scores false positives first."""
        found = self.scored.found
        places = np.flatnonzero(np.isin(found.classes, self.scored.present))
        places = places[np.lexsort((self.voc_hits[places], -found.scores[places]))]
        return Ranking(found.rows[places], self.voc_hits[None, places], self.scored.truth.rows)


def evaluate_results(records: Sequence[Record], results: Sequence[dict[str, Any]]) -> Evaluated:
    """Match COCO results with the boxes of the records.

    Args:
        records: every image that was looked at, normal ones too.
        results: COCO results on them.

    Raises:
        DatasetError: a result of an image that is not among the records.
    """
    scored = match_results(records, results)
    image_scores = np.zeros(len(records))
    np.maximum.at(image_scores, scored.found.rows, scored.found.scores)
    abnormal = np.bincount(scored.truth.rows, minlength=len(records)) > 0
    return Evaluated(scored, match_voc(scored.truth, scored.found, VOC_IOU), image_scores, abnormal)


def headlines(evaluated: Evaluated, weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Compute the HEADLINES for weightings (n, S) of the images.

    Returns:
        Name -> (S,) values; NaN where a weighting leaves nothing to score. Means are over the classes that keep a truth box.
    """
    scored = evaluated.scored
    coco = scored.per_class(range(len(IOU_THRESHOLDS)), weights)  # (C, T, S)
    voc = per_class_voc(evaluated, weights)
    challenge = np.isin(scored.present, [CATEGORY_NAMES.index(name) for name in VINBIGDATA_NAMES])
    return {
        "AP": mean_over_classes(coco[:, COCO_RANGE].mean(axis=1)),
        **{name: mean_over_classes(coco[:, REPORTED[name]]) for name in ("AP50", "AP40")},
        "voc_mAP40_22": mean_over_classes(voc),
        "voc_mAP40_14": mean_over_classes(voc[challenge]),
        "froc_mean": froc_sensitivity(evaluated.pooled_ranking(), weights).mean(axis=0),
        "auroc_any_finding": auroc(evaluated.image_scores, evaluated.abnormal, weights),
    }


def per_class_voc(evaluated: Evaluated, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """(C, S) PASCAL VOC 2010 average precision at IoU > 0.4 of the classes with a truth box."""
    values = [voc_ap(evaluated.voc_ranking(category), weights)[0] for category in evaluated.scored.present]
    return np.array(values).reshape(len(values), weights.shape[1])


def froc_sensitivity(ranking: Ranking, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of truth boxes found at the FROC_RATES.

    Args:
        ranking: detections of all classes, false positives before hits of equal score.
        weights: (n, S).

    Returns:
        (7, S) highest sensitivity with at most so many false positives per image; NaN where there is no truth.
    """
    values = []
    for (at,) in points(ranking, weights):
        false = at.detections - at.hits  # (K, S), rising
        found = np.concatenate([np.zeros((1, len(at.truth))), at.hits])
        kept = [(false <= rate * at.images).sum(axis=0) for rate in FROC_RATES]
        hits = np.array([np.take_along_axis(found, places[None], axis=0)[0] for places in kept])
        values.append(np.divide(hits, at.truth, out=np.full_like(hits, np.nan), where=at.truth > 0))
    return np.concatenate(values, axis=1)


def calibration(scored: Scored) -> dict[str, Any]:
    """Compare scores with the share of boxes that hit a truth box of their class at IoU >= 0.5 (COCO's rule).

    Returns:
        ``ece``, the expected calibration error (Naeini et al., AAAI 2015): mean over boxes of |precision - mean score| of
        their bin, None without boxes; ``bins``: ten of equal width with ``from``, ``to``, ``boxes``, ``mean_score`` and
        ``precision``.
    """
    counted = np.isin(scored.found.classes, scored.present)
    scores = scored.found.scores[counted]
    hits = scored.matches.hit[0, REPORTED["AP50"], counted]
    place = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    boxes, score_sums, hit_sums = (
        np.bincount(place, weights=values, minlength=CALIBRATION_BINS) for values in (np.ones(len(scores)), scores, hits)
    )
    with np.errstate(invalid="ignore"):
        mean_score = score_sums / boxes
        precision = hit_sums / boxes
    ece = np.abs(score_sums - hit_sums).sum() / boxes.sum() if len(scores) else np.nan
    bins = [
        {
            "from": index / CALIBRATION_BINS,
            "to": (index + 1) / CALIBRATION_BINS,
            "boxes": int(boxes[index]),
            "mean_score": as_figure(mean_score[index]),
            "precision": as_figure(precision[index]),
        }
        for index in range(CALIBRATION_BINS)
    ]
    return {"ece": as_figure(ece), "bins": bins}


def class_intervals(evaluated: Evaluated, counts: NDArray[np.float32]) -> dict[str, list[float] | None]:
    """Name of each class with a truth box -> 95 % bootstrap interval of its AP50, None without a finite draw.

    Args:
        evaluated: matched detections of a network.
        counts: (n, S) resamples of the images. One that leaves a class no truth box says nothing of that class.
    """
    scored = evaluated.scored
    at_50 = [REPORTED["AP50"]]
    values = scored.per_class(at_50, unweighted(scored.images))[:, 0, 0]
    drawn = scored.per_class(at_50, counts)[:, 0]  # (C, S)
    images = [len(np.unique(scored.truth.rows[scored.truth.classes == category])) for category in scored.present]
    names = [CATEGORY_NAMES[category] for category in scored.present]
    return {name: logit_interval(values[row], drawn[row], cases=images[row]) for row, name in enumerate(names)}


def figures_of(evaluated: Evaluated, drawn: Mapping[str, NDArray[np.float64]], counts: NDArray[np.float32]) -> dict[str, Any]:
    """Lay out all figures of a network for metrics.json.

    Args:
        evaluated: its matched detections.
        drawn: :func:`headlines` of the resamples.
        counts: (n, S) the resamples.
    """
    once = unweighted(evaluated.scored.images)
    figures = headlines(evaluated, once)
    ranking = evaluated.pooled_ranking()
    sensitivity = froc_sensitivity(ranking, once)[:, 0]
    names = [CATEGORY_NAMES[category] for category in evaluated.scored.present]
    per_class = per_class_voc(evaluated, once)[:, 0]
    abnormal = int(evaluated.abnormal.sum())
    cases = dict.fromkeys(HEADLINES, abnormal) | {"auroc_any_finding": min(abnormal, evaluated.scored.images - abnormal)}
    drawn_sensitivity = froc_sensitivity(ranking, counts)
    return {
        **scores_of(evaluated.scored),
        **{name: as_figure(figures[name][0]) for name in HEADLINES[3:]},
        "per_class_AP50_intervals": class_intervals(evaluated, counts),
        "per_class_voc_AP40": {name: as_figure(value) for name, value in zip(names, per_class, strict=True)},
        "froc": {
            "false_positives_per_image": list(FROC_RATES),
            "sensitivity": [as_figure(value) for value in sensitivity],
            "intervals": [logit_interval(*pair, cases=abnormal) for pair in zip(sensitivity, drawn_sensitivity, strict=True)],
        },
        "calibration": calibration(evaluated.scored),
        "intervals": {name: logit_interval(figures[name][0], drawn[name], cases=cases[name]) for name in HEADLINES},
    }


def difference_of(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    drawn_a: Mapping[str, NDArray[np.float64]],
    drawn_b: Mapping[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """Headline -> ``difference`` a - b and its paired bootstrap ``interval``; None where one has no value.

    Args:
        a: :func:`figures_of` of one network.
        b: of the other.
        drawn_a: its headlines on the resamples.
        drawn_b: those of the other, on the same resamples.
    """
    differences = {name: None if a[name] is None or b[name] is None else a[name] - b[name] for name in HEADLINES}
    return {
        name: {
            "difference": None if value is None else as_figure(value),
            "interval": basic_interval(value, drawn_a[name] - drawn_b[name], least=-1.0),
        }
        for name, value in differences.items()
    }
