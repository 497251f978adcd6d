"""What a sentence of a chest CT report says: which of the 18 abnormalities, which other wording of illness, in which state.

The machinery is that of the radiographs' lesions (mention_search.py, mention_context.py); the lexicons are ct_lexicon.py and
ct_abnormal_words.py. What the report retells of an earlier examination is denied, as is a history. Offline, no weights.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from d2rnet.findings.ct_abnormal_words import ABNORMAL, HARMLESS
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.findings.ct_lexicon import BLOCKED, NORMAL, PATTERNS, SIGNS, STEMS
from d2rnet.findings.mention_context import Scope, State, find_scopes, state_of
from d2rnet.findings.mention_cues import any_of
from d2rnet.findings.mention_search import Found, Lexicon
from d2rnet.findings.mention_text import normalise_sentence
from d2rnet.findings.phrases import PhraseIndex

OTHER = ""  # category of wording of illness that is none of the 18
_HARMLESS = "harmless"
_LEXICON = Lexicon(
    {name: PATTERNS[name] for name in CT_ABNORMALITIES}, blocked=BLOCKED, normal=NORMAL, signs=SIGNS, stems=STEMS
)
_WORDS = PhraseIndex({OTHER: ABNORMAL, _HARMLESS: HARMLESS})

_EARLIER = any_of("previous prior old earlier former past preceding last")
_STUDY = any_of(
    "examinations? exams? study studies ct cts tomograph\\w+ scans? reviews? reports? images? imaging evaluations?"
)
# Brackets with one word, a measure or a place in the series: "(LAP)", "(im. 45)", "(17x13 mm in the previous examination)".
_SERIES = r"series|serie|images?|slices?|ima|img|im|se|section|hu"
ASIDE = re.compile(
    rf"[(\[]\s*(?:(?!(?:operat|cholecyst|mastect|resect)\w*)[^()\[\]\s?]+"
    rf"|[^()\[\]]{{0,120}}\b(?:{_EARLIER} {_STUDY}|{_SERIES})\b[^()\[\]]{{0,120}}"
    r"|(?=[^()\[\]]{0,60}[0-9])[^()\[\]a-z]{0,60}(?:mm|cm)?[^()\[\]a-z]{0,60})\s*[)\]]",
    flags=re.IGNORECASE,
)
_RELATIVE = re.compile(rf" , (?:which|that) (?:was|were|is|are|had|has)\b[^,;]*\b{_EARLIER} {_STUDY}[^,;]* , ")
_PAST = re.compile(rf"(?<= )(?:in|on|at) (?:the |his |her |a |an )?(?:patients )?{_EARLIER} (?:[a-z]+ )?{_STUDY}(?= )")
_CURRENT = r"(?:in|on|at) (?:the |this |todays )?(?:current|present|new|this)|currently|now"
_TODAY = re.compile(rf"(?<= )(?:{_CURRENT})(?= )")
_NOW = re.compile(rf"(?<= )(?:{_CURRENT}|but|however|still|also|stable)(?= )")
# An organ that was taken out: "the gallbladder was not observed".
_MISSING = re.compile(
    r"^ (?:the )?(?:(?:left|right) )?(?:gall ?bladder|spleen|kidney|breast|thyroid)(?: (?:gland|lobe))? "
    r"(?P<missing>(?:was|were|is|are|could) not (?:be )?(?:observed|seen|visuali[sz]ed|available|present)|"
    r"(?:is|are|was|were|has been|have been) (?:surgically )?(?:absent|missing|removed|taken out|resected|excised))(?= )"
)


@dataclass(frozen=True)
class SentenceFindings:
    """What one sentence says.

    Attributes:
        text: the sentence as it was searched; places in it refer to this text.
        mentions: of the 18 abnormalities, and of other illness under category OTHER, in reading order.
        not_judged: what it says was not evaluated, obscured or outside the field of view.
    """

    text: str
    mentions: tuple[Found, ...]
    not_judged: tuple[Scope, ...]


@lru_cache(maxsize=1 << 16)
def sentence_findings(sentence: str) -> SentenceFindings:
    """Read one sentence; reports repeat sentences, so results are kept."""
    text = ct_normalised(sentence)
    scopes = [*find_scopes(text), *_past_scopes(text)]
    labels = _LEXICON.search(text, scopes)
    taken = [(mention.start, mention.end) for mention in labels]
    others = []
    for match in _WORDS.find(text):
        inside = any(start < match.end and match.start < end for start, end in taken)
        if match.meanings == (OTHER,) and not inside:
            others.append(Found(OTHER, state_of(match.start, match.end, scopes), match.start, match.end))
    missing = _MISSING.match(text)
    if missing:
        others.append(Found(OTHER, State.PRESENT, *missing.span("missing")))
    mentions = sorted([*labels, *others], key=lambda mention: (mention.start, mention.end))
    return SentenceFindings(text, tuple(mentions), tuple(scope for scope in scopes if scope.state is State.NOT_JUDGED))


@lru_cache(maxsize=1 << 16)
def ct_normalised(sentence: str) -> str:
    """Return a sentence as it is searched: normalised, without asides in brackets and clauses about earlier examinations."""
    return _RELATIVE.sub(" ", normalise_sentence(ASIDE.sub(" ", sentence)))


def _past_scopes(text: str) -> Iterator[Scope]:
    """Yield what the sentence retells of earlier examinations, as denied."""
    for found in _PAST.finditer(text):
        now = _TODAY.search(text, 0, found.start()) or _NOW.search(text, found.end())
        if now is None:
            yield Scope(State.ABSENT, found.start(), len(text))
        elif now.start() > found.end():
            yield Scope(State.ABSENT, found.start(), now.start())
