"""The table of metrics of chest CT reports: words as for radiographs, BLEU twice, the 18 abnormalities under named protocols.

Keys of labels: ``<labeller>_vs_<truth>_<convention>_<score>``, such as ``ct18_vs_table_uncertain_positive_micro_f1``. The
labeller reads the generated report (``ct18``: our rules, ``radbert18``: CT-RATE's text classifier, which knows no doubt); the
truth is what it reads in the reference (``report``) or the labels of the source's table (``table``).
"""

from collections.abc import Iterator

from d2rnet.ct.evaluation.abnormalities import ABNORMALITIES
from d2rnet.evaluation.label_scores import AVERAGES, LABEL_SCORES
from d2rnet.evaluation.metric_names import METRICS, Group, Metric, Shown

OWN = "ct18"
RADBERT = "radbert18"
TRUTHS = {"report": "the reference report", "table": "the table of labels"}
ORDERS = (1, 2, 3, 4)
HEADLINE = next(iter(ABNORMALITIES.conventions))
SHOWN = (*(f"{average}_f1" for average in AVERAGES), "crg")


def protocol_keys(truth: str) -> dict[str, str]:
    """Return key of each protocol against one truth -> the convention of our labeller that it scores."""
    return {f"{OWN}_vs_{truth}_{convention}": convention for convention in ABNORMALITIES.conventions}


def report_mean(order: int) -> str:
    """Return the key of BLEU as the mean over reports."""
    return f"bleu_{order}_report_mean"


def _word_metrics() -> Iterator[Metric]:
    for metric in METRICS.values():
        if metric.group is Group.WORDS:
            yield metric
    for order in ORDERS:
        corpus = METRICS[f"bleu_{order}"]
        yield Metric(report_mean(order), f"{corpus.name}, mean of reports", Group.WORDS, left_out_of=corpus.left_out_of)


def _label_metrics() -> Iterator[Metric]:
    for truth in TRUTHS:
        for key, convention in protocol_keys(truth).items():
            doubt = "" if convention == HEADLINE else ", doubt as no"
            yield from _of_protocol(key, f"abnormality {{}} against {truth}{doubt}", hidden=convention != HEADLINE)
    for truth in TRUTHS:
        yield from _of_protocol(f"{RADBERT}_vs_{truth}", f"RadBERT {{}} against {truth}", hidden=False)


def _of_protocol(key: str, name: str, *, hidden: bool) -> Iterator[Metric]:
    for score in LABEL_SCORES:
        average, _, rate = score.partition("_")
        words = "CRG" if score == "crg" else f"{'F1' if rate == 'f1' else rate}, {average},"
        left_out = (*Shown,) if hidden or score not in SHOWN else ()
        yield Metric(f"{key}_{score}", name.format(words), Group.ABNORMALITIES, left_out_of=left_out)


CT_METRICS = {metric.key: metric for metric in (*_word_metrics(), *_label_metrics())}
