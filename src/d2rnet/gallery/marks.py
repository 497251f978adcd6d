"""Which mentions of a generated report agree with its reference.

A class gets one verdict per pair of reports, by the conventions of the scores (docs/reference/metrics.md): doubted findings
count as named, sides conflict where both reports name sides and share none.
"""

from enum import StrEnum

from d2rnet.findings.mention_context import State
from d2rnet.findings.mentions import Mention
from d2rnet.gallery.modality import RADIOGRAPHS, Modality


class Verdict(StrEnum):
    """How a generated report stands to its reference on one class."""

    MATCH = "match"
    MISSED = "missed"
    INVENTED = "invented"
    WRONG_SIDE = "wrong_side"


ERRORS = (Verdict.MISSED, Verdict.INVENTED, Verdict.WRONG_SIDE)


def class_verdicts(reference: str, hypothesis: str, modality: Modality = RADIOGRAPHS) -> dict[str, Verdict]:
    """Return a verdict for each class that either report names, and for classes that both deny.

    Args:
        reference: text of the reference report.
        hypothesis: text of the generated report.
        modality: its findings.
    """
    theirs = modality.states(reference)
    ours = modality.states(hypothesis)
    their_sides = modality.sides(reference)
    our_sides = modality.sides(hypothesis)
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
