"""The table of metrics of generated reports; whatever computes or shows one reads it here.

A new metric is its module, its test, a line here and a line of docs/reference/metrics.md (docs/how-to/add-a-metric.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

# baselines, by their keys in metrics.json
COMMONEST = "most_frequent_report"
NEAREST = "nearest_training_report"
NO_BOX = "no_box_model"
OfPairs = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]


class Group(StrEnum):
    """What a metric compares."""

    WORDS = "words"
    LESIONS = "lesions"
    ABNORMALITIES = "abnormalities"  # of chest CT
    STRUCTURES = "structures"  # of chest CT, found again by stage 1


class Shown(StrEnum):
    """Tables that do not hold every metric."""

    SUMMARY = "summary"
    GALLERY = "gallery"
    ABLATION = "ablation"


@dataclass(frozen=True)
class Metric:
    """One number of a system that answers every study with a report.

    Attributes:
        key: in metrics.json and other files.
        name: for people.
        group: what it compares.
        digits: after the decimal point.
        lower_is_better: of most metrics more is better.
        left_out_of: tables that do not show it.
        of_pairs: N references and N hypotheses, single-spaced -> (N,) scores, whose mean is the score of the corpus; None:
            caption_scores.py or clinical.py computes it.
    """

    key: str
    name: str
    group: Group
    digits: int = 3
    lower_is_better: bool = False
    left_out_of: tuple[Shown, ...] = ()
    of_pairs: OfPairs | None = None

    @property
    def heading(self) -> str:
        """The name, which says so where less is better."""
        return f"{self.name} (less is better)" if self.lower_is_better else self.name

    def text(self, value: float | None, *, more_digits: int = 0, sign: str = "") -> str:
        """Format a value; "-" where there is none."""
        return "-" if value is None else f"{value:{sign}.{self.digits + more_digits}f}"


METRICS = {
    metric.key: metric
    for metric in (
        Metric("bleu_1", "BLEU-1", Group.WORDS, left_out_of=(Shown.ABLATION,)),
        Metric("bleu_2", "BLEU-2", Group.WORDS, left_out_of=(Shown.SUMMARY, Shown.ABLATION)),
        Metric("bleu_3", "BLEU-3", Group.WORDS, left_out_of=(Shown.SUMMARY, Shown.ABLATION)),
        Metric("bleu_4", "BLEU-4", Group.WORDS),
        Metric("meteor", "METEOR", Group.WORDS),
        Metric("rouge_l", "ROUGE-L", Group.WORDS),
        Metric("cider", "CIDEr", Group.WORDS),
        Metric("lesion22_uncertain_positive_micro_f1", "lesion F1, micro", Group.LESIONS),
        Metric("lesion22_uncertain_positive_macro_f1", "lesion F1, macro", Group.LESIONS, left_out_of=(Shown.ABLATION,)),
        Metric("lesion22_uncertain_negative_micro_f1", "lesion F1, micro, doubt as no", Group.LESIONS, left_out_of=(*Shown,)),
        Metric("lesion22_uncertain_negative_macro_f1", "lesion F1, macro, doubt as no", Group.LESIONS, left_out_of=(*Shown,)),
    )
}


def keys_of(group: Group) -> tuple[str, ...]:
    """Return the keys of a group, in the order of the table."""
    return tuple(key for key, metric in METRICS.items() if metric.group is group)


def shown_in(table: Shown) -> tuple[Metric, ...]:
    """Return the metrics that a table shows, in their order."""
    return tuple(metric for metric in METRICS.values() if table not in metric.left_out_of)
