"""Corpus scores of generated reports as the field computes them: BLEU 1-4, METEOR, ROUGE-L, CIDEr (pycocoevalcap).

Texts come in already cleaned and tokenised by the text protocol, words separated by single spaces. PTBTokenizer is never
called: the literature on report generation scores its own cleaned tokens, and a carriage return in a text shifts all later
lines of PTBTokenizer by one without a word.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.errors import ToolError
from d2rnet.evaluation.meteor import Meteor, find_meteor, meteor_of_statistics
from d2rnet.evaluation.metric_names import METRICS
from d2rnet.evaluation.settings import MeteorRuntime, WordScoreSettings

log = logging.getLogger(__name__)

MAX_ORDER = 4
Scores = dict[str, float | None]


@dataclass(frozen=True)
class PairScores:
    """Scores of N pairs and what is needed to resample them.

    Attributes:
        corpus: each metric of words -> value of the corpus; BLEU, METEOR and ROUGE-L in [0, 1], CIDEr in [0, 10]; None where
            it was not computed (see :attr:`Scorer.notes`).
        pairs: metric -> (N,) scores of the pairs, without the metrics that were not computed.
        bleu_statistics: (N, 10) matched n-grams of order 1 to 4, n-grams of the hypothesis, words of hypothesis and reference.
        meteor_statistics: (N, 23), None without METEOR.
    """

    corpus: Scores
    pairs: dict[str, NDArray[np.float64]]
    bleu_statistics: NDArray[np.float64]
    meteor_statistics: NDArray[np.float64] | None

    def resampled(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Score resamples of the pairs.

        BLEU and METEOR come from resampled statistics, as the corpus scores do; all others are means of the pairs. CIDEr
        keeps the word weights of the whole corpus: resampling those too would ask for a new CIDEr of each resample.

        Args:
            counts: (N, S) how often each pair is in each of S resamples.

        Returns:
            Metric -> (S,) scores, for the metrics of ``pairs``.
        """
        weights = np.asarray(counts, dtype=np.float64)
        drawn = dict(bleu_of_statistics(weights.T @ self.bleu_statistics))
        if self.meteor_statistics is not None:
            drawn["meteor"] = meteor_of_statistics(weights.T @ self.meteor_statistics)
        means = {key: values @ weights / weights.sum(axis=0) for key, values in self.pairs.items() if key not in drawn}
        return drawn | means


