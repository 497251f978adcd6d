"""What an indication tells of the report: its sentences, and its findings where they stand without a verb or as news.

"Small left effusion." is no sentence that describes an image by its verb, and need not be word for word one of the report.
But few ask so: a question has a question mark or a word that asks, what is known says known, and what a referring doctor
saw is a pain or a cough. So a part of an indication counts, in a sentence without such words, that has nothing but words of a
finding, its place and its look, one at least of size, change, shape or fine place, where the report says of that finding that
it is there (own choice; counts on Open-i in docs/explanation/report-model.md). What a part denies or doubts
("without pneumothorax", "or infiltrate") is set aside: it makes nothing told, and hides nothing that is.

Words of news ("now with", "new onset", "developed", "found to have", "has") make a finding told whatever its look, and
whatever stands before them, unless that asks; between the conjunctions around it there is nothing but words of it, its place
and its look.

Pure functions on text; reads and writes nothing.
"""

import re
from collections.abc import Sequence

from d2rnet.cxr.sources.shared_sentences import SENTENCE_END, shared_sentences
from d2rnet.findings.mention_context import State
from d2rnet.findings.mention_text import normalise_sentence
from d2rnet.findings.mentions import Mention, find_mentions, named_sides
from d2rnet.findings.short_sides import SHORT_SIDE

_PARTS = re.compile(r"(?<=[,:])\s+|\s+-+\s+")
_QUESTION = (  # or of what another study saw
    r"\?|\b(?:evaluat\w*|eval|assess\w*|re-?(?:evaluat|assess)\w*|rule|r/o|exclude|follow\w*|f/?u|check|if|whether"
    r"|concern(?!ing)\w*|question\w*|possib(?!ly)\w+|suspect\w*|suspicion|previous\w*|prior|recent\w*|please"
    r"|look\w*|interval\s+change\w*|monitor\w*|diagnos\w+|dx|outside|osh)\b"
)
_PAST = r"\b(?:known|history|hx|h/o|status|s/p|post(?!er)\w*|pre-?op\w*)\b"
_ASKS_NOW = re.compile(_QUESTION, re.IGNORECASE)
_ASKS = re.compile(f"{_QUESTION}|{_PAST}", re.IGNORECASE)
_NEWS = re.compile(
    r"(?<!\bfor )(?<!\bno )(?<!\bnot )\b(?:"
    r"(?P<strong>now(?:\s+(?:with|ha(?:s|ve|ving)|show(?:s|ing)))?|with\s+(?:an?\s+)?new|new[- ]onset(?:\s+of)?"
    r"|develop(?:ed|s|ing)|present(?:s|ed|ing)\s+with|(?:found|noted|seen|shown)\s+(?:to\s+have|with))"
    r"|ha(?:s|ve|ving)|show(?:s|ed|ing)|demonstrate[sd]|demonstrating|reveal(?:s|ed|ing))\b",
    re.IGNORECASE,
)
_JOINS = re.compile(
    r"(?<= )(?:and|with|but|plus|from|causing|[,;]|(?:due|secondary) to|because of|now|new onset|has|have|developed)(?= )"
)
_SIDES = {"r": "right", "rt": "right", "l": "left", "lt": "left"}
_LOBES = {
    "rul": "right upper lobe",
    "rml": "right middle lobe",
    "rll": "right lower lobe",
    "lul": "left upper lobe",
    "lll": "left lower lobe",
}
_SHORT = _SIDES | _LOBES
_SHORT_WORD = re.compile(rf"{SHORT_SIDE}|\b(?:{'|'.join(_LOBES)})\b", re.IGNORECASE)
_UNIT = re.compile(r"(?<=\d)(?=[cm]m\b)", re.IGNORECASE)  # "2cm"
_DENIES = re.compile(r"(?<= )(?:no|without|or|nor) ")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words by which a radiograph is described; one of them must be there. A side or lobe alone is also what a doctor knows.
_LOOK = _words("""
    small tiny trace minimal minimally mild mildly moderate moderately large severe severely marked massive slight
    slightly subtle faint vague hazy dense stable unchanged persistent residual continued new increased increasing decreased
    decreasing improved improving worsened worsening developing enlarging increase decrease improvement worsening
    development resolving patchy streaky linear platelike bandlike discoid subsegmental segmental reticular nodular
    confluent diffuse diffusely sized scattered innumerable multifocal focal asymmetric ill defined round rounded
    irregular calcified loculated layering blunted blunting prominent prominence enlarged enlargement tortuous ectatic basilar
    bibasilar basal bibasal base bases perihilar retrocardiac suprahilar infrahilar subpleural apical biapical peripheral
    costophrenic cardiophrenic midlung cm mm
""")
_PLACE = _words("""
    left right bilateral bilaterally both sided upper lower middle mid lobe lobes lobar segment lung lungs zone zones hilar
    hilum lingula lingular apex apices hemithorax chest pleural pulmonary cardiac heart mediastinal mediastinum side
    anterior posterior posteriorly posterobasal superior lateral medial central interstitial airspace air space alveolar
    vascular bronchovascular parenchymal angle angles
""")
_LINKS = _words("""
    a an the of in at on to for and or but no not with without interval within along near adjacent associated superimposed
    underlying overlying projecting over likely most probable probably possibly representing reflecting suggesting consistent
    compatible suspicious concerning worrisome versus given due secondary greater larger less more worse than some few
    several multiple numerous measuring up area areas density opacity opacities acute chronic overt significant disease
    process cardiopulmonary abnormality abnormalities evidence appearance pattern changes change findings size appearing
    failure pneumonia infection congestion crowding markings aeration clear normal low volume volumes contour contours
    silhouette elevation xxxx has have developed now
""")
_TODAY = _words("x ray xray cxr ct radiograph film exam imaging scan today seen noted found identified")


