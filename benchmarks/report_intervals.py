"""How often do bootstrap 95 % intervals of report scores hold the true value? Percentile against basic interval.

The reports of two finished runs on the same studies are taken for the whole population, whose scores are then known. Test sets
are drawn from it with replacement, scored anew (CIDEr with the word weights of the test set), the intervals of each computed,
and those that hold the population's value counted; likewise for the difference of the two runs. METEOR is left out, since it
needs a Java process for each test set. Prints Markdown.

Usage: python benchmarks/report_intervals.py RUN_A RUN_B [--reports 175] [--test-sets 200]
RUN: a JSON lines file of reports, or a folder that holds one, as for 'd2rnet compare'.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.evaluation.clinical import HEADLINE
from d2rnet.evaluation.compare import read_run, shared_ids
from d2rnet.evaluation.resampling import basic_interval, percentile_interval, resample_counts
from d2rnet.evaluation.systems import ScoredSystem, score_system
from d2rnet.figures.tables import markdown_table

RESAMPLES = 400
METRICS = ("bleu_1", "bleu_4", "rouge_l", "cider", f"{HEADLINE}_micro_f1", f"{HEADLINE}_macro_f1")
GREATEST = 10.0  # of CIDEr; the others end at 1


def score(references: list[str], hypotheses: list[str]) -> ScoredSystem:
    """Score one test set."""
    return score_system(Scorer(None), references, hypotheses, what="test set")


def scores_of(systems: list[ScoredSystem]) -> dict[str, float]:
    """Scores of the first system, and its lead over the second."""
    first, second = (system.scores() for system in systems)
    found = {name: first[name] or 0.0 for name in METRICS}
    return found | {f"{name}, difference": found[name] - (second[name] or 0.0) for name in METRICS}


def draws(systems: list[ScoredSystem], counts: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The same scores of each resample."""
    first, second = (system.resampled(counts) for system in systems)
    return {name: first[name] for name in METRICS} | {f"{name}, difference": first[name] - second[name] for name in METRICS}


def coverage(references: list[str], answers: list[list[str]], reports: int, test_sets: int) -> dict[str, dict[str, float]]:
    """Metric -> population's value, mean of the test sets, share of their intervals that hold the population's value."""
    truth = scores_of([score(references, texts) for texts in answers])
    sums = {name: {"mean": 0.0, "percentile": 0.0, "basic": 0.0} for name in truth}
    for seed in range(test_sets):
        rows = np.random.default_rng(seed).integers(len(references), size=reports)
        systems = [score([references[row] for row in rows], [texts[row] for row in rows]) for texts in answers]
        values = scores_of(systems)
        drawn = draws(systems, resample_counts(reports, samples=RESAMPLES, seed=seed))
        for name, value in values.items():
            least = -GREATEST if "difference" in name else 0.0
            intervals = {
                "percentile": percentile_interval(drawn[name]),
                "basic": basic_interval(value, drawn[name], least=least, greatest=GREATEST),
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
    parser.add_argument("run_a", type=Path)
    parser.add_argument("run_b", type=Path)
    parser.add_argument("--reports", type=int, default=175, help="reports of a test set")
    parser.add_argument("--test-sets", type=int, default=200)
    options = parser.parse_args()
    runs = [read_run(options.run_a), read_run(options.run_b)]
    ids = shared_ids(runs[0], runs[1], studies="same")
    references = [runs[0].reports[name]["reference"] for name in ids]
    answers = [[run.reports[name]["hypothesis"] for name in ids] for run in runs]
    print(f"{len(ids)} reports, {options.test_sets} test sets of {options.reports}, {RESAMPLES} resamples each.\n")
    rows = [
        [name, *(f"{row[key]:.3f}" for key in ("population", "mean")), *(f"{row[key]:.2f}" for key in ("percentile", "basic"))]
        for name, row in coverage(references, answers, options.reports, options.test_sets).items()
    ]
    header = ["metric", "population", "mean of the test sets", "percentile holds it", "basic holds it"]
    print("\n".join(markdown_table(header, rows)))


if __name__ == "__main__":
    main()
