"""A report to structures: what it says of each, whether that is abnormal, and which of the 18 abnormalities it holds.

Every sentence goes to at least one structure: to those that it names, to those of the sentence before where it has no subject
of its own ("It measures 8 mm."), else to the table's rest. A structure of which the report says nothing is absent: its text is
"" and its ``abnormal`` None, never silently normal. One of which it says only that it was not judged ("could not be
evaluated", "outside the field of view") has a text and ``abnormal`` None.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from d2rnet.ct.structures.sentences import split_sentences
from d2rnet.ct.structures.table import IGNORED, StructureTable
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.findings.ct_mentions import OTHER, SentenceFindings, sentence_findings
from d2rnet.findings.mention_context import State
from d2rnet.findings.mention_cues import any_of
from d2rnet.findings.mention_search import Found
from d2rnet.findings.phrases import PhraseMatch

# Openings of a sentence that speaks of what the one before it spoke of.
_GOES_ON = re.compile(
    r"^ (?:and |also |however |in addition (?:, )?|but |again )?"
    + any_of("""
        it its it_is they their these this those with which one_of some_of others? another most_of the_other
        the_(?:largest|biggest|smallest|larger|smaller|sizes?|lesions?|described|appearances?|same|dimensions?|diameter)
        the_(?:mass|nodules?|thickness|short|long|depth|boundaries|borders|contours?|views?|image|difference|number|parenchyma)
        the_findings_(?:are|were|is|described) in_the_(?:differential|current|previous|old|this|present)
        in_(?:current|previous|this|between|places) compared when_(?:compared|it) according_to
        (?:there_(?:was|is|were|are)_)?no_(?:significant_)?(?:change|difference|progression|increase|interval)
        stable unchanged measured measuring evaluated considered suspicious boundaries inside within_it around_it parenchyma
        contours? sizes? dimensions similar similarly among_these accompanying biopsy located left right bilateral mean_hu
        on_the_(?:left|right) gland_(?:dimensions?|size|parenchyma)
    """)
    + r"(?= )"
)
# Between two names of structures: both are spoken of at once.
_TOGETHER = re.compile(
    r"^ (?:(?:and|or|nor|as well as|,|both|the|a|of|in|at|right|left|bilateral|bilaterally|each|its|with|also|upper|lower|"
    r"other|regions?|levels?|areas?|walls?|main|major|minor) ){1,6}$"
)
# Between a mention and the place that it lies in.
_PLACED = re.compile(r"^(?: (?!(?:and|or|with|without|no|to)\b)[a-z]+){0,4} (?:in|of)(?: [a-z]+){0,4} $")
_FINE = re.compile(r"(?<= )(?:normal|natural|unremarkable|clear|usual|preserved|intact|regular)(?= )")
_TRANSITIVE = re.compile(r"invad|destr|obliterat|compress")
_RELATION = re.compile(
    r" (?:invad\w+|adjacent|abutting|contact\w*|extending|reaching|extends|reaches|neighbou?r\w*|near|next) "
)
_RELATION_COST = 30
_CLAUSE = re.compile(r" (?:;|but|while|whereas|there|and (?:there|the|no|a|an|minimal|mild)) ")
_CLAUSE_COST = 60  # characters: a cue beyond the end of a clause is that much farther away
_COMMA_COST = 15


@dataclass(frozen=True)
class ReportSentence:
    """One sentence of a report.

    Attributes:
        text: with the white space that follows it.
        structures: those that it is dealt out to, in the order of the table; at least one.
        abnormal: those of them that it calls abnormal.
        not_judged: those of them that it calls neither abnormal nor normal: not evaluated, outside the field of view, or,
            where doubt does not count, only doubted.
        labels: the abnormalities that it says are there, in the order of CT_ABNORMALITIES.
    """

    text: str
    structures: tuple[str, ...]
    abnormal: tuple[str, ...]
    not_judged: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class StructuredReport:
    """A report dealt out to structures.

    Attributes:
        structures: name -> ``text`` (its sentences, "" if absent), ``abnormal`` (None if absent or not judged), ``labels``.
        sentences: in the order of the report; their texts joined are the report.
        labels: the abnormalities of the report, in the order of CT_ABNORMALITIES.
        unknown_labels: those that it names and says of neither that they are there nor that they are not.
    """

    structures: dict[str, dict[str, Any]]
    sentences: tuple[ReportSentence, ...]
    labels: tuple[str, ...]
    unknown_labels: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """A sentence by groups of anatomy.

    Attributes:
        groups: named.
        abnormal: called abnormal.
        judged: called abnormal or normal; without groups, whether the sentence judges anything is ``judges``.
        judges: whether it says of anything that it is there or not.
        labels: each abnormality that is there, with its groups.
        denied: abnormalities that are not there.
        unknown: abnormalities of which it says neither.
    """

    groups: tuple[str, ...]
    abnormal: frozenset[str]
    judged: frozenset[str]
    judges: bool
    labels: tuple[tuple[str, frozenset[str]], ...]
    denied: frozenset[str]
    unknown: frozenset[str]


def structures_of(report: str, table: StructureTable, *, uncertain_counts: bool = True) -> StructuredReport:
    """Deal a report out to the structures of a table.

    Args:
        report: text of the findings (and impression).
        table: from :func:`d2rnet.ct.structures.table.load_table`.
        uncertain_counts: whether a doubted finding counts as there.
    """
    sentences = []
    before: tuple[str, ...] = ()
    labels_of: dict[str, set[str]] = {name: set() for name in table.structures}
    denied: set[str] = set()
    unknown: set[str] = set()
    for text in split_sentences(report):
        reading = _read_sentence(text.strip(), before, table, uncertain_counts)
        before = _subject(reading)
        structures = table.structures_for(reading.groups) or (table.rest,)
        abnormal = table.structures_for(reading.abnormal)
        judged = set(table.structures_for(reading.judged)) if reading.groups else set(structures) if reading.judges else set()
        not_judged = tuple(name for name in structures if name not in judged)
        denied |= reading.denied
        unknown |= reading.unknown
        for label, groups in reading.labels:
            for name in table.structures_for(groups) or structures:
                labels_of[name].add(label)
        named = {label for label, _ in reading.labels}
        sentences.append(ReportSentence(text, structures, abnormal, not_judged, _ordered(named)))
    found = {name: _structure(name, sentences, labels_of[name]) for name in table.structures}
    labels = {label for sentence in sentences for label in sentence.labels}
    return StructuredReport(found, tuple(sentences), _ordered(labels), _ordered(unknown - denied - labels))


def _structure(name: str, sentences: Sequence[ReportSentence], labels: set[str]) -> dict[str, Any]:
    own = [sentence for sentence in sentences if name in sentence.structures]
    if not own:
        return {"text": "", "abnormal": None, "labels": []}
    return {
        "text": " ".join(sentence.text.strip() for sentence in own),
        "abnormal": is_abnormal(name, own),
        "labels": list(_ordered(labels)),
    }


def is_abnormal(name: str, sentences: Sequence[ReportSentence]) -> bool | None:
    """Return whether sentences call a structure abnormal; None where none of them judges it."""
    own = [sentence for sentence in sentences if name in sentence.structures and name not in sentence.not_judged]
    return any(name in sentence.abnormal for sentence in own) if own else None


def _ordered(labels: set[str]) -> tuple[str, ...]:
    return tuple(label for label in CT_ABNORMALITIES if label in labels)


def _subject(reading: _Reading) -> tuple[str, ...]:
    """Return what a sentence without a subject after this one speaks of: what is abnormal here, else all that is named."""
    return tuple(group for group in reading.groups if group in reading.abnormal) or reading.groups


@lru_cache(maxsize=1 << 17)
def _read_sentence(sentence: str, before: tuple[str, ...], table: StructureTable, uncertain_counts: bool) -> _Reading:
    """Read one sentence; reports repeat sentences, so results are kept.

    Args:
        sentence: without white space around it.
        before: groups that the sentence before it spoke of.
        table: its words.
        uncertain_counts: as in :func:`structures_of`.
    """
    findings = sentence_findings(sentence)
    text = findings.text
    cues = [match for match in table.cues.find(text) if IGNORED not in match.meanings]
    inherited = () if cues else _without_cue(text, before, table)
    counted = {State.PRESENT, State.UNCERTAIN} if uncertain_counts else {State.PRESENT}
    named = dict.fromkeys(group for cue in cues for group in cue.meanings)
    named |= dict.fromkeys(inherited)
    abnormal: set[str] = set()
    judged: set[str] = set()
    labels: list[tuple[str, frozenset[str]]] = []
    states: dict[State, set[str]] = {state: set() for state in State}
    doubted: set[str] = set()
    for mention in findings.mentions:
        groups = _groups_of(mention, text, cues, inherited, findings.mentions, table)
        home = groups if mention.category == OTHER else groups & set(table.groups_of_label[mention.category])
        if mention.category != OTHER:
            named |= dict.fromkeys(sorted(home))
            states[mention.state].add(mention.category)
        if mention.state is State.ABSENT:
            judged |= home or groups
        elif mention.state not in counted:
            doubted |= home or groups
        else:
            abnormal |= home or groups
            if mention.category != OTHER and home:
                labels.append((mention.category, frozenset(home)))
    judged |= abnormal | (_judged_by_name(cues, named, findings) - doubted)
    unknown = states[State.NOT_JUDGED] | (states[State.UNCERTAIN] - {label for label, _ in labels})
    return _Reading(
        groups=tuple(named),
        abnormal=frozenset(abnormal),
        judged=frozenset(judged),
        judges=bool(judged) or (text.strip() != "" and not (findings.not_judged or findings.mentions)),
        labels=tuple(labels),
        denied=frozenset(states[State.ABSENT]),
        unknown=frozenset(unknown),
    )


def _judged_by_name(cues: Sequence[PhraseMatch], named: Iterable[str], findings: SentenceFindings) -> set[str]:
    """Return the groups that the sentence names where it does not say that they were not judged."""
    if not findings.not_judged:
        return set(named)
    spans = [(scope.start, scope.end) for scope in findings.not_judged]
    outside = [cue for cue in cues if not any(start < cue.end and cue.start < end for start, end in spans)]
    fine = [found.span() for found in _FINE.finditer(findings.text)]
    if not outside and any(all(last <= start or end <= first for start, end in spans) for first, last in fine):
        return set(named)  # "only partly included, and what is seen is normal"
    return {group for cue in outside for group in cue.meanings}


def _without_cue(text: str, before: tuple[str, ...], table: StructureTable) -> tuple[str, ...]:
    """Return the groups that a sentence without a cue speaks of: those before it, those of its findings, or none."""
    if before and _GOES_ON.match(text):
        return before
    found = table.findings.find(text)
    candidates = dict.fromkeys(group for match in found for group in match.meanings)
    shared = tuple(group for group in before if group in candidates)
    return shared or tuple(candidates)[:1]


def _groups_of(
    mention: Found,
    text: str,
    cues: Sequence[PhraseMatch],
    inherited: tuple[str, ...],
    mentions: Sequence[Found],
    table: StructureTable,
) -> set[str]:
    """Return the groups of anatomy that a mention lies in.

    An abnormality lies in the nearest group that may hold it, unless a nearer one holds findings of the same words: a nodule
    of the thyroid is none of the lung. Other illness lies in the nearest group.
    """
    homes = table.groups_of_label.get(mention.category, ())
    if homes:
        words = table.findings.find(text[mention.start - 1 : mention.end + 1])
        rivals = {group for match in words for group in match.meanings}
        fitting = [cue for cue in cues if not {*homes, *rivals}.isdisjoint(cue.meanings)]
        if not fitting:
            if rivals.isdisjoint(inherited) or not set(homes).isdisjoint(inherited):
                return set(homes).intersection(inherited) or {homes[0]}
            return set(inherited)
    else:
        fitting = list(cues)
        if not fitting:
            return set(inherited)
    if _TRANSITIVE.match(text, mention.start):  # "invades the ribs": what follows it
        fitting = [cue for cue in fitting if cue.start > mention.end] or fitting
    nearest = min(range(len(fitting)), key=lambda place: _distance(text, mention, fitting[place]))
    groups = set(fitting[nearest].meanings)
    if nearest + 1 < len(fitting) and _PLACED.match(text[max(mention.end, fitting[nearest].end) : fitting[nearest + 1].start]):
        groups |= set(fitting[nearest + 1].meanings)  # "thickening of the bronchial walls in the lower lobes"
    spans = [(other.start, other.end) for other in mentions]
    for step in (1, -1):  # "in the mediastinum and both axillae": names that stand together share it
        place = nearest
        while 0 <= place + step < len(fitting):
            first, second = sorted((fitting[place], fitting[place + step]), key=lambda cue: cue.start)
            far = fitting[place + step]
            if not _TOGETHER.match(text[first.end : second.start]) or any(s < far.end and far.start < e for s, e in spans):
                break
            groups |= set(far.meanings)
            place += step
    return groups


def _distance(text: str, mention: Found, cue: PhraseMatch) -> int:
    """Return how far a cue is from a mention, in characters; the end of a clause between them counts for many."""
    first, second = (cue.end, mention.start) if cue.start < mention.start else (mention.end, cue.start)
    between = text[first - 1 : second + 1] if first < second else ""
    commas = between.count(" , ")
    related = len(_RELATION.findall(between))
    return len(between) + _COMMA_COST * commas + _RELATION_COST * related + _CLAUSE_COST * len(_CLAUSE.findall(between))