def leaked(indication: str, report: str) -> list[str]:
    """Return what an indication holds of a report: sentences of the report, then parts of its own that tell a finding.

    Args:
        indication: why the radiograph was taken.
        report: findings or impression.
    """
    shared = shared_sentences(indication, report)
    return [*shared, *(part for part in told_findings(indication, report) if part not in shared)]


def told_findings(indication: str, report: str) -> list[str]:
    """Return the parts of an indication, between punctuation, that tell a finding of the report without a verb or as news.

    Args:
        indication: why the radiograph was taken.
        report: findings or impression.
    """
    sentences = SENTENCE_END.split(indication)
    parts = [(part, named) for sentence in sentences for part in _PARTS.split(sentence) if (named := _told(part, sentence))]
    if not parts:
        return []
    there = [mention for mention in find_mentions(report) if mention.state is State.PRESENT]
    return [part for part, named in parts if any(_is_among(mention, there) for mention in named)]


def _told(part: str, sentence: str) -> list[Mention]:
    """Return the findings that a part of a sentence says are there, without a verb or as news."""
    return ([] if _ASKS.search(sentence) else _described(part)) or _announced(part, sentence)


def _announced(part: str, sentence: str) -> list[Mention]:
    """Return the findings that a part tells as news; none if it asks, or with a mere verb ("has") the sentence does."""
    news = _NEWS.search(part)
    if not news or _ASKS_NOW.search(part if news["strong"] else sentence) or _ASKS.search(part, news.end()):
        return []
    text, mentions = _read(part[news.end() :])
    around = _blanked(text, [(mention.start, mention.end) for mention in mentions])
    return [mention for mention in mentions if mention.state is State.PRESENT and _is_bare(_phrase(around, mention), _TODAY)]


def _phrase(text: str, mention: Mention) -> str:
    """Return the words between the conjunctions around a mention."""
    start = max((mark.end() for mark in _JOINS.finditer(text, 0, mention.start)), default=0)
    end = _JOINS.search(text, mention.end)
    return text[start : end.start() if end else len(text)]


def _described(part: str) -> list[Mention]:
    """Return the findings that a part says are there; none if it holds more than findings, places and looks."""
    text, mentions = _read(part)
    there = [mention for mention in mentions if mention.state is State.PRESENT]
    around = _blanked(text, [(mention.start, mention.end) for mention in mentions])
    said = _blanked(text, _unsaid(text, mentions))
    return there if _is_bare(around) and not _LOOK.isdisjoint(said.split()) else []


def _read(part: str) -> tuple[str, list[Mention]]:
    """Return a part, normalised and with short sides and lobes written out, and its mentions; none if it is two sentences."""
    spelt = _SHORT_WORD.sub(lambda short: _SHORT[short[0].lower()], _UNIT.sub(" ", part))
    mentions = find_mentions(spelt)
    return normalise_sentence(spelt), [] if any(one.sentence for one in mentions) else mentions


def _is_bare(text: str, others: frozenset[str] = frozenset()) -> bool:
    """Whether the words of a text are of place and look, or among ``others``."""
    return _LOOK.union(_PLACE, _LINKS, others).issuperset(word for word in text.split() if word[0].isalpha())


def _unsaid(text: str, mentions: Sequence[Mention]) -> list[tuple[int, int]]:
    """Return first and one past the last character of what a part does not say is there.

    Of a denied finding from the word on that denies it, of a doubted one from the finding before it on: a look that stands
    before "or infiltrate" is that of a doubt.

    Args:
        text: normalised sentence.
        mentions: of the sentence, in reading order.
    """
    spans = []
    previous_end = 0
    for mention in mentions:
        if mention.state is State.UNCERTAIN:
            spans.append((previous_end, mention.end))
        elif mention.state is State.ABSENT:
            cue = _DENIES.search(text, previous_end, mention.start)
            spans.append((cue.start() if cue else mention.start, mention.end))
        previous_end = mention.end
    return spans


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text with spaces in some places, given by first and one past the last character."""
    for start, end in spans:
        text = f"{text[:start]}{' ' * (end - start)}{text[end:]}"
    return text


def _is_among(mention: Mention, there: Sequence[Mention]) -> bool:
    """Whether a report says of a finding that it is there, on the same side if both name one."""
    same = [other for other in there if other.category == mention.category]
    own, theirs = (named_sides(found).get(mention.category, set()) for found in ([mention], same))
    return bool(same) and (not own or not theirs or bool(own & theirs))
