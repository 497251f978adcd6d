"""What each rule of the queue keeps of a stream of drawn texts, and what an addition takes. Prints Markdown.

Of the texts 70 % are normal; the others follow 30 patterns whose frequencies fall as 1 / rank. A text is a direction that all
have in common, that of its pattern and one of its own, in the lengths 0.4, 0.7 and 0.6: texts of one pattern have a cosine of
about 0.65, others of about 0.16. The time is the processor's, on one thread, at published size.

Usage: python benchmarks/queue_rules.py [--arrivals N] [--size N] [--seeds N]
"""

import argparse
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.figures.tables import markdown_table
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.training.diverse_queue import RULES, DiverseQueue

PATTERNS = 30
NORMAL = 0
NORMAL_SHARE = 0.7
LENGTHS = (0.4, 0.7, 0.6)  # of what all texts share, what a pattern shares, and what is a text's own
WIDTH = 64
BATCH = 8
EARLY = 400
ARMS = [(rule, "empty") for rule in RULES] + [("released", "noise")]


def drawn_texts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw the stream: (count, E) vectors of length 1, and the pattern of each, 0 for normal."""
    generator = torch.Generator().manual_seed(seed)
    chances = 1 / torch.arange(1, PATTERNS + 1)
    chances = torch.cat([torch.tensor([NORMAL_SHARE]), (1 - NORMAL_SHARE) * chances / chances.sum()])
    patterns = torch.multinomial(chances, count, replacement=True, generator=generator)
    common, centres, own = (
        F.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1) for rows in (1, PATTERNS + 1, count)
    )
    parts = zip(LENGTHS, (common, centres[patterns], own), strict=True)
    return F.normalize(sum(length * part for length, part in parts), dim=1), patterns


def simulate(rule: str, start: str, *, arrivals: int, size: int, seed: int) -> dict[str, float]:
    """Let the stream pass and describe what the queue holds: shares, number of abnormal patterns, mean cosine of two."""
    features, patterns = drawn_texts(arrivals, seed)
    torch.manual_seed(seed)
    queue = DiverseQueue(1, size, WIDTH, rule=rule, start=start)
    for first in range(0, arrivals, BATCH):
        part = slice(first, first + BATCH)
        queue.add(features[part], torch.zeros_like(patterns[part]), patterns[part], patterns[part] == NORMAL)
    kept = queue.arrivals[0][queue.valid[0] & (queue.arrivals[0] >= 0)]
    products = features[kept] @ features[kept].T
    found = queue.report()
    return {
        "normal": found["normal_share"],
        "patterns": found["distinct_texts"] - (found["normal_share"] > 0),
        "cosine": float((products.sum() - products.trace()) / (len(kept) * (len(kept) - 1))),
        "age": found["mean_age"],
        "early": float((kept < EARLY).float().mean()),
    }


def seconds_of_an_addition(rule: str, *, groups: int = 10, size: int = 1000, width: int = 512, repeat: int = 5) -> float:
    """Processor time to add :data:`BATCH` texts to each group of a full queue, the best of some."""
    torch.manual_seed(0)
    queue = DiverseQueue(groups, size, width, rule=rule)

    def add(each: int) -> float:
        features = F.normalize(torch.randn(each * groups, width) + 0.5, dim=1)
        numbers = torch.randint(0, 2**62, (each * groups,))
        start = time.process_time()
        queue.add(features, torch.arange(groups).repeat(each), numbers)
        return time.process_time() - start

    while queue.report()["fill"] < 1:
        add(100)
    return min(add(BATCH) for _ in range(repeat))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrivals", type=int, default=6000, help="texts of the stream; default 6000")
    parser.add_argument("--size", type=int, default=200, help="places of the queue; default 200")
    parser.add_argument("--seeds", type=int, default=5, help="streams to take the mean of; default 5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for rule, start in ARMS:
        runs = [
            simulate(rule, start, arrivals=options.arrivals, size=options.size, seed=seed) for seed in range(options.seeds)
        ]
        mean = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
        rows.append(
            [
                f"`{rule}`" + (", start with noise" if start == "noise" else ""),
                f"{mean['normal']:.0%}",
                f"{mean['patterns']:.1f}",
                f"{mean['cosine']:.3f}",
                f"{mean['age']:,.0f}",
                f"{mean['early']:.0%}",
                f"{seconds_of_an_addition(rule):.2f} s",
            ]
        )
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores; commit {code_version()['commit']}\n")
    heads = [
        "rule",
        "normal",
        f"patterns of {PATTERNS}",
        "mean cosine",
        "mean age",
        f"first {EARLY}",
        "an addition",
    ]
    print("\n".join(markdown_table(heads, rows)))


if __name__ == "__main__":
    main()
