"""A system is something that answers every study with a report: scored, resampled and compared with another one here.

Comparison and intervals serve any :class:`System`; :class:`ScoredSystem` is that of radiographs, with lesion F1.

Shapes: N reports, S resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2rnet.evaluation.caption_scores import PairScores, Scorer, Scores
from d2rnet.evaluation.clinical import judge_lesions
from d2rnet.evaluation.label_scores import draw_labels
from d2rnet.evaluation.labeller import Judged
from d2rnet.evaluation.metric_names import CHEXBERT_METRICS, METRICS, Metric
from d2rnet.evaluation.resampling import percentile_interval, resample_counts


class System(Protocol):
    """Scores of the N reports of one system, whatever it looks at."""

    @property
    def captions(self) -> PairScores:
        """BLEU, METEOR, ROUGE-L, CIDEr."""

    def scores(self) -> Scores:
        """Return metric -> value of the corpus, None where there is none; in the order of the metrics' table."""

    def resampled(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return metric -> (S,) scores of resamples, (N, S) how often each report is drawn; without metrics of no value."""


class ScoreReports(Protocol):
    """Scores the reports of one system."""

    def __call__(self, scorer: Scorer, references: Sequence[str], hypotheses: Sequence[str], *, what: str) -> System:
        """Score N hypotheses against as many references; ``what`` is their name for the log."""


@dataclass(frozen=True)
class Scoring:
    """How the reports of one modality are scored.

    Attributes:
        modality: ``cxr`` or ``ct``.
        score: texts to scores.
        metrics: the table of what it computes.
    """

    modality: str
    score: ScoreReports
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class ScoredSystem:
    """Scores of the N radiograph reports of one system.

    Attributes:
        captions: BLEU, METEOR, ROUGE-L, CIDEr.
        labels: protocol -> what references and reports name: the 22 lesions, and the labels of CheXbert where it runs.
    """

    captions: PairScores
    labels: Mapping[str, Judged]

    @cached_property
    def _corpus(self) -> Scores:
        found = {key: float(values[0]) for key, values in draw_labels(self.labels, np.ones((self._count, 1))).items()}
        means = {key: value if np.isfinite(value) else None for key, value in found.items()}
        known = {**self.captions.corpus, **means}
        return {key: known[key] for key in (*METRICS, *CHEXBERT_METRICS) if key in known}

    @property
    def _count(self) -> int:
        return len(next(iter(self.labels.values())).truth)

    def scores(self) -> Scores:
        """Each of METRICS, and of CHEXBERT_METRICS where it runs -> value of the corpus, None where there is none."""
        return dict(self._corpus)

    def resampled(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Score resamples.

        Args:
            counts: (N, S) how often each report is in each resample.

        Returns:
            Metric -> (S,) scores, without the metrics that have no value.
        """
        drawn = self.captions.resampled(counts) | draw_labels(self.labels, counts)
        return {metric: drawn[metric] for metric, value in self.scores().items() if value is not None}


def score_system(
    scorer: Scorer,
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    what: str,
    outside: Mapping[str, Judged] | None = None,
) -> ScoredSystem:
    """Score the radiograph reports of one system.

    Args:
        scorer: with METEOR running, or without.
        references: N texts, none empty.
        hypotheses: N texts in the same order.
        what: name for log and progress lines.
        outside: labels by other labellers of the same texts.
    """
    labels = {**judge_lesions(references, hypotheses), **(outside or {})}
    return ScoredSystem(scorer.score(references, hypotheses, what=what), labels)


RADIOGRAPHS = Scoring("cxr", score_system, METRICS)


def study_counts(study_ids: Sequence[str], *, samples: int, seed: int) -> NDArray[np.float32]:
    """Draw studies with replacement; all reports of a study are drawn together, as they share their reference.

    Returns:
        (N, S) how often each report is in each resample.
    """
    studies, places = np.unique(np.asarray(study_ids), return_inverse=True)
    return resample_counts(len(studies), samples=samples, seed=seed)[places]


def intervals(drawn: Mapping[str, NDArray[np.float64]]) -> dict[str, list[float] | None]:
    """Metric -> ends of the 95 % percentile interval of its resampled scores."""
    return {metric: percentile_interval(values) for metric, values in drawn.items()}


def compare_systems(
    first: System, second: System, *, counts: NDArray[Any]
) -> dict[str, dict[str, float | list[float] | None]]:
    """Compare two systems on the same resamples of the same studies.

    Args:
        first: N reports.
        second: N reports of the same studies in the same order.
        counts: (N, S) of :func:`study_counts`.

    Returns:
        Metric -> ``first``, ``second``, ``difference`` (first minus second), ``interval`` (95 %, percentile) and ``p``: twice
        the share of resamples on the rarer side of zero, never below 2 / (S + 1); for metrics that both have.
    """
    ours = first.scores()
    theirs = second.scores()
    ours_drawn = first.resampled(counts)
    theirs_drawn = second.resampled(counts)
    rows: dict[str, dict[str, float | list[float] | None]] = {}
    for metric in ours:
        if metric not in ours_drawn or metric not in theirs_drawn:
            continue
        differences = ours_drawn[metric] - theirs_drawn[metric]
        rows[metric] = {
            "first": ours[metric],
            "second": theirs[metric],
            "difference": (ours[metric] or 0.0) - (theirs[metric] or 0.0),
            "interval": percentile_interval(differences),
            "p": _share_beyond_zero(differences[np.isfinite(differences)]),
        }
    return rows


def _share_beyond_zero(differences: NDArray[np.float64]) -> float:
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
