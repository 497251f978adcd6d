"""Radiology reports of the demo cohort, in the layout of MIMIC-CXR's report files.

The findings section says what is there, on which side, in which zone and how large, in varied wording, and adds normal
sentences about structures without a finding. The patient's left is on the right of the picture.

Reads and writes: nothing. The texts are own work; the section headers and their traps follow facts of the MIMIC-CXR reports.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from d2rnet.cxr.demo.findings import Finding
from d2rnet.cxr.demo.wording import CHANGE_WORDS, FINDING_TEMPLATES, INDICATIONS, NORMAL_SENTENCES

Rng = np.random.Generator
HEADER_VARIANTS: Mapping[str, float] = {
    "plain": 0.80,
    "impression_only": 0.04,  # no findings section: such a study is left out and counted
    "findings_and_impression": 0.03,  # one combined section, which counts as impression
    "views_header": 0.06,  # the findings stand under "CHEST, TWO VIEWS:"
    "addendum": 0.04,  # two findings sections: the last one wins
    "no_header": 0.03,  # the whole text is the report
}

WORDING_SHARES = (0.6, 0.2, 0.12, 0.08)  # of the four wordings of a finding, the usual one first

_COMPARES = re.compile(r"\b(?:unchanged|stable|persists|remains|chronic|acute|increased|prior)\b", re.IGNORECASE)
_KINDS = {"nodule": "Nodule", "mass": "Mass", "device": "Device", "hernia": "Hernia"}

_PLEURA = ("Pleural effusion", "Pleural thickening", "Pneumothorax")
_MEDIASTINUM = ("Aortic enlargement", "Enlarged PA", "Mediastinal shift")
_BONES = ("Rib fracture", "Clavicle fracture")
_ORDER = ("lungs", "pleura", "heart", "mediastinum", "bones", "device")


@dataclass(frozen=True)
class Report:
    """The two sections of a report: sentences joined by single spaces."""

    findings: str
    impression: str


@dataclass(frozen=True)
class Told:
    """What a report with follow-ups tells beside its sections: why it was taken, and whether there is a study before."""

    indication: str
    is_follow_up: bool


def _place(finding: Finding) -> str:
    """Which part of the report a finding belongs to."""
    if finding.category in _PLEURA:
        return "pleura"
    if finding.category in _BONES:
        return "bones"
    if finding.category == "Cardiomegaly":
        return "heart"
    if finding.category in _MEDIASTINUM or finding.kind == "hernia":
        return "mediastinum"
    return "device" if finding.kind == "device" else "lungs"


def finding_sentence(finding: Finding, rng: Rng) -> str:
    """Say one finding in one of its wordings: mostly the usual one, as dictated reports do."""
    templates = FINDING_TEMPLATES[_KINDS.get(finding.kind, finding.category)]
    size = finding.size_word
    return templates[int(rng.choice(len(templates), p=WORDING_SHARES))].format(
        side=finding.side, Side=finding.side.capitalize(), zone=finding.zone, size=size, Size=size.capitalize()
    )


def changed_sentence(finding: Finding, change: str, rng: Rng) -> str:
    """Say one finding and how it has changed, in a wording that says nothing of a change by itself.

    Args:
        finding: of a later study.
        change: a key of CHANGE_WORDS.
        rng: chooses the wording.
    """
    while _COMPARES.search(sentence := finding_sentence(finding, rng)):
        pass
    words = CHANGE_WORDS[change]
    return f"{sentence[:-1]}, {words[int(rng.integers(len(words)))]}."


def _normal_sentence(place: str, findings: Sequence[Finding], rng: Rng) -> str | None:
    """A normal sentence about a place, None where it would contradict a finding."""
    categories = {finding.category for finding in findings}
    if place == "pleura" and categories & {"Pleural effusion", "Pneumothorax"}:
        if {"Pleural effusion", "Pneumothorax"} <= categories:
            return None
        return "There is no pneumothorax." if "Pleural effusion" in categories else "There is no pleural effusion."
    if any(_place(finding) == place for finding in findings):
        return None
    choices = NORMAL_SENTENCES[place]
    return choices[int(rng.integers(len(choices)))]


def write_report(findings: Sequence[Finding], rng: Rng, changes: Sequence[str] = ()) -> Report:
    """Write findings (3 to 7 sentences, lungs first, bones last) and impression of one study.

    Args:
        findings: what it shows.
        rng: chooses the wording.
        changes: of a follow-up, how each finding has changed.
    """
    by_place: dict[str, list[str]] = {place: [] for place in _ORDER}
    for number, finding in enumerate(findings):
        sentence = changed_sentence(finding, changes[number], rng) if changes else finding_sentence(finding, rng)
        by_place[_place(finding)].append(sentence)
    normal = {place: text for place in _ORDER[:5] if (text := _normal_sentence(place, findings, rng)) is not None}
    wanted = 4 if not findings else max(3 - len(findings), 1)
    kept = set(rng.permutation(sorted(normal))[:wanted].tolist())
    if not findings:
        kept.add("lungs")
    sentences: list[str] = []
    for place in _ORDER:
        sentences += by_place[place] + ([normal[place]] if place in kept else [])
    return Report(" ".join(sentences), _impression(findings, rng))


def _impression(findings: Sequence[Finding], rng: Rng) -> str:
    if not findings:
        choices = ("No acute cardiopulmonary process.", "No acute cardiopulmonary abnormality.", "Normal chest radiograph.")
        return choices[int(rng.integers(len(choices)))]
    return " ".join(finding_sentence(finding, rng) for finding in findings)


def header_variants(count: int, rng: Rng) -> list[str]:
    """Deal header variants to ``count`` reports: the shares of HEADER_VARIANTS, rounded down, the rest plain."""
    names = [name for name, share in HEADER_VARIANTS.items() if name != "plain" for _ in range(int(share * count))]
    names += ["plain"] * (count - len(names))
    return [names[i] for i in rng.permutation(count)]


def format_report(report: Report, variant: str, view_names: Sequence[str], rng: Rng, told: Told | None = None) -> str:
    """Lay a report out as a MIMIC-CXR text file, wrapped at 80 columns.

    Args:
        report: its two sections.
        variant: a key of HEADER_VARIANTS.
        view_names: views of the study, such as ``["PA", "LATERAL"]``.
        rng: chooses indication and header spelling.
        told: why it was taken, and whether there is a study before; None draws both at random.
    """
    two_views = len(view_names) > 1
    views = " and ".join(view if view in ("PA", "AP") else view.lower() for view in view_names)
    person = "woman" if rng.random() < 0.5 else "man"
    complaint = INDICATIONS[int(rng.integers(len(INDICATIONS)))] if told is None else told.indication
    indication = f"___ year old {person} with {complaint}. Evaluate the patient\u2019s chest."
    sections = [
        ("EXAMINATION", f"CHEST ({views.upper()})"),
        (("INDICATION", "HISTORY", "REASON FOR EXAM")[int(rng.integers(3))], indication),
        ("TECHNIQUE", f"{views[0].upper()}{views[1:]} view{'s' if two_views else ''} of the chest."),
        ("COMPARISON", "___." if (rng.random() < 0.6 if told is None else told.is_follow_up) else "None."),
    ]
    views_header = "CHEST, TWO VIEWS" if two_views else "CHEST, SINGLE VIEW"
    match variant:
        case "no_header":
            return _wrapped("FINAL REPORT", width=0) + _wrapped(report.findings)
        case "impression_only":
            sections.append(("IMPRESSION", report.impression))
        case "findings_and_impression":
            sections.append(("FINDINGS AND IMPRESSION", report.findings))
        case "views_header":
            sections += [(views_header, report.findings), ("IMPRESSION", report.impression)]
        case "addendum":
            sections += [
                ("FINDINGS", "Preliminary reading, see below."),
                ("FINDINGS", report.findings),
                ("IMPRESSION", report.impression),
            ]
        case _:
            sections += [("FINDINGS", report.findings), ("IMPRESSION", report.impression)]
    body = "".join(_section(header, text) for header, text in sections)
    return _wrapped("FINAL REPORT", width=0) + body


def _section(header: str, text: str) -> str:
    if len(header) + len(text) < 76 and header not in ("FINDINGS", "IMPRESSION"):
        return f" {header}:  {text}\n \n"
    return f" {header}: \n \n" + _wrapped(text)


def _wrapped(text: str, width: int = 79) -> str:
    if not width:
        return f"{text:>44}\n"
    filled = textwrap.fill(text, width, initial_indent=" ", subsequent_indent=" ", break_on_hyphens=False)
    return filled + "\n \n"
