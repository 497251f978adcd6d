"""Corpus scores of generated reports as the field computes them: BLEU 1-4, METEOR, ROUGE-L, CIDEr (pycocoevalcap).

Texts come in already cleaned and tokenised by the text protocol, words separated by single spaces. PTBTokenizer is never
called: the literature on report generation scores its own cleaned tokens, and a carriage return in a text shifts all later
lines of PTBTokenizer by one without a word.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from d2rnet.errors import ToolError
from d2rnet.evaluation.meteor import Meteor, find_meteor

log = logging.getLogger(__name__)

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
Scores = dict[str, float | None]


@dataclass
class Scorer:
    """Scores lists of pairs; ``notes`` says why a metric has no value.

    Attributes:
        meteor: a started METEOR process, None to leave METEOR out.
        notes: metric -> reason, for metrics that were not computed.
    """

    meteor: Meteor | None
    notes: dict[str, str] = field(default_factory=dict)

    def score(self, references: Sequence[str], hypotheses: Sequence[str], *, what: str) -> Scores:
        """Score one reference a hypothesis.

        Args:
            references: N texts, none empty.
            hypotheses: N texts in the same order; an empty one scores 0.
            what: name for log and progress lines.

        Returns:
            Each of METRICS -> value of the corpus; BLEU, METEOR and ROUGE-L in [0, 1], CIDEr in [0, 10]; None where it was not
            computed (see ``notes``).
        """
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        truth = {index: [text] for index, text in enumerate(map(single_spaced, references))}
        candidates = {index: [text] for index, text in enumerate(map(single_spaced, hypotheses))}
        log.info("%s: %d pairs", what, len(truth))
        bleu, _ = Bleu(4).compute_score(truth, candidates, verbose=0)
        scores: Scores = {f"bleu_{order}": float(value) for order, value in enumerate(bleu, start=1)}
        scores["meteor"] = self.meteor.score(references, hypotheses, what=f"METEOR, {what}")[0] if self.meteor else None
        scores["rouge_l"] = float(Rouge().compute_score(truth, candidates)[0])
        if len(truth) < 2:
            scores["cider"] = None
            self.notes["cider"] = "undefined: word weights need at least 2 pairs"
        else:
            scores["cider"] = float(Cider().compute_score(truth, candidates)[0])
        return scores


def single_spaced(text: str) -> str:
    """Return text with every run of white space, line breaks included, as one space (ROUGE splits on single spaces)."""
    return " ".join(text.split())


def open_meteor(wanted: str | bool, *, timeout_seconds: float) -> tuple[Meteor | None, str]:
    """Decide whether METEOR runs, before anything is scored.

    Args:
        wanted: ``"auto"`` runs it where Java is found, True insists, False leaves it out.
        timeout_seconds: longest wait for one answer of the process.

    Returns:
        A METEOR process to be entered as a context manager, or None with the reason why it is not run.

    Raises:
        ToolError: ``wanted`` is True and Java or the jar is missing.
    """
    if wanted is False:
        return None, "not run: evaluation.meteor is false"
    try:
        tools = find_meteor()
    except ToolError as error:
        if wanted is True:
            raise
        log.warning("METEOR is not run: %s", error)
        return None, f"not run: {error}"
    log.info("METEOR: %s, %s", tools.java, tools.java_version)
    return Meteor(tools, timeout_seconds=timeout_seconds), ""
