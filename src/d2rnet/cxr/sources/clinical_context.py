"""Why a radiograph was taken: indication and history of a report, and nothing of what was seen on it.

Pure functions on text; reads and writes nothing. A model that is given this text must not find the answer in it, so that

* only sections that say why count (:func:`clinical_text`): the first of each name, and its first paragraph alone, because
  findings without a header stand in a paragraph of their own behind it;
* the text ends before a header of what was seen ("Impression:") that no line begins with, so that it opened no section, and
  before its first sentence that describes an image ("The lungs are clear.");
* a text that holds a sentence of what the report describes, or tells one of its findings without a verb, is refused whole
  (:mod:`d2rnet.cxr.sources.told_findings`).

All of it errs on the side of leaving out. build_annotation asks the last once more, of the very text that is the target.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from d2rnet.cxr.sources.report_sections import FULL_REPORT, PREAMBLE, Section
from d2rnet.cxr.sources.shared_sentences import SENTENCE_END
from d2rnet.cxr.sources.told_findings import leaked

_WHY = ("indication", "history")
_WHY_WORDS = re.compile(
    r"(?:reason for (?:(?:this|the) )?(?:exam\w*|stud(?:y|ies)|ct|cxr|chest|portable|x-?rays?|radiographs?|films?|imaging|scan"
    r"|views?|test|procedure|request|order|consult\w*|referral|visit|admission)|indications?"
    r"|(?:clinical|patient|medical|relevant) (?:history|information|data)|history)\b"
)
_HOW = ("comparison", "technique", "examination", "date")  # neither why nor what was seen
_SEEN = re.compile(
    r"\b(?:findings?|impressions?|conclusions?|opinion|wet ?read(?:ing)?|preliminary (?:report|read(?:ing)?)"
    r"|addend(?:um|a))\s*:",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")
_STRUCTURES = (
    r"lungs?(?: fields?| bases?| volumes?)?|heart(?: size)?|silhouette|mediastinum|hila|contours?|angles?|structures|bones"
    r"|effusions?|pneumothorax|consolidations?|opacit(?:y|ies)|vasculature|diaphragms?|airspaces?"
)
# What only an image shows: "fever, may be pneumonia" is a doctor's, "opacity, may be pneumonia" a reader's.
_SIGNS = r"opacit(?:y|ies)|densit(?:y|ies)|markings|air ?space disease|consolidations?|cardiomegaly|atelectasis"
_MEANS = (
    r"(?:may|might|could|can) (?:also |well )?(?:represent|reflect|indicate|be (?:due|secondary|compatible|attributable))"
    r"|represents?|reflects?|appears? to represent|(?:is|are) (?:concerning for|suggestive of)"
)
_DESCRIBES = re.compile(
    rf"\b(?:{_STRUCTURES}) (?:is|are|was|were|appears?|remains?|has|have)\b|\bthere (?:is|are|has been|have been)\b"
    r"|\b(?:is|are) (?:again )?(?:seen|noted|identified|present|demonstrated|visuali[sz]ed|unchanged|unremarkable|clear|normal"
    r"|enlarged|intact)\b|\bwithin normal limits\b"
    rf"|\b(?:{_SIGNS})\b.*\b(?:{_MEANS})\b"
    rf"|^(?:the )?(?:{_STRUCTURES}) (?:clear|normal|unremarkable)\b|^(?:clear|normal|unremarkable) (?:{_STRUCTURES})\b"
    r"|^no (?:(?:acute|focal|definite|new|large|significant) |evidence of |pleural |pneumothorax|effusion|consolidation)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ClinicalText:
    """Why a radiograph was taken.

    Attributes:
        text: white space collapsed; "" where the report does not say, or the text was refused.
        is_cut: it went on to what was seen, and was cut there.
        is_refused: it held a sentence of what the report describes, or told a finding of it.
    """

    text: str = ""
    is_cut: bool = False
    is_refused: bool = False


def clinical_text(sections: Sequence[Section]) -> ClinicalText:
    """Return indication and history of a MIMIC-CXR report.

    Args:
        sections: of :func:`d2rnet.cxr.sources.report_sections.split_sections`.
    """
    whys = [section for section in sections if _says_why(section.name)]
    first_of_name = {section.name: section for section in reversed(whys) if section.text}
    found = [section for section in whys if first_of_name.get(section.name) is section]
    paragraphs = dict.fromkeys(" ".join(_PARAGRAPH.split(section.text, maxsplit=1)[0].split()) for section in found)
    described = [section.text for section in sections if not _says_why(section.name) and section.name not in _HOW]
    return checked_text(" ".join(paragraphs), described)


def checked_text(text: str, described: Iterable[str]) -> ClinicalText:
    """Cut or refuse an indication that tells what was seen.

    Args:
        text: white space collapsed.
        described: what the report describes: its findings and impression.
    """
    before = _SEEN.split(text, maxsplit=1)[0].rstrip()
    sentences = SENTENCE_END.split(before)
    place = next((place for place, sentence in enumerate(sentences) if _DESCRIBES.search(sentence)), len(sentences))
    kept = " ".join(sentences[:place])
    is_cut = before != text or place < len(sentences)
    if any(leaked(kept, part) for part in described):
        return ClinicalText(is_cut=is_cut, is_refused=True)
    return ClinicalText(kept, is_cut=is_cut)


def _says_why(name: str) -> bool:
    return name in _WHY or (name not in (PREAMBLE, FULL_REPORT) and _WHY_WORDS.match(name) is not None)
