"""How often do 95 % intervals of scores near 1 hold the true value? Percentile, basic and logit, on drawn test sets.

``auroc``: scores of normal and abnormal images from two normal distributions, whose area under the ROC curve is known.
``detector``: the boxes of a drawn detector on 1,000 drawn images are the whole population; test sets of 120 images are drawn
from it with replacement. Needs no run. Prints Markdown.

Usage: python benchmarks/near_one_coverage.py [auroc] [detector] [--test-sets 300]
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from bootstrap_coverage import coverage
from numpy.typing import NDArray

from d2rnet.cxr.boxes.detection_scores import evaluate_results
from d2rnet.cxr.boxes.records import Record
from d2rnet.evaluation.auroc import auroc
from d2rnet.evaluation.resampling import basic_interval, logit_interval, percentile_interval, resample_counts
from d2rnet.figures.tables import markdown_table
from d2rnet.findings.classes import CATEGORY_NAMES

KINDS = ("percentile", "basic", "logit")
IMAGES, POPULATION, SIDE_PX = 120, 1000, 256


def intervals_of(value: float, drawn: NDArray[np.float64], cases: int) -> dict[str, list[float] | None]:
    """The three intervals of one test set."""
    logit = logit_interval(value, drawn, cases=cases)
    return dict(zip(KINDS, (percentile_interval(drawn), basic_interval(value, drawn), logit), strict=True))


def auroc_coverage(truth: float, images: int, abnormal_share: float, *, test_sets: int, resamples: int) -> dict[str, float]:
    """Share of the intervals that hold an area under the ROC curve of ``truth``, by kind."""
    rng = np.random.default_rng(0)
    distance = np.sqrt(2) * NormalDist().inv_cdf(truth)  # area = Phi(distance / sqrt(2))
    held = dict.fromkeys(KINDS, 0)
    for seed in range(test_sets):
        abnormal = np.arange(images) < max(1, rng.binomial(images - 1, abnormal_share))
        scores = rng.normal(size=images) + distance * abnormal
        (value,) = auroc(scores, abnormal, np.ones((images, 1), np.float32))
        drawn = auroc(scores, abnormal, resample_counts(images, samples=resamples, seed=seed))
        rarer = int(min(abnormal.sum(), (~abnormal).sum()))
        for kind, ends in intervals_of(float(value), drawn, rarer).items():
            held[kind] += ends is not None and ends[0] <= truth <= ends[1]
    return {kind: count / test_sets for kind, count in held.items()}


def drawn_detector(skill: float, rng: np.random.Generator) -> tuple[list[Record], list[dict[str, Any]]]:
    """Images with drawn boxes of classes of falling frequency, and results that find a share ``skill`` of them."""
    frequency = 1 / np.arange(2, len(CATEGORY_NAMES) + 2)
    frequency /= frequency.sum()

    def box() -> NDArray[np.float64]:
        corner = rng.uniform(0, 150, 2)
        return np.concatenate([corner, corner + rng.uniform(30, 90, 2)])  # (4,) xyxy

    def result(image: int, category: int, at: NDArray[np.float64], logit: float) -> dict[str, Any]:
        xywh = [*at[:2], *np.maximum(at[2:] - at[:2], 5)]
        return {"image_id": image, "category_id": category + 1, "bbox": xywh, "score": float(1 / (1 + np.exp(-logit)))}

    records, results = [], []
    for image in range(1, POPULATION + 1):
        classes = rng.choice(len(frequency), size=rng.poisson(1.2) * (rng.random() < 0.7), p=frequency)
        boxes = np.array([box() for _ in classes]).reshape(-1, 4)
        hw = (SIDE_PX, SIDE_PX)
        records.append(Record(image, str(image), "test", Path(str(image)), hw, boxes.astype(np.float32), classes))
        for at, category in zip(boxes, classes, strict=True):
            if rng.random() < skill:
                results.append(result(image, category, at + rng.normal(0, 15 * (1 - skill), 4), rng.normal(2 * skill, 1)))
        for category in rng.choice(len(frequency), size=rng.poisson(1.5), p=frequency):
            results.append(result(image, category, box(), rng.normal(-3 * skill, 1)))
    return records, results


def table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lay out shares by name."""
    cells = [[name, *(f"{row[kind]:.2f}" for kind in KINDS)] for name, row in rows.items()]
    return markdown_table(["true value", *KINDS], cells)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["auroc", "detector"])
    parser.add_argument("--test-sets", type=int, default=300)
    options = parser.parse_args()
    if "auroc" in options.parts:
        rows = {
            f"AUROC {truth}, {images} images, {share:.0%} abnormal": auroc_coverage(
                truth, images, share, test_sets=options.test_sets, resamples=400
            )
            for images, share in ((120, 0.7), (120, 0.1), (40, 0.5), (300, 0.5))
            for truth in (0.7, 0.9, 0.97, 0.99)
        }
        print("\n".join(table(rows)), "\n")
    for skill in (0.7, 0.97) if "detector" in options.parts else ():
        records, results = drawn_detector(skill, np.random.default_rng(0))
        found = coverage([evaluate_results(records, results)] * 2, POPULATION, IMAGES, options.test_sets)
        rows = {f"{name} {row['population']:.3f}": row for name, row in found.items() if "difference" not in name}
        print("\n".join(table(rows)), "\n")


if __name__ == "__main__":
    main()
