"""Which lesion mentions of a generated report agree with its reference, and where they stand in the text as shown.

A class gets one verdict per pair of reports, by the conventions of the scores (docs/reference/metrics.md): doubted lesions
count as named, sides conflict where both reports name sides and share none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from d2rnet.evaluation.clinical import named_sides
from d2rnet.findings.mention_context import State
from d2rnet.findings.mention_text import normalise_sentence, split_text
from d2rnet.findings.mentions import Mention, find_mentions, report_findings

_TOKEN = re.compile(r"\S+")
_PUNCTUATION = (",", ";")
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|\s*$)", flags=re.DOTALL)


class Verdict(StrEnum):
    """How a generated report stands to its reference on one class."""

    MATCH = "match"
    MISSED = "missed"
    INVENTED = "invented"
    WRONG_SIDE = "wrong_side"


ERRORS = (Verdict.MISSED, Verdict.INVENTED, Verdict.WRONG_SIDE)


@dataclass(frozen=True)
class Located:
    """A mention with its place in the text as shown: characters [start, end)."""

    mention: Mention
    start: int
    end: int


def class_verdicts(reference: str, hypothesis: str) -> dict[str, Verdict]:
    """Return a verdict for each class that either report names, and for classes that both deny.

    Args:
        reference: text of the reference report.
        hypothesis: text of the generated report.
    """
    theirs = report_findings(reference)
    ours = report_findings(hypothesis)
    their_sides = named_sides(reference)
    our_sides = named_sides(hypothesis)
    verdicts = {}
    for name in dict.fromkeys((*theirs, *ours)):
        there, claimed = (states.get(name, State.ABSENT) is not State.ABSENT for states in (theirs, ours))
        if there and claimed:
            sides = their_sides.get(name), our_sides.get(name)
            conflict = bool(sides[0] and sides[1] and not sides[0] & sides[1])
            verdicts[name] = Verdict.WRONG_SIDE if conflict else Verdict.MATCH
        elif there or claimed:
            verdicts[name] = Verdict.MISSED if there else Verdict.INVENTED
        elif name in theirs and name in ours:
            verdicts[name] = Verdict.MATCH
    return verdicts


def locate_mentions(text: str) -> list[Located]:
    """Find the mentions of a text and where they stand in it.

    ``find_mentions`` counts characters of normalised sentences, in which hyphens, brackets and spellings have changed. Each
    normalised word comes from one run of non-blank characters of the text, in the same order; a word that stands for a
    question mark comes from none.
    """
    mentions = find_mentions(text)
    tokens = list(_token_words(text))
    located = []
    place = 0
    for number, sentence in enumerate(split_text(text)):
        words = []  # start and end in the normalised sentence, start and end in the text
        for word in _TOKEN.finditer(normalise_sentence(sentence)):
            if word[0] not in _PUNCTUATION and place < len(tokens) and tokens[place][0] == word[0]:
                words.append((word.start(), word.end(), *tokens[place][1:]))
                place += 1
        for mention in mentions:
            if mention.sentence == number:
                covered = [word for word in words if word[0] < mention.end and mention.start < word[1]]
                located.append(Located(mention, covered[0][2], covered[-1][3]))
    return located


def _token_words(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each normalised word with start and end of the token that it comes from, punctuation around it left out."""
    for token in _TOKEN.finditer(text):
        core = re.search(r"\w(?:.*\w)?", token[0])
        for word in normalise_sentence(token[0]).split():
            if word not in _PUNCTUATION and core:
                yield word, token.start() + core.start(), token.start() + core.end()


def mark_of(mention: Mention, verdicts: dict[str, Verdict], states: dict[str, State]) -> Verdict | None:
    """Return the verdict that a mention shows, None where it says nothing about it.

    Args:
        mention: of one of the two reports.
        verdicts: of :func:`class_verdicts`.
        states: ``report_findings`` of the mention's own report; a denial in a report that names the class elsewhere shows
            nothing.
    """
    if mention.state is State.ABSENT and states[mention.category] is not State.ABSENT:
        return None
    return verdicts.get(mention.category)


def split_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence, for cleaned text ("... ." tokens) and for running text."""
    return [(found.start(), found.start() + len(found[0].rstrip())) for found in _SENTENCE.finditer(text)]
