"""Lesion mentions: which of the 22 classes a report names, in which state and on which side. Offline, no weights.

``find_mentions`` gives every mention, ``report_findings`` one state per class. An opacity that the same sentence explains
("opacities consistent with edema") counts as what explains it alone. Conventions and measured errors:
docs/reference/metrics.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mention_context import State, find_scopes
from d2rnet.findings.mention_cues import any_of
from d2rnet.findings.mention_lexicon import BLOCKED, NORMAL, PATTERNS, SIGNS
from d2rnet.findings.mention_search import Lexicon
from d2rnet.findings.mention_text import normalise_sentence, split_text


@dataclass(frozen=True)
class Mention:
    """One class named in one sentence.

    Attributes:
        category: one of CATEGORY_NAMES.
        state: present, absent or uncertain.
        side: the patient's "left", "right", "bilateral", or "" where none is named or the class lies in the midline; of a
            mediastinal shift where to.
        sentence: 0-based number of the sentence.
        start: first character in the normalised sentence.
        end: one past the last.
    """

    category: str
    state: State
    side: str
    sentence: int
    start: int
    end: int


_LEXICON = Lexicon({name: PATTERNS[name] for name in CATEGORY_NAMES}, blocked=BLOCKED, normal=NORMAL, signs=SIGNS)
_MIDLINE = frozenset(("Aortic enlargement", "Cardiomegaly", "Enlarged PA"))
_EXPLANATION = any_of("""
    consistent_with compatible_with compatible reflect\\w* represent\\w* due_to related_to suggest\\w* indicates? indicating
    indicative_of in_keeping_with secondary_to from because_of attributed attributable likely probably characteristic_of
    typical_of favor\\w*
