"""Follow-ups of the demo cohort: a patient's later study goes on from the one before, and says why it was taken.

Only with ``cxr.data.demo.follow_ups``. What was seen before persists unchanged, grows, shrinks or goes, and something new may
come; the report says which. A reader of one study alone cannot know that, so that only a model that is given the study before
can write these words. Indications fit a finding more often than not, and never name one.

Reads and writes: nothing. Own work.
"""

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from d2rnet.cxr.demo.findings import OPTIONS, Finding
from d2rnet.cxr.demo.mimic import StudyPlan
from d2rnet.cxr.demo.wording import COMPLAINTS, INDICATIONS
from d2rnet.findings.classes import CATEGORY_NAMES

Rng = np.random.Generator
FATES = {"unchanged": 0.4, "increased": 0.22, "decreased": 0.18, "gone": 0.2}
NEW_SHARE = 0.4  # of follow-ups that have a new finding
MOST_FINDINGS = 4
LEAST_STEP = 0.25  # of a size from 0 to 1, so that growth can be seen
FITTING_SHARE = 0.7  # of indications that fit a finding
_LASTING = ("Rib fracture", "Clavicle fracture", "Other lesion", "Calcification")  # neither grow nor go within days
_STUDIES_A_YEAR = 28 * 12  # of the dates that plan numbers give


def go_on(plans: Sequence[StudyPlan], rng: Rng) -> list[StudyPlan]:
    """Let each later study of a patient go on from the one before, and give all studies dates in order and an indication.

    Args:
        plans: studies, those of a patient one behind the other.
        rng: of follow-ups alone; the plans were drawn with another.
    """
    found: list[StudyPlan] = []
    for plan in plans:
        before = found[-1] if found and found[-1].subject_id == plan.subject_id else None
        if before is not None:
            findings, changes = follow(before.findings, rng)
            plan = replace(plan, findings=findings, changes=changes)
        plan = replace(plan, year=plan.number // _STUDIES_A_YEAR, is_follow_up=before is not None)
        found.append(replace(plan, indication=indication_of(plan, rng)))
    return found


def follow(before: Sequence[Finding], rng: Rng) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Return the findings of the next study, and how each has changed: unchanged, increased, decreased or new."""
    kept: list[Finding] = []
    changes: list[str] = []
    for finding in before:
        fate = str(rng.choice(list(FATES), p=list(FATES.values())))
        step = LEAST_STEP + float(rng.random()) * LEAST_STEP
        if finding.category in _LASTING:
            fate = "unchanged"
        if fate == "gone":
            continue
        size = finding.size + {"unchanged": 0.0, "increased": step, "decreased": -step}[fate]
        if not 0 <= size <= 1:  # as large, or as small, as its class can be
            fate, size = "unchanged", finding.size
        kept.append(replace(finding, size=round(size, 3)))
        changes.append(fate)
    earlier = {finding.category for finding in before}  # what goes does not come back at once
    new = _new_finding(kept, earlier, rng) if len(kept) < MOST_FINDINGS and rng.random() < NEW_SHARE else None
    if new is not None:
        kept.append(new)
        changes.append("new")
    return tuple(kept), tuple(changes)


def slots_of(finding: Finding) -> frozenset[str]:
    """Return the slots of the chest that a finding takes."""
    place = (finding.side, finding.zone, finding.kind)
    return next(option.slots for option in OPTIONS[finding.category] if (option.side, option.zone, option.kind) == place)


def _new_finding(present: Sequence[Finding], earlier: Set[str], rng: Rng) -> Finding | None:
    """Draw a finding of another class than ``earlier``, in slots that are free; None where no class fits."""
    taken = frozenset().union(*map(slots_of, present))
    for number in rng.permutation(len(CATEGORY_NAMES)):
        category = CATEGORY_NAMES[int(number)]
        free = [option for option in OPTIONS[category] if not option.slots & taken]
        if free and category not in earlier:
            option = free[int(rng.integers(len(free)))]
            return Finding(category, option.side, option.zone, round(float(rng.random()), 3), option.kind)
    return None


def indication_of(plan: StudyPlan, rng: Rng) -> str:
    """Return why a study was taken: a complaint that fits one of its findings, or any."""
    fitting = [complaint for finding in plan.findings for complaint in COMPLAINTS.get(finding.category, ())]
    choices = fitting if fitting and rng.random() < FITTING_SHARE else INDICATIONS
    return choices[int(rng.integers(len(choices)))]
