"""One row of an ablation's table: an arm, or a baseline, scored on the same studies.

Shapes: N reports, R seeds, S resamples of the studies, the same ones for every arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.evaluation.metric_names import METRICS, Shown
from d2rnet.evaluation.systems import score_system


@dataclass
class Arm:
    """One row of the table.

    Attributes:
        label: what the reader sees.
        scores: metric -> R values, one per seed.
        drawn: metric -> (S,) mean over the seeds of each resample.
        grounding: rates of each seed; none for models that see no boxes.
        seconds: training time of each seed.
    """

    label: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    drawn: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    grounding: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(
        self, scorer: Scorer, references: Sequence[str], hypotheses: Sequence[str], counts: NDArray[Any], *, what: str
    ) -> None:
        """Score the reports of one seed.

        Args:
            scorer: with METEOR running, or without.
            references: N single-spaced texts.
            hypotheses: N single-spaced texts in the same order.
            counts: (N, S) how often each report is in each resample.
            what: name for log and progress lines.
        """
        system = score_system(scorer, references, hypotheses, what=what)
        drawn = system.resampled(counts)
        for metric, value in system.scores().items():
            if value is not None and Shown.ABLATION not in METRICS[metric].left_out_of:
                values = self.scores.setdefault(metric, [])
                values.append(value)
                before = self.drawn.get(metric, np.zeros(counts.shape[1]))
                self.drawn[metric] = before + (drawn[metric] - before) / len(values)
