"""Signs that a model writes the same thing whatever it sees: identical, normal, short and repetitive reports.

Scores hide these: a model that answers every image with one normal report scores well on a cohort of mostly normal images.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from d2rnet.evaluation.clinical import LESIONS
from d2rnet.evaluation.labeller import Labeller
from d2rnet.report.text.protocols import SENTENCE_END, split_sentences

REPEATED_ORDER = 4  # words of the n-grams whose repetition is counted


def text_statistics(references: Sequence[str], hypotheses: Sequence[str], labeller: Labeller = LESIONS) -> dict[str, Any]:
    """Count what scores hide.

    Args:
        references: N single-spaced texts.
        hypotheses: N single-spaced texts.
        labeller: what a report may name.

    Returns:
        ``unique_report_rate`` and ``unique_reference_rate`` (different texts / N), ``empty_hypotheses`` (count),
        ``mean_tokens`` of both, words per report, and ``degeneracy`` of both, see :func:`degeneracy`.
    """
    return {
        "unique_report_rate": len(set(hypotheses)) / len(hypotheses),
        "unique_reference_rate": len(set(references)) / len(references),
        "empty_hypotheses": sum(not text for text in hypotheses),
        "mean_tokens": {
            "hypothesis": fmean(len(text.split()) for text in hypotheses),
            "reference": fmean(len(text.split()) for text in references),
        },
        "degeneracy": {"hypothesis": degeneracy(hypotheses, labeller), "reference": degeneracy(references, labeller)},
    }


def degeneracy(texts: Sequence[str], labeller: Labeller = LESIONS) -> dict[str, float]:
    """Describe how far reports are alike, normal and repetitive.

    Args:
        texts: N single-spaced reports whose sentences end with the token ".".
        labeller: what a report may name.

    Returns:
        ``most_frequent_share`` (of the commonest text), ``normal_report_rate`` (share that names no finding, present or
        uncertain; empty reports count as normal), ``repeated_sentence_rate`` (share of reports that say a sentence twice),
        ``repeated_4gram_share`` (mean over reports of the share of four-word sequences that were there before) and
        ``distinct_words`` (different words in all reports).
    """
    return {
        "most_frequent_share": Counter(texts).most_common(1)[0][1] / len(texts),
        "normal_report_rate": fmean(not labeller.read(text, uncertain_counts=True) for text in texts),
        "repeated_sentence_rate": fmean(_repeats_a_sentence(text.split()) for text in texts),
        "repeated_4gram_share": fmean(_repeated_share(text.split()) for text in texts),
        "distinct_words": len({word for text in texts for word in text.split()} - {SENTENCE_END}),
    }


def _repeats_a_sentence(tokens: list[str]) -> bool:
    sentences = [tuple(sentence) for sentence in split_sentences(tokens) if sentence != [SENTENCE_END]]
    return len(set(sentences)) < len(sentences)


def _repeated_share(tokens: list[str]) -> float:
    grams = [tuple(tokens[start : start + REPEATED_ORDER]) for start in range(len(tokens) - REPEATED_ORDER + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