def bleu_of_statistics(statistics: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Compute BLEU 1 to 4 from summed statistics, with the two small numbers by which pycocoevalcap avoids division by 0.

    Args:
        statistics: (S, 10), see PairScores.

    Returns:
        ``bleu_1`` to ``bleu_4`` -> (S,).
    """
    matched = statistics[:, :MAX_ORDER]  # (S, 4)
    counted = statistics[:, MAX_ORDER : 2 * MAX_ORDER]  # (S, 4)
    precisions = (matched + 1e-15) / (counted + 1e-9)  # (S, 4)
    ratio = (statistics[:, -2] + 1e-15) / (statistics[:, -1] + 1e-9)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    means = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    return {f"bleu_{order}": means[:, order - 1] * penalty for order in range(1, MAX_ORDER + 1)}


@dataclass
class Scorer:
    """Scores lists of pairs; ``notes`` says why a metric has no value.

    Attributes:
        meteor: a started METEOR process, None to leave METEOR out.
        notes: metric -> reason, for metrics that were not computed.
    """

    meteor: Meteor | None
    notes: dict[str, str] = field(default_factory=dict)

    def score(self, references: Sequence[str], hypotheses: Sequence[str], *, what: str) -> PairScores:
        """Score one reference per hypothesis.

        Args:
            references: N texts, none empty.
            hypotheses: N texts in the same order; an empty one scores 0.
            what: name for log and progress lines.
        """
        log.info("%s: %d pairs", what, len(references))
        with ThreadPoolExecutor(1) as beside:  # Java works on METEOR while this process does the rest
            waiting = None
            if self.meteor:
                waiting = beside.submit(self.meteor.score, references, hypotheses, what=f"METEOR, {what}")
            corpus, pairs, bleu_statistics = _score_in_python(references, hypotheses)
            for metric in METRICS.values():
                if metric.of_pairs:
                    pairs[metric.key] = metric.of_pairs(references, hypotheses)
                    corpus[metric.key] = float(np.mean(pairs[metric.key]))
            meteor_statistics = None
            if waiting:
                corpus["meteor"], values, meteor_statistics = waiting.result()
                pairs["meteor"] = np.array(values)
        if corpus["cider"] is None:
            self.notes["cider"] = "undefined: word weights need at least 2 pairs"
        return PairScores(corpus, pairs, bleu_statistics, meteor_statistics)


def _score_in_python(
    references: Sequence[str], hypotheses: Sequence[str]
) -> tuple[Scores, dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Return corpus scores, scores of the pairs and BLEU statistics of what pycocoevalcap computes without Java."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {index: [text] for index, text in enumerate(map(single_spaced, references))}
    candidates = {index: [text] for index, text in enumerate(map(single_spaced, hypotheses))}
    counter = BleuScorer(n=MAX_ORDER)
    for index in truth:
        counter += (candidates[index][0], truth[index])
    bleu, bleu_of_pairs = counter.compute_score(option="closest", verbose=0)
    corpus: Scores = {f"bleu_{order}": float(value) for order, value in enumerate(bleu, start=1)}
    pairs = {f"bleu_{order}": np.array(values) for order, values in enumerate(bleu_of_pairs, start=1)}
    rouge, pairs["rouge_l"] = Rouge().compute_score(truth, candidates)
    corpus |= {"meteor": None, "rouge_l": float(rouge), "cider": None}
    if len(truth) > 1:
        cider, pairs["cider"] = Cider().compute_score(truth, candidates)
        corpus["cider"] = float(cider)
    statistics = [[*pair["correct"], *pair["guess"], pair["testlen"], *pair["reflen"]] for pair in counter.ctest]
    return corpus, pairs, np.array(statistics, dtype=np.float64)


def single_spaced(text: str) -> str:
    """Return text with every run of white space, line breaks included, as one space (ROUGE splits on single spaces)."""
    return " ".join(text.split())


@contextmanager
def open_scorer(
    settings: WordScoreSettings, runtime: MeteorRuntime, notes: Mapping[str, str] | None = None
) -> Iterator[Scorer]:
    """Yield a scorer, with METEOR running where it can.

    Args:
        settings: whether METEOR is wanted.
        runtime: patience with METEOR.
        notes: what is noted before; see :attr:`Scorer.notes`.

    Raises:
        ToolError: METEOR is insisted on, and Java or the jar is missing.
    """
    meteor, reason = open_meteor(settings.meteor, timeout_seconds=runtime.meteor_timeout_seconds, place=settings.place)
    with meteor or nullcontext() as running:
        yield Scorer(running, {**(notes or {}), **({"meteor": reason} if reason else {})})


def open_meteor(wanted: str | bool, *, timeout_seconds: float, place: str = "evaluation") -> tuple[Meteor | None, str]:
    """Decide whether METEOR runs, before anything is scored.

    Args:
        wanted: ``"auto"`` runs it where Java is found, True insists, False leaves it out.
        timeout_seconds: longest wait for one answer of the process.
        place: section of the setting, for the reason.

    Returns:
        A METEOR process to be entered as a context manager, or None with the reason why it is not run.

    Raises:
        ToolError: ``wanted`` is True and Java or the jar is missing.
    """
    if wanted is False:
        return None, f"not run: {place}.meteor is false"
    try:
        tools = find_meteor()
    except ToolError as error:
        if wanted is True:
            raise
        log.warning("METEOR is not run: %s", error)
        return None, f"not run: {error}"
    log.info("METEOR: %s, %s", tools.java, tools.java_version)
    return Meteor(tools, timeout_seconds=timeout_seconds), ""
