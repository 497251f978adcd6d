"""Where the findings that a report mentions stand in its text as shown.

Mentions are found in normalised sentences, in which hyphens, brackets and spellings have changed. Each normalised word comes
from one run of non-blank characters of the text, in the same order; a word that stands for a question mark comes from none.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from d2rnet.ct.structures.sentences import split_sentences
from d2rnet.findings.ct_mentions import ASIDE, OTHER, sentence_findings
from d2rnet.findings.mention_context import State
from d2rnet.findings.mention_text import normalise_sentence, split_text
from d2rnet.findings.mentions import Mention, find_mentions

_TOKEN = re.compile(r"\S+")
_PUNCTUATION = (",", ";")
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|\s*$)", flags=re.DOTALL)
Word = tuple[int, int, int, int]  # start and end in a normalised sentence, start and end in the text


@dataclass(frozen=True)
class Located:
    """A mention with its place in the text as shown: characters [start, end)."""

    mention: Mention
    start: int
    end: int


@lru_cache(maxsize=64)  # a page asks for the mentions of a text several times
def locate_mentions(text: str) -> tuple[Located, ...]:
    """Find the lesions that the text of a radiograph mentions."""
    mentions = find_mentions(text)
    tokens = list(_token_words(text))
    located: list[Located] = []
    place = 0
    for number, sentence in enumerate(split_text(text)):
        words: list[Word] = []
        for word in _TOKEN.finditer(normalise_sentence(sentence)):
            if word[0] not in _PUNCTUATION and place < len(tokens) and tokens[place][0] == word[0]:
                words.append((word.start(), word.end(), *tokens[place][1:]))
                place += 1
        located += [_placed(mention, words) for mention in mentions if mention.sentence == number]
    return tuple(located)


@lru_cache(maxsize=64)
def locate_ct_mentions(text: str) -> tuple[Located, ...]:
    """Find the abnormalities that the text of a CT mentions.

    Those in clauses that are left out of the search, and those that were not judged, are none.
    """
    located: list[Located] = []
    offset = 0
    for number, sentence in enumerate(split_sentences(text)):
        findings = sentence_findings(sentence.strip())
        searched = ASIDE.sub(lambda aside: " " * len(aside[0]), sentence)
        tokens = [(word, start + offset, end + offset) for word, start, end in _token_words(searched)]
        words: list[Word] = []
        place = 0
        for word in _TOKEN.finditer(findings.text):
            found = next((later for later in range(place, len(tokens)) if tokens[later][0] == word[0]), None)
            if found is not None:
                words.append((word.start(), word.end(), *tokens[found][1:]))
                place = found + 1
        for one in findings.mentions:
            mention = Mention(one.category, one.state, "", number, one.start, one.end)
            if one.category != OTHER and one.state is not State.NOT_JUDGED:
                located.append(_placed(mention, words))
        offset += len(sentence)
    return tuple(located)


def _placed(mention: Mention, words: Sequence[Word]) -> Located:
    covered = [word for word in words if word[0] < mention.end and mention.start < word[1]]
    return Located(mention, covered[0][2], covered[-1][3])


def _token_words(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each normalised word with start and end of the token that it comes from, punctuation around it left out."""
    for token in _TOKEN.finditer(text):
        core = re.search(r"\w(?:.*\w)?", token[0])
        for word in normalise_sentence(token[0]).split():
            if word not in _PUNCTUATION and core:
                yield word, token.start() + core.start(), token.start() + core.end()


def split_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence, for cleaned text ("... ." tokens) and for running text."""
    return [(found.start(), found.start() + len(found[0].rstrip())) for found in _SENTENCE.finditer(text)]
