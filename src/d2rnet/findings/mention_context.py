"""Scope of negation and doubt in a normalised sentence: which stretch of it "no", "may" or "is not seen" speaks about.

Rules in the manner of NegEx (Chapman et al., J Biomed Inform 2001) and of the CheXpert labeler (Irvin et al., AAAI 2019), own
work: a cue before a finding reaches forward, one after it backward, up to a word that opens another statement. Cues of several
words are read first, so that "cannot exclude" is doubt and "no change in" is nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from d2rnet.findings import mention_cues as cues


class State(StrEnum):
    """What a report says of a finding."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Scope:
    """Characters [start, end) of a normalised sentence that a cue speaks about.

    Attributes:
        state: what it says of them.
        start: first character.
        end: one past the last.
        forward: whether the cue stands first and its reach may end with a list (:func:`end_lists`).
    """

    state: State
    start: int
    end: int
    forward: bool = False


_KINDS = (
    ("ignored", cues.IGNORED),
    ("not_judged_whole", cues.NOT_JUDGED_WHOLE),
    ("not_judged_before", cues.NOT_JUDGED_BEFORE),
    ("not_judged_after", cues.NOT_JUDGED_AFTER),
    ("doubt_after", cues.DOUBT_AFTER),
    ("doubt_before", cues.CANNOT_EXCLUDE),
    ("denied_after", cues.DENIED_AFTER),
    ("denied_before_gone", cues.GONE_BEFORE),
    ("denied_before", cues.DENIED_BEFORE),
    ("doubt_before_word", cues.DOUBT_BEFORE),
)
# Of the cues that begin at one place the first kind takes the words.
_CUE = re.compile("|".join(f"(?P<{kind}>(?<= )(?:{'|'.join(patterns)})(?= ))" for kind, patterns in _KINDS))
_BREAK = re.compile(rf"(?<= ){cues.BREAK}(?= )")
_ARTICLE = re.compile(r"(?<= )(?:the|both|its|this) ")
_REASON = re.compile(rf"(?<= ){cues.REASON}(?= )")
_OPENING = re.compile(rf" (?:and )?{cues.OPENS} ")
# A verb that says something new, unlike "is seen".
_PREDICATE = re.compile(rf"(?<= ){cues.FINITE} (?!(?:[a-z]+ly |also |otherwise |now |again )?(?:{cues.SEEN}|not |no ))")
_HISTORY = re.compile(rf"(?<= ){cues.HISTORY}(?= )")
_SUBJECT = re.compile(rf"(?<= ){cues.SUBJECTS}(?= )")
_ITEM_END = re.compile(rf"(?<= , )(?:{cues.ATTRIBUTE} )+(?=, )")  # "effusion , small , "
_RUNS_ON = re.compile(rf"(?: (?:(?:is|are) )?{cues.SEEN})? {cues.RUNS_ON}(?= )")
_ADJECTIVE = re.compile(r"(?:ive|ar|ary|ic|ous|ed|al)$")
_ANY_VERB = re.compile(rf"(?<= )(?:{cues.FINITE}|seen|noted|resolved|had)(?= )")


def find_scopes(sentence: str) -> list[Scope]:
    """Return the scopes of all cues of a normalised sentence; both ends of a scope include the cue's own words."""
    scopes = [Scope(State.ABSENT, *history.span()) for history in _HISTORY.finditer(sentence)]
    for cue in _CUE.finditer(sentence):
        kind = str(cue.lastgroup)
        state = State.ABSENT if kind.startswith("denied") else State.UNCERTAIN
        if kind.startswith("not_judged"):
            scopes += _unjudged(sentence, cue, kind)
        elif "before" in kind:
            end = _end_forward(sentence, cue.end())
            came = sentence.find(" with ", cue.end() - 1, end) if kind.endswith("gone") else -1
            scopes.append(Scope(state, cue.start(), end if came < 0 else came, forward=True))
        elif "after" in kind:
            scopes.append(Scope(state, _start_backward(sentence, cue.start()), cue.end()))
    return scopes


