"""How often do bootstrap 95 % intervals of the detector's figures hold the true value? Percentile, basic, logit.

The 991 images of the report source of a finished demo run, with what was drawn and the pseudo boxes, are taken for the whole
population, whose figures are then known. Test sets are drawn from it with replacement, the intervals of each computed, and
those that hold the population's value counted. The second detector of the paired difference has the same boxes with noisy
scores, a tenth of them dropped. Prints Markdown.

Usage: python benchmarks/bootstrap_coverage.py [--run DIR] [--images 120] [--test-sets 100]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pseudo_boxes import drawn_records

from d2rnet.cxr.boxes.coco_scores import unweighted
from d2rnet.cxr.boxes.detection_scores import HEADLINES, Evaluated, evaluate_results, headlines
from d2rnet.evaluation.resampling import basic_interval, logit_interval, percentile_interval, resample_counts
from d2rnet.files.documents import read_json

RESAMPLES = 400
SCORE_NOISE = 0.15
DROPPED = 0.1


def worse(results: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """The same results with noise on the scores, some of them dropped."""
    noisy = ({**result, "score": float(np.clip(result["score"] + rng.normal(0, SCORE_NOISE), 0, 1))} for result in results)
    return [result for result in noisy if rng.random() > DROPPED]


def figures(networks: list[Evaluated], weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Headlines (S,) of the first network, and its difference from the second."""
    first, second = (headlines(network, weights) for network in networks)
    return first | {f"{name}, difference": first[name] - second[name] for name in HEADLINES}


def coverage(networks: list[Evaluated], population: int, images: int, test_sets: int) -> dict[str, dict[str, float]]:
    """Figure -> population's value, mean of the test sets, share of their intervals that hold the population's value."""
    truth = {name: float(values[0]) for name, values in figures(networks, unweighted(population)).items()}
    sums = {name: {"mean": 0.0, "percentile": 0.0, "basic": 0.0, "logit": 0.0} for name in truth}
    for seed in range(test_sets):
        rows = np.random.default_rng(seed).integers(population, size=images)
        weights = np.zeros((population, 1 + RESAMPLES), dtype=np.float32)
        np.add.at(weights, rows, np.hstack([np.ones((images, 1)), resample_counts(images, samples=RESAMPLES, seed=seed)]))
        for name, values in figures(networks, weights).items():
            value, drawn = float(values[0]), values[1:]
            difference = "difference" in name
            intervals = {
                "percentile": percentile_interval(drawn),
                "basic": basic_interval(value, drawn, least=-1.0 if difference else 0.0),
                "logit": None if difference else logit_interval(value, drawn, cases=images),
            }
            sums[name]["mean"] += value
            for kind, ends in intervals.items():
                sums[name][kind] += ends is not None and ends[0] <= truth[name] <= ends[1]
    return {
        name: {"population": truth[name], **{key: total / test_sets for key, total in sums[name].items()}} for name in truth
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    parser.add_argument("--images", type=int, default=120, help="images of a test set")
    parser.add_argument("--test-sets", type=int, default=100)
    arguments = parser.parse_args()
    records, _ = drawn_records(arguments.run)
    ids = {record.image_id for record in records}
    predictions = read_json(arguments.run / "results/cxr/predict_boxes/predictions.json")
    results = [result for result in predictions if result["image_id"] in ids]
    rng = np.random.default_rng(0)
    networks = [evaluate_results(records, found) for found in (results, worse(results, rng))]
    print("Share of the intervals that hold the population's value; no logit interval of a difference.")
    print(f"{len(records)} images, {arguments.test_sets} test sets of {arguments.images}, {RESAMPLES} resamples each.\n")
    print("| figure | population | mean of the test sets | percentile | basic | logit |\n|---|---|---|---|---|---|")
    for name, row in coverage(networks, len(records), arguments.images, arguments.test_sets).items():
        shares = " | ".join(f"{row[kind]:.2f}" for kind in ("percentile", "basic", "logit"))
        print(f"| {name} | {row['population']:.3f} | {row['mean']:.3f} | {shares} |")


if __name__ == "__main__":
    main()