""")
_EXPLAINS = re.compile(rf" {_EXPLANATION} ")
_VERSUS_AFTER = re.compile(r" (?:versus|vs) ")  # "pneumothorax versus skin fold"
_VERSUS_BEFORE = re.compile(r" (?:versus|vs)(?: [a-z]+){0,2} $")
_ALTERNATIVE = re.compile(r"^(?: [a-z0-9]+){0,4} (?:or|versus|vs)(?: [a-z0-9]+){0,6} $")
_SIDE = re.compile(
    r"(?<= )(?:(?P<left>left\w*|lingula\w*)|(?P<right>right\w*|middle lobe)|"
    r"(?P<both>bilateral\w*|both|bibasilar\w*|bibasal\w*|biapical\w*|bases|lung bases|apices))(?= )"
    r"(?! (?:[a-z]+ ){0,3}(?:tubes?|catheters?|drains?|lines?|ports?|electrodes?) )"  # the side of the tube
)
_HEAD_SIDE = re.compile(r"^ (?:left|right)(?: (?:lung|base|side|hemithorax))? , ")  # "Left lung: no nodule."
_NONE_THERE = re.compile(r"(?<= , )(?:none|nothing) ")  # "effusion on the right, none on the left"
_CONJUNCTION = re.compile(
    r"(?<= )(?:[,;]|and|as well as|with|or|but|without|no|versus|vs|there (?:is|are|was|were|remains?))(?= )"
)
_SHARED_SIDE = re.compile(
    r"^ (?:(?:and|with|or|versus|vs)(?: (?:adjacent|associated|underlying|overlying|subjacent|some))? )?$"
)
# After a finding on one side, what says that the other side has it, too: "(the right effusion) is larger than the left".
_WORD = r"(?!(?:left|right|none|without|but|there)\b|no\b(?! [a-z]+er\b))(?:[a-z0-9]+|,)"
_AGAINST = re.compile(
    rf"(?: {_WORD}){{0,8}} (?:(?:more|less|worse|(?!rather|other)[a-z]+er)(?: {_WORD}){{0,4}}? than|as [a-z]+ as|"
    r"(?:similar|equal|comparable)(?: in [a-z]+)? (?:to|with))(?: (?:that|those|on|in|at|of|the)){0,3} (?P<side>left|right)"
    r"(?: (?:sided?|ones?|lung|base|hemithorax))*"
    r"(?= (?:$|[,;] |(?:and|with|or|but|which|without|is|are|was|were|has|have|as|again|today|now|since|on|at|in) ))"
)
_SAME_PLACE = re.compile(rf"^(?: [a-z]+){{0,4}} (?:{_EXPLANATION}|be|possibly)(?: [a-z]+){{0,2}} $")


def find_mentions(text: str) -> list[Mention]:
    """Find every lesion mention of a report, in reading order.

    Args:
        text: raw section text, or text cleaned by a text protocol; "XXXX" marks are unknown words.
    """
    found = []
    for number, sentence in enumerate(split_text(text)):
        found += [replace(mention, sentence=number) for mention in _sentence_mentions(sentence)]
    return found


def report_findings(text: str) -> dict[str, State]:
    """Return one state for each class that a report mentions: present if said anywhere, else uncertain, else absent."""
    states = report_states(find_mentions(text))
    return {name: states[name] for name in CATEGORY_NAMES if name in states}


def report_states(mentions: Sequence[Mention]) -> dict[str, State]:
    """Return one state for each class of some mentions, as :func:`report_findings`."""
    states: dict[str, State] = {}
    for mention in mentions:
        ranked = (State.PRESENT, State.UNCERTAIN, State.ABSENT)
        known = states.get(mention.category, State.ABSENT)
        states[mention.category] = min(known, mention.state, key=ranked.index)
    return states


def named_sides(mentions: Sequence[Mention]) -> dict[str, set[str]]:
    """Return the sides, left and right, of each class that is named with a side; "bilateral" is both."""
    sides: dict[str, set[str]] = {}
    for mention in mentions:
        if mention.side and mention.state is not State.ABSENT:
            own = ("left", "right") if mention.side == "bilateral" else (mention.side,)
            sides.setdefault(mention.category, set()).update(own)
    return sides


def names_side(word: str) -> bool:
    """Say whether a word by itself names a side, as "left", "Right-sided", "bilateral" and "bases" do."""
    text = normalise_sentence(word)
    return bool(_sides(text, 0, len(text) - 1))


def named_classes(text: str, *, uncertain_counts: bool = True) -> frozenset[str]:
    """Return the classes that a report says are there; with ``uncertain_counts`` also those that it doubts."""
    return classes_of(find_mentions(text), uncertain_counts=uncertain_counts)


def classes_of(mentions: Sequence[Mention], *, uncertain_counts: bool = True) -> frozenset[str]:
    """Return the classes that some mentions say are there, as :func:`named_classes`."""
    counted = {State.PRESENT, State.UNCERTAIN} if uncertain_counts else {State.PRESENT}
    return frozenset(name for name, state in report_states(mentions).items() if state in counted)


@lru_cache(maxsize=1 << 15)
def _sentence_mentions(sentence: str) -> tuple[Mention, ...]:
    """Mentions of one sentence, numbered 0; what was not judged is none. Reports repeat sentences, so results are kept."""
    text = normalise_sentence(sentence)
    found = _LEXICON.search(text, find_scopes(text))
    mentions = [Mention(each.category, each.state, "", 0, each.start, each.end) for each in found]
    mentions = _doubt_alternatives(text, _without_explained(text, _joined(text, mentions)))
    sides: list[str] = []
    for place in range(len(mentions)):
        sides.append(_side_of(text, mentions, place, sides))
    sided = (replace(mention, side=side) for mention, side in zip(mentions, sides, strict=True))
    return tuple(mention for mention in sided if mention.state is not State.NOT_JUDGED)


def _joined(text: str, mentions: list[Mention]) -> list[Mention]:
    """Make one mention of neighbouring words for the same class ("calcified granuloma")."""
    joined: list[Mention] = []
    for mention in mentions:
        last = joined[-1] if joined else None
        if (
            last
            and (last.category, last.state) == (mention.category, mention.state)
            and not text[last.end : mention.start].strip()
        ):
            joined[-1] = replace(last, end=max(last.end, mention.end))
        else:
            joined.append(mention)
    return joined


def _without_explained(text: str, mentions: list[Mention]) -> list[Mention]:
    """Leave out an opacity that a later mention of the sentence explains without doubt."""
    kept = []
    for place, mention in enumerate(mentions):
        later = next((other for other in mentions[place + 1 :] if other.category != "Lung Opacity"), None)
        explained = (
            mention.category == "Lung Opacity"
            and mention.state is not State.ABSENT
            and later is not None
            and later.state is State.PRESENT
            and _EXPLAINS.search(text[mention.end : later.start])
        )
        if not explained:
            kept.append(mention)
    return kept


def _doubt_alternatives(text: str, mentions: list[Mention]) -> list[Mention]:
    """Turn "atelectasis or scar", said without denial, into two doubts, and what is weighed against anything into one."""
    doubted = {
        place
        for place, mention in enumerate(mentions)
        if _VERSUS_AFTER.match(text, mention.end) or _VERSUS_BEFORE.search(text[: mention.start])
    }
    for place, (first, second) in enumerate(pairwise(mentions)):
        if first.category != second.category and _ALTERNATIVE.match(text[first.end : second.start]):
            doubted |= {place, place + 1}
    return [
        replace(mention, state=State.UNCERTAIN) if place in doubted and mention.state is State.PRESENT else mention
        for place, mention in enumerate(mentions)
    ]


def _side_of(text: str, mentions: Sequence[Mention], place: int, sides: Sequence[str]) -> str:
    """Name the side of a mention: from its own words, those before it in its phrase, those after it, those it shares.

    One that is compared with the other side is on both.

    Args:
        text: normalised sentence.
        mentions: of the sentence.
        place: which mention.
        sides: of the mentions before it.
    """
    mention = mentions[place]
    if mention.category in _MIDLINE:
        return ""
    previous_end = max((other.end for other in mentions[:place] if other.end <= mention.start), default=0)
    if place and (before := _against(text, mentions, place - 1)):
        previous_end = max(previous_end, before.end())  # what an effusion is larger than is no place of what follows
    phrase = max((mark.end() for mark in _CONJUNCTION.finditer(text, previous_end, mention.start)), default=previous_end)
    other = _against(text, mentions, place)
    after = mention.end if other else _end_of_place(text, mentions, place)
    own = _sides(text, mention.start, mention.end)
    side = own or _sides(text, phrase, mention.start) or _sides(text, mention.end, after)
    if not side and mention.state is not State.ABSENT:
        side = _sides(text, previous_end, mention.start)
    side = side or _shared_side(text, mentions, place, sides)
    head = _HEAD_SIDE.match(text)
    side = side or (_sides(text, 0, head.end()) if head else "")
    told = side and mention.state is not State.ABSENT
    return "bilateral" if told and other and side != other["side"] else side


def _against(text: str, mentions: Sequence[Mention], place: int) -> re.Match[str] | None:
    """Find what says that a finding of one side is on the other, too: all of it before the next mention."""
    found = _AGAINST.match(text, mentions[place].end)
    return found if found and all(found.end() <= later.start for later in mentions[place + 1 :]) else None


def _end_of_place(text: str, mentions: Sequence[Mention], place: int) -> int:
    """Return how far the words after a mention may name its side: to those that lead to the next one."""
    mention = mentions[place]
    later = next((other for other in mentions[place + 1 :] if other.start >= mention.end), None)
    next_start = later.start if later else len(text)
    marks = [mark.start() for mark in _CONJUNCTION.finditer(text, mention.end, next_start)]
    end = marks[-1] if marks and later else next_start
    none_there = _NONE_THERE.search(text, mention.end, end)
    if none_there:
        return none_there.start()
    denied_alone = mention.state is State.ABSENT and later is not None and later.state is not State.ABSENT
    return mention.end if denied_alone and not marks else end  # "no effusion small left pneumothorax"


def _shared_side(text: str, mentions: Sequence[Mention], place: int, sides: Sequence[str]) -> str:
    """Return the side of a neighbour that one word of place serves both: "atelectasis or scar at the right base"."""
    mention = mentions[place]
    if place:
        between = text[mentions[place - 1].end : mention.start]
        sign = mentions[place - 1].category == "Lung Opacity" and _SAME_PLACE.match(between)
        if sign or _SHARED_SIDE.match(between):
            return sides[place - 1]
    for later in mentions[place + 1 : place + 2]:
        if _SHARED_SIDE.match(text[mention.end : later.start]):
            return _sides(text, later.end, _end_of_place(text, mentions, place + 1))
    return ""


def _sides(text: str, start: int, end: int) -> str:
    """Return the side that the words in [start, end) name, "" for none."""
    named = {str(found.lastgroup) for found in _SIDE.finditer(text, start, end + 1)}
    if not named:
        return ""
    return named.pop() if len(named) == 1 and "both" not in named else "bilateral"