def _unjudged(sentence: str, cue: re.Match[str], kind: str) -> list[Scope]:
    """Return what a cue says was not judged, without the reasons for that ("because of the effusion")."""
    start = _start_backward(sentence, cue.start()) if kind.endswith("after") else cue.start()
    end = _end_forward(sentence, cue.end()) if kind.endswith("before") else cue.end()
    pieces = []
    for reason in _REASON.finditer(sentence, start, end):
        pieces.append((start, reason.start()))
        start = _end_of_reason(sentence, reason.end(), cue.start() if reason.start() < cue.start() else end)
    pieces.append((start, end))
    return [Scope(State.NOT_JUDGED, first, last) for first, last in pieces if first < last]


def _end_of_reason(sentence: str, start: int, end: int) -> int:
    """Return where a reason ends: at its comma, else where the last article before ``end`` opens the subject."""
    comma = sentence.find(" , ", start, end)
    if comma >= 0:
        return comma + 3
    articles = [found.start() for found in _ARTICLE.finditer(sentence, start + 2, end)]
    return articles[-1] if articles and end < len(sentence) else end


def state_of(start: int, end: int, scopes: list[Scope]) -> State:
    """Return the state of a finding at [start, end): what covers a part of it, denial before the others; else it is there."""
    covering = {scope.state for scope in scopes if scope.start < end and start < scope.end}
    for state in (State.ABSENT, State.NOT_JUDGED, State.UNCERTAIN):
        if state in covering:
            return state
    return State.PRESENT


def end_lists(sentence: str, findings: Iterable[tuple[int, int]], scopes: list[Scope]) -> list[Scope]:
    """Return scopes that end with their list, where the next statement follows it without punctuation.

    "No pneumothorax or effusion stable cardiomegaly" denies two findings; "no consolidation small effusion or pneumothorax",
    whose commas were lost, goes on to its last "or".

    Args:
        sentence: normalised.
        findings: first character and one past the last of each finding named.
        scopes: of :func:`find_scopes`.
    """
    ends = [
        end
        for start, end in sorted(findings)
        if _RUNS_ON.match(sentence, end) and not _ADJECTIVE.search(sentence[start:end])  # "cystic right lower lobe lesion"
    ]
    return [_with_its_list(sentence, ends, scope) if scope.forward else scope for scope in scopes]


def _with_its_list(sentence: str, ends: Iterable[int], scope: Scope) -> Scope:
    for end in ends:
        if scope.start < end < scope.end and not re.search(r" (?:or|nor) ", sentence[end : scope.end]):
            return replace(scope, end=end)
    return scope


def _end_forward(sentence: str, start: int) -> int:
    """Return where a cue that ends at ``start`` stops reaching."""
    stop = _BREAK.search(sentence, start)
    end = stop.start() if stop else len(sentence)
    predicate = _PREDICATE.search(sentence, start, end)
    if predicate:
        subjects = [found.start() for found in _SUBJECT.finditer(sentence, start, predicate.start())]
        end = min(end, subjects[-1] if subjects else predicate.start())
    for comma in re.finditer(r"(?<= )(?:,|with)(?= )", sentence[:end]):
        if comma.start() < start:
            continue
        rest = sentence[comma.end() : end]
        listed = comma[0] == "," and re.search(r" (?:or|nor) ", rest)
        if not listed and _OPENING.match(rest):
            return comma.start()
    return end


def _start_backward(sentence: str, end: int) -> int:
    """Return how far back a cue that begins at ``end`` reaches: its clause, which another verb closes."""
    # A break right before the cue ("a fold, which is not seen") belongs to the finding before it.
    stops = [found.end() for found in _BREAK.finditer(sentence, 0, end) if found.end() + 1 < end]
    stops += [found.end() for found in _ITEM_END.finditer(sentence, 0, end) if found.end() + 2 < end]
    start = max(stops, default=0)
    # In "effusion, seen before, is gone" and "effusion: resolved" the comma before the cue parts it from its own subject.
    own = sentence.endswith(" , ", 0, end) and not sentence.startswith("no", end)
    for mark in re.finditer(r"(?<= )(?:,|and|with|without|no)(?= )", sentence[: end - 2] if own else sentence[:end]):
        if mark.start() > start and (mark[0] in ("without", "no") or _ANY_VERB.search(sentence, start, mark.start())):
            start = mark.end()
    return start
