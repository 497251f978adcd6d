"""Report text to normalised sentences, in which mentions.py searches.

Takes raw section text and cleaned text of both text protocols. In cleaned ``r2gen`` text commas are gone; what the scope rules
of mention_context.py read from a comma is then read from verbs and conjunctions alone.
"""

import re
from functools import lru_cache

from d2rnet.findings.mention_lexicon import GLUED, NOT_SLIPS, SPELLINGS

_ABBREVIATION = re.compile(r"\b(?:(vs|approx|dr|st|i\.e|e\.g|cf)\.(?=\s+[a-z0-9])|(no)\.(?=\s+[0-9]))", flags=re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[!;])\s+|(?<=[.?])(?:\s+|(?=[A-Z][a-z]))|\n\s*\n")
_QUESTION = re.compile(r"\?\s*(?=[a-z])")  # before a small letter: "? infiltrate"
_ANSWER = re.compile(r"\s*\?\s+(?=(?:none|no|nil|negative|absent|yes|possible)\b)", flags=re.IGNORECASE)  # "Effusion? None."
_LISTED = re.compile(
    r"(?:\b(?:no|of|for|without|absent|negative|excluded|resolved|seen|present|following))\s*:[^.:]*", flags=re.IGNORECASE
)
# "The following are absent: ..."
_DENIED_LIST = re.compile(
    r"^\W*(?:(?:the|these|all|following|findings?|are|is|were|now)\s+)*"
    r"(?:absent|negative|excluded|resolved|ruled out|not (?:seen|present|identified|found))\s*:"
)
_MINUS = re.compile(r"\(\s*[-\u2212\u2013]\s*\)|(?<=\s)[-\u2212\u2013]ve\b")  # "effusion (-)", "effusion -ve"
_PLUS = re.compile(r"\(\s*\+\s*\)|(?<=\s)\+ve\b")
_CHECK_BOX = re.compile(r"\[\s*x?\s*\]")
_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+)?|[,;]")
_SLIP_LENGTH = 7  # letters; shorter words are one slip away from too many others
_SHORTEST_GLUED = 3  # letters
_BRITISH = (("oedema", "edema"), ("haemo", "hemo"), ("tumour", "tumor"), ("grey", "gray"))


def split_text(text: str) -> list[str]:
    """Cut report text into sentences at full stops, semicolons and empty lines; decimals and "vs." stay whole.

    A question mark before a word ("? infiltrate") becomes "questionable", one before an answer ("Effusion? None.") a colon.
    The items of a list after a colon ("Negative for: effusion; edema.") stay together.
    """
    text = _ANSWER.sub(": ", _LISTED.sub(lambda part: part[0].replace(";", ","), text))
    text = _QUESTION.sub("questionable ", _ABBREVIATION.sub(lambda found: found[1] or "number", text))
    return [part for part in (piece.strip() for piece in _SENTENCE_END.split(text)) if re.search(r"\w", part)]


def normalise_sentence(sentence: str) -> str:
    """Return lower-case words with one space on either side of each, commas as words, slips of spelling mended.

    Colons and dashes between words become commas, brackets semicolons, which no cue reaches across;
    hyphens and slashes inside words become spaces.
    """
    text = sentence.lower().replace("\u2019", "").replace("'", "")
    for british, american in _BRITISH:
        text = text.replace(british, american)
    text = _PLUS.sub(" , present ", _MINUS.sub(" , negative ", text))
    text = _DENIED_LIST.sub("no ", _CHECK_BOX.sub(" ", text))
    text = re.sub(r"\s-+\s|[:\u2013\u2014]", " , ", re.sub(r"[()\[\]]", " ; ", text))
    words = (_mended(word) for word in _WORD.findall(text))
    return f" {' '.join(words)} "


@lru_cache(maxsize=1 << 16)
def _mended(word: str) -> str:
    """Part two words that lost the slash between them, or return the spelling that a long word is one slip away from."""
    if len(word) < _SLIP_LENGTH or word in NOT_SLIPS or word in SPELLINGS:
        return word
    for cut in range(_SHORTEST_GLUED, len(word) - _SHORTEST_GLUED + 1):
        if word[:cut] in GLUED and word[cut:] in GLUED:
            return f"{word[:cut]} {word[cut:]}"
    near = [known for known in SPELLINGS if known[0] == word[0] and _one_slip(word, known)]
    return near[0] if near else word


def _one_slip(word: str, known: str) -> bool:
    """Whether one letter too many, missing, wrong or swapped with its neighbour makes the difference."""
    if abs(len(word) - len(known)) > 1:
        return False
    start = 0
    while start < min(len(word), len(known)) and word[start] == known[start]:
        start += 1
    rest = word[start:]
    known_rest = known[start:]
    if len(word) > len(known):
        return rest[1:] == known_rest
    if len(word) < len(known):
        return rest == known_rest[1:]
    return rest[1:] == known_rest[1:] or (rest[:2] == known_rest[:2][::-1] and rest[2:] == known_rest[2:])
