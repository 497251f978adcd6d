"""The table of metrics of generated reports; whatever computes or shows one reads it here.

A new metric is its module, its test, a line here and a line of docs/reference/metrics.md (docs/how-to/add-a-metric.md).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

# baselines, by their keys in metrics.json
COMMONEST = "most_frequent_report"
NEAREST = "nearest_training_report"
LESION_SET = "lesion_set_report"
NO_BOX = "no_box_model"
OfPairs = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]


class Group(StrEnum):
    """What a metric compares."""

    WORDS = "words"
    LESIONS = "lesions"
    CHEXBERT = "chexbert"  # labels of weights that the user has
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


def _quietly(key: str, name: str, rates: Iterable[tuple[str, str]], group: Group) -> Iterator[Metric]:
    """Yield metrics of labels that stand in metrics.json and in comparisons alone: (average, rate) of one protocol."""
    for average, rate in rates:
        words = f"{name} {'F1' if rate == 'f1' else rate}, {average}"
        words += ", doubt as no" if key.endswith("_uncertain_negative") else ""
        yield Metric(f"{key}_{average}_{rate}", words, group, left_out_of=(*Shown,))


_AVERAGES = ("micro", "macro", "example")
_ALL = tuple((average, rate) for average in _AVERAGES for rate in ("precision", "recall", "f1"))
CHEXBERT_SHOWN = tuple(f"chexbert{labels}_uncertain_negative_{average}_f1" for labels in (14, 5) for average in _AVERAGES)
_MORE = tuple(found for found in _ALL if found not in (("micro", "f1"), ("macro", "f1")))

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
        Metric("lesion_side_micro_f1", "lesion and side F1, micro", Group.LESIONS, left_out_of=(Shown.GALLERY,)),
        Metric("lesion22_uncertain_negative_micro_f1", "lesion F1, micro, doubt as no", Group.LESIONS, left_out_of=(*Shown,)),
        Metric("lesion22_uncertain_negative_macro_f1", "lesion F1, macro, doubt as no", Group.LESIONS, left_out_of=(*Shown,)),
        *_quietly("lesion22_uncertain_positive", "lesion", _MORE, Group.LESIONS),
        *_quietly("lesion22_uncertain_negative", "lesion", _MORE, Group.LESIONS),
    )
}
# Those of CheXbert, where its weights are given. The F1 of labels that are there without doubt stand in the summary.
CHEXBERT_METRICS = {
    metric.key: replace(metric, left_out_of=(Shown.GALLERY, Shown.ABLATION)) if metric.key in CHEXBERT_SHOWN else metric
    for labels in (14, 5)
    for convention in ("uncertain_positive", "uncertain_negative")
    for metric in _quietly(f"chexbert{labels}_{convention}", f"CheXbert-{labels}", _ALL, Group.CHEXBERT)
}


def keys_of(group: Group) -> tuple[str, ...]:
    """Return the keys of a group, in the order of the table."""
    return tuple(key for key, metric in METRICS.items() if metric.group is group)


def shown_in(table: Shown) -> tuple[Metric, ...]:
    """Return the metrics that a table shows, in their order; those of CheXbert have values where its weights are given."""
    return tuple(metric for metric in (*METRICS.values(), *CHEXBERT_METRICS.values()) if table not in metric.left_out_of)
