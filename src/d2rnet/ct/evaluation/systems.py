"""Scores of chest CT reports: words and labels of one system, of the corpus and of resamples.

Every number is a weighted one: a report weighs 1 at volume level, and one over the volumes of its scan at scan level, times
how often its patient is drawn. CIDEr keeps the word weights of all reports that were scored.

Shapes: N reports, C = 18 abnormalities, S resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.evaluation.abnormalities import ABNORMALITIES, Truth, truth_of_reports
from d2rnet.ct.evaluation.metric_table import CT_METRICS, ORDERS, protocol_keys, report_mean
from d2rnet.evaluation.caption_scores import PairScores, Scorer, Scores
from d2rnet.evaluation.label_scores import draw_labels
from d2rnet.evaluation.labeller import Judged
from d2rnet.evaluation.systems import Scoring


@dataclass(frozen=True)
class CtSystem:
    """Scores of the N reports of one system.

    Attributes:
        captions: BLEU, METEOR, ROUGE-L, CIDEr.
        labels: key of the protocol -> its labels.
        weights: (N,) what each report counts.
    """

    captions: PairScores
    labels: Mapping[str, Judged]
    weights: NDArray[np.float64]

    @cached_property
    def _corpus(self) -> Scores:
        drawn = self._drawn(np.ones((len(self.weights), 1)))
        found = {key: float(values[0]) for key, values in drawn.items()}
        return {key: found[key] if np.isfinite(found.get(key, np.nan)) else None for key in self._keys()}

    def _keys(self) -> list[str]:
        judged = tuple(f"{protocol}_" for protocol in self.labels)
        return [key for key in CT_METRICS if "_vs_" not in key or key.startswith(judged)]

    def scores(self) -> Scores:
        """Return each metric of CT_METRICS whose protocol was judged -> value of the corpus, None where there is none."""
        return dict(self._corpus)

    def resampled(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Score resamples.

        Args:
            counts: (N, S) how often each report is in each resample.

        Returns:
            Metric -> (S,) scores, without the metrics that have no value; NaN where a resample has none.
        """
        drawn = self._drawn(counts)
        return {key: drawn[key] for key, value in self.scores().items() if value is not None}

    def _drawn(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        weights = np.asarray(counts, dtype=np.float64) * self.weights[:, None]  # (N, S)
        drawn = self.captions.resampled(weights)
        for order in ORDERS:
            drawn[report_mean(order)] = self.captions.pairs[f"bleu_{order}"] @ weights / weights.sum(axis=0)
        return drawn | draw_labels(self.labels, weights)


def judge(truths: Mapping[str, Truth], hypotheses: Sequence[str]) -> dict[str, Judged]:
    """Read N generated reports and set them beside each truth, under each convention.

    Args:
        truths: ``report`` and, where it says anything, ``table``.
        hypotheses: N texts.
    """
    claimed = ABNORMALITIES.matrices(hypotheses)
    return {
        key: Judged(truth.labels[convention], claimed[convention], truth.known)
        for name, truth in truths.items()
        for key, convention in protocol_keys(name).items()
    }


def score_ct_reports(scorer: Scorer, references: Sequence[str], hypotheses: Sequence[str], *, what: str) -> CtSystem:
    """Score the reports of one system against their references alone, each report as one.

    Args:
        scorer: with METEOR running, or without.
        references: N texts, none empty.
        hypotheses: N texts in the same order.
        what: name for log and progress lines.
    """
    labels = judge({"report": truth_of_reports(references)}, hypotheses)
    return CtSystem(scorer.score(references, hypotheses, what=what), labels, np.ones(len(references)))


CHEST_CT = Scoring("ct", score_ct_reports, CT_METRICS)
