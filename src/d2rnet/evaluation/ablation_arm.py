"""One row of an ablation's table: an arm, or a baseline, scored on the same studies.

Shapes: N reports, S resamples of the studies, the same ones for every arm.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.systems import System

BASELINE = ""  # the one "seed" of what is not trained


@dataclass
class Arm:
    """One row of the table.

    Attributes:
        label: what the reader sees.
        scores: metric -> seed -> value.
        drawn: metric -> seed -> (S,) value of each resample.
        rates: what else was measured, of each seed; none where there is nothing to measure.
        seconds: training time of each seed.
    """

    label: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    drawn: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    rates: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, system: System, counts: NDArray[Any], shown: Collection[str], *, seed: str = BASELINE) -> None:
        """Take the scores of one seed.

        Args:
            system: its N scored reports.
            counts: (N, S) how often each report is in each resample.
            shown: metrics that the table has.
            seed: its name.
        """
        drawn = system.resampled(counts)
        for metric, value in system.scores().items():
            if value is not None and metric in shown:
                self.add_score(metric, value, drawn[metric], seed=seed)

    def add_score(self, metric: str, value: float, drawn: NDArray[np.float64], *, seed: str) -> None:
        """Take one score of one seed, and its (S,) resamples."""
        self.scores.setdefault(metric, {})[seed] = value
        self.drawn.setdefault(metric, {})[seed] = drawn

    @property
    def seeds(self) -> list[str]:
        """Names of the seeds that have a score; none of a baseline."""
        return [*dict.fromkeys(seed for values in self.scores.values() for seed in values if seed != BASELINE)]

    def mean(self, metric: str, seeds: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
        """Return the mean of a metric over seeds, and the (S,) means of its resamples."""
        value = float(np.mean([self.scores[metric][seed] for seed in seeds]))
        return value, np.mean([self.drawn[metric][seed] for seed in seeds], axis=0)
