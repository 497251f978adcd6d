"""Text protocols: what of a report is kept, and how it falls into tokens and sentences.

A cleaned report is one line of tokens separated by single spaces; every sentence ends with the token ``.``. Training,
references and scores all use the same cleaned text, and every score names its protocol.

``r2gen``: the cleaning of R2Gen for MIMIC-CXR (Chen et al., EMNLP 2020), on which the published scores are computed: lower
case, list numbers and punctuation removed. It loses the decimal point ("3.5 cm" becomes "35 cm"), as R2Gen does. Differs from
R2Gen in that sentences that are empty after cleaning vanish, and that a list number must be a word of its own ("T11." stays).

``faithful``: own protocol. Case, decimals and punctuation are kept, list numbers go; punctuation marks are tokens.
"""

import re
from collections.abc import Callable

SENTENCE_END = "."
_LIST_NUMBER = re.compile(r"(?:(?<=^)|(?<=\s))1\. ")
_LATER_LIST_NUMBER = re.compile(r"(?:\.? )[2-5]\. ")
_REMOVED = str.maketrans("", "", ".,?;*!%^&_+():<=>@[]{}\"/\\'")
_FAITHFUL_TOKEN = re.compile(r"(?:[A-Za-z]\.){2,}|\d+(?:[.,]\d+)+|\w+(?:[-'/]\w+)*|[^\w\s]")
_LEADING_NUMBER = re.compile(r"(?:^|(?<=[.:]) )\d{1,2}[.)] (?=[A-Za-z])")
_FULL_STOPS = re.compile(r"\.(?:\s*\.)+")
_BLANK = re.compile(r"_+")


def clean_report(text: str, protocol: str) -> str:
    """Turn a report into tokens separated by single spaces.

    Args:
        text: the section's text as written; may hold line breaks.
        protocol: ``r2gen`` or ``faithful``.

    Returns:
        Cleaned text; "" where nothing is left.
    """
    return PROTOCOLS[protocol](text)


def split_sentences(tokens: list[str]) -> list[list[str]]:
    """Cut tokens after each ``.``; the parts joined again are the input."""
    sentences: list[list[str]] = [[]]
    for token in tokens:
        sentences[-1].append(token)
        if token == SENTENCE_END:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _clean_r2gen(text: str) -> str:
    text = " ".join(re.sub(r"_+", "_", text).split())
    text = re.sub(r"\.{2,}", ".", text)
    text = _LIST_NUMBER.sub("", text)
    text = _LATER_LIST_NUMBER.sub(". ", text)
    sentences = (" ".join(part.translate(_REMOVED).split()) for part in text.lower().split(". "))
    return " ".join(f"{sentence} {SENTENCE_END}" for sentence in sentences if sentence)


def _clean_faithful(text: str) -> str:
    text = _LEADING_NUMBER.sub(" ", " ".join(_BLANK.sub(" ___ ", text).split()))
    tokens = _FAITHFUL_TOKEN.findall(_FULL_STOPS.sub(".", text))
    if not any(character.isalnum() for token in tokens for character in token):
        return ""
    return " ".join(tokens if tokens[-1] == SENTENCE_END else [*tokens, SENTENCE_END])


PROTOCOLS: dict[str, Callable[[str], str]] = {"r2gen": _clean_r2gen, "faithful": _clean_faithful}


def has_words(text: str) -> bool:
    """Say whether a report holds a letter or a digit, and something whatever the protocol: "-", "___" or "1. ___" do not."""
    return any(map(str.isalnum, text)) and all(clean(text) for clean in PROTOCOLS.values())
