"""Sections of a MIMIC-CXR report: find the headers, name them in one spelling, take the findings or the impression out.

Used by ``mimic`` (and nobody else: Open-i's XML names its sections itself). Pure functions on text; reads and writes nothing.

A header is a line that begins, after at most three blanks, with capitals and a colon: `` FINDINGS:``. Rules, in this order:

* a known name, also misspelt by a letter or two, or glued to the text behind the colon; the usual ones also in mixed case;
  findings and impression in capitals also behind a full stop on the same line, or alone on their line without a colon;
* a name that contains a main word: ``impression`` before ``findings``, so that "FINDINGS AND IMPRESSION" is an impression;
* a name that describes the study, such as "CHEST, TWO VIEWS": findings, unless it says why or how the study was done;
* organ names ("LUNGS:") are part of the section they stand in; any other name in capitals starts a section of its own;
* a usual name between marks of Markdown or HTML ("**Findings:**", "## Findings", "[FINDINGS]"), in any case;
* only where all this names neither findings nor impression: headers at any indent, and usual names in any case that are
  numbered, quoted, in a table, before a dash, full stop, semicolon or equals sign, alone on their line, with a word or two
  before them ("Radiographic findings:"), or in capitals anywhere before a colon.

What transport does to a text is undone by :mod:`d2rnet.cxr.sources.report_lines`, character for character.

Source of the facts: header spellings met in MIMIC-CXR 2.0.0 as listed by the MIT-LCP mimic-cxr code. Differs: its "ndication"
counts as indication (there: impression), organ headers do not end the findings, and headers that MIMIC-CXR does not have
(mixed and lower case, Markdown) are understood.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from d2rnet.cxr.sources.mimic_exceptions import MIMIC_EXCEPTIONS, Exceptions
from d2rnet.cxr.sources.report_lines import restored

PREAMBLE = "preamble"
FULL_REPORT = "full report"

_SPELLINGS = {
    "findings": ("finding", "finding(s)", "reference findings"),
    "impression": ("impressions", "conclusion", "conclusions", "findings and impression", "findings/impression", "opinion",
                   "impr"),
    "comparison": ("comparisons", "comparison exam", "comparison film", "comparison study", "reference exam"),
    "indication": ("indications", "clinical indication", "reason for exam", "reason for examination", "reason for study",
                   "reason for this examination"),
    "history": ("clinical history", "clinical information", "patient history", "medical history", "pfi"),
    "examination": ("exam", "type of examination", "type of exam", "study"),
    "technique": ("procedure",),
    "recommendations": ("recommendation", "recommendation(s)"),
    "wet read": ("wetread", "wet reading", "wet reading and preliminary report"),
    "addendum": ("addenda",),
    "notification": ("notifications",),
    "note": (), "comment": (), "date": (),
}  # fmt: skip
_KNOWN = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)}
_USUAL = ("findings", "impression", "comparison", "indication", "history", "examination", "technique", "recommendations")
_MAIN = ("findings", "impression")
_MAIN_WORDS = ("impression", "findings", "history", "comparison", "addendum")
_WHY_OR_HOW = re.compile(r"(type of|clinical|indication|reason|technique|exam|examination|procedure|recommendations?|note)\b")
_VIEW = re.compile(
    r"\b(chest|portable|ribs?|bone windows?|(one|two|three|four|single|1|2|3|4) views?|(frontal|lateral|pa|ap) views?"
    r"|(pa|ap|frontal|lateral) (and|&) (pa|ap|lat|lateral|frontal)|frontal (and|upright|semi-?upright))\b"
)
_ORGAN_WORDS = frozenset({
    "airway", "airways", "and", "bone", "bones", "bony", "cardiac", "cardiomediastinal", "catheters", "contour", "contours",
    "devices", "diaphragm", "heart", "hila", "hilar", "hilum", "lines", "lung", "lungs", "mediastinal", "mediastinum", "other",
    "osseous", "pleura", "pleural", "pulmonary", "silhouette", "soft", "space", "spaces", "structures", "support", "tissues",
    "tubes", "vasculature", "vessels",
})  # fmt: skip

_NAME = r"[A-Z][A-Za-z0-9 ()/,&'_+-]{0,79}?"
_COLON = "[:\uff1a]"  # the second is full-width
_MARK = r"(?:\*{1,3}|(?<!_)__(?!_)|[\[\]{}]|={2,}|<<|>>|</?(?:b|strong|u|h[1-6])>)"  # MIMIC-CXR's ___ is none
_ITEM = r"(?:>|[-*\u2022]|\(?(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)])[ \t]*"  # "> ", "- ", "1. ", "(ii) ", "A) "
_USUAL_SPELLINGS = sorted((spelling for spelling, name in _KNOWN.items() if name in _USUAL), key=len, reverse=True)
_USUAL_WORDS = "|".join(r"[ \t]+".join(map(re.escape, spelling.split())) for spelling in _USUAL_SPELLINGS)
_USUAL_NAME = f"(?i:{_USUAL_WORDS})"
_CAPITAL_NAME = "|".join(r"[ \t]+".join(map(re.escape, spelling.upper().split())) for spelling in _USUAL_SPELLINGS)
_CANDIDATE = re.compile(
    rf"^[ \t]{{0,3}}(?P<line>{_NAME})[ \t]*{_COLON}"  # a header at the start of a line
    r"|(?<=[.?!_)])[ \t]+(?P<inline>FINDINGS|IMPRESSION)[ \t]*:"  # two sections on one line
    rf"|^[ \t]*(?P<underlined>{_USUAL_NAME})[ \t]*\r?\n[ \t]*[-=~]{{3,}}[ \t\r]*$"
    r"|^[ \t]{0,3}(?P<bare>FINDINGS|IMPRESSION)[ \t\r]*$"  # a header without its colon
    rf"|^[ \t]*{_ITEM}(?P<item>FINDINGS|IMPRESSION)[ \t]*{_COLON}"
    rf"|{_MARK}(?P<marked>{_USUAL_NAME})[ \t]*(?:{_COLON}[ \t]*{_MARK}|{_MARK}[ \t]*{_COLON})"
    rf"|^[ \t]*(?:#{{1,6}}[ \t]*)?{_MARK}[ \t]*(?P<set_off>{_USUAL_NAME})[ \t]*{_COLON}?[ \t]*{_MARK}[ \t]*{_COLON}?"
    rf"|<(?P<tag>{_USUAL_NAME})>"  # of XML
    rf"|^[ \t]*#{{1,6}}[ \t]*(?P<heading>{_USUAL_NAME})[ \t]*(?:{_COLON}|\r?$)",
    re.MULTILINE,
)
_INFORMAL = re.compile(
    rf"^[ \t]*(?P<line>{_NAME})[ \t]*{_COLON}"
    rf"|^[ \t]*(?:{_ITEM}|\|[ \t]*)?{_MARK}?(?P<usual>{_USUAL_NAME})[ \t]*"
    rf"(?:{_COLON}|[-=]+>?(?=[ \t\r]|$)|[\u2013\u2014|]|(?P<alone>;|\.(?=[ \t\r]|$)|\r?$))"
    rf"|(?<=[.?!_)])[ \t]+(?P<inline>{_USUAL_NAME})[ \t]*{_COLON}"
    rf"|(?<=[ \t])(?P<capitals>{_CAPITAL_NAME})[ \t]*{_COLON}",
    re.MULTILINE,
)
_ABOUT = re.compile(r"(?:[A-Z][a-z]+[ \t]+){1,2}(?P<name>findings|impression)", re.IGNORECASE)  # "Radiographic findings"
_TITLE_LINE = re.compile(
    r"^[ \t]*(final report|final addendum|wet read version.*|preliminary report)[ \t\r]*$", re.MULTILINE | re.IGNORECASE
)

# Around a body: a colon on a line of its own, the frame of a table, what stood before the next header on its line.
_STRAY = re.compile(
    rf"^(?:{_COLON}|\||=)[ \t]*|(?:^|\n)[ \t]*(?:[-*\u2022>#]|\(?\d{{1,3}}[.)]?|\[[\d :./T-]{{4,40}}\])[ \t]*$|[ \t]*\|$"
)


@dataclass(frozen=True)
class Section:
    """One section of a report.

    Attributes:
        name: normalised, such as ``findings``; ``preamble`` is what stands before the first header, ``full report`` a text
            without any header; headers without a common meaning keep their own words in lower case.
        start: index of the section's first character in the report, behind the header.
        end: index behind its last character.
        text: ``report[start:end]`` without title lines such as "FINAL REPORT" and without white space at its ends.
    """

    name: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Header:
    """A header: the section that it opens, [start, end) of its own characters, and whether it names findings or impression."""

    name: str
    start: int
    end: int
    is_main: bool = False


def split_sections(text: str) -> list[Section]:
    """Split a report at its headers.

    Args:
        text: the whole report.

    Returns:
        Sections in the order of the text, a preamble first if anything stands before the first header. A text without any
        header is one section, ``full report``.
    """
    text = restored(text)  # one character for one: indices hold for both
    headers = _headers(text)
    if not headers:
        return [_section(FULL_REPORT, text, 0, len(text))]
    ends = [header.start for header in headers[1:]] + [len(text)]
    sections = [_section(header.name, text, header.end, end) for header, end in zip(headers, ends, strict=True)]
    preamble = _section(PREAMBLE, text, 0, headers[0].start)
    return [preamble, *sections] if preamble.text else sections


def extract_section(
    text: str,
    wanted: str,
    study_id: str | None = None,
    *,
    exceptions: Exceptions = MIMIC_EXCEPTIONS,
    sections: Sequence[Section] | None = None,
) -> str | None:
    """Return the text of the wanted section, white space collapsed to single blanks.

    The last section of that name that is not empty wins: addenda repeat the report, and a title such as "CHEST, PA AND
    LATERAL:" counts as (empty) findings. A text without any header is findings as a whole, less its title line.

    Args:
        text: the whole report.
        wanted: ``findings`` or ``impression``.
        study_id: digits of the study's id; looked up in ``exceptions`` for findings.
        exceptions: studies whose findings are found by hand.
        sections: of the report, where it is split already.

    Returns:
        The text, or None where the report has none.
    """
    exception = exceptions.get(study_id) if study_id is not None and wanted == "findings" else None
    if exception is not None and exception.section is None:
        return _collapse(text.replace("\r\n", "\n")[exception.start : exception.end])
    name = wanted if exception is None or exception.section is None else exception.section
    sections = split_sections(text) if sections is None else sections
    if sections[0].name == FULL_REPORT and wanted == "findings":
        return _collapse(sections[0].text)
    found = [section.text for section in sections if section.name == name and section.text]
    return _collapse(found[-1]) if found else None


@lru_cache(maxsize=65536)
def normalise_header(header: str) -> str | None:
    """Return the section that a header in capitals opens, or None where it is part of the section it stands in.

    Args:
        header: the words before the colon, in any case.
    """
    words = re.sub(r"\s*/\s*", "/", " ".join(header.lower().split()))
    if sum(map(str.isalpha, words)) < 3 or words == "upper abdomen" or _ORGAN_WORDS.issuperset(re.findall("[a-z]+", words)):
        return None
    if words in _KNOWN:
        return _KNOWN[words]
    misspelt = difflib.get_close_matches(words, _USUAL, n=1, cutoff=0.84)
    if misspelt:
        return misspelt[0]
    for word in _MAIN_WORDS:
        if word in words:
            return word
    if _VIEW.search(words) and not _WHY_OR_HOW.match(words):
        return "findings"
    return words


def _headers(text: str) -> list[_Header]:
    """Find the headers, in order; informal ones where the formal ones name neither findings nor impression."""
    formal = [header for match in _CANDIDATE.finditer(text) if (header := _formal(text, match))]
    if any(header.is_main for header in formal):
        return formal
    informal = [header for match in _INFORMAL.finditer(text) if (header := _informal(text, match))]
    if not any(header.name in _MAIN for header in informal):
        return formal
    added = [new for new in informal if all(new.end <= old.start or old.end <= new.start for old in formal)]
    return sorted([*formal, *added], key=lambda header: header.start)


def _formal(text: str, match: re.Match[str]) -> _Header | None:
    if match["line"] is not None:
        return _line_header(text, match)
    name = _KNOWN[_words(match[str(match.lastgroup)])]
    return _Header(name, match.start(), match.end(), is_main=name in _MAIN and match.lastgroup != "inline")


def _informal(text: str, match: re.Match[str]) -> _Header | None:
    if match["line"] is not None:
        about = _ABOUT.fullmatch(match["line"].strip())
        return _Header(about["name"].lower(), match.start(), match.end()) if about else _line_header(text, match)
    words = match["usual"] or match["inline"] or match["capitals"]
    line_before = text[text.rfind("\n", 0, max(0, match.start() - 1)) + 1 : match.start()]
    if match["alone"] is not None and words[0].islower() and line_before.strip():
        return None  # the last word of a sentence, on a line of its own
    return _Header(_KNOWN[_words(words)], match.start(), match.end())


def _line_header(text: str, match: re.Match[str]) -> _Header | None:
    """Read words before a colon; mixed case or glued text is a header only where the name is a usual one."""
    header = match["line"]
    is_spaced = text[match.end() : match.end() + 1] in ("", " ", "\t", "\n", "\r")
    if header == header.upper() and is_spaced:
        name = normalise_header(header)
    else:
        known = _KNOWN.get(_words(header))
        name = known if known in _USUAL else None
    if name is None:
        return None
    is_title = name == "findings" and _VIEW.search(_words(header)) is not None
    return _Header(name, match.start(), match.end(), is_main=name in _MAIN and not is_title)


def _words(header: str) -> str:
    return " ".join(header.lower().split())


def _section(name: str, text: str, start: int, end: int) -> Section:
    body = _STRAY.sub("", _TITLE_LINE.sub("", text[start:end]).strip()).strip()
    if body.endswith("**") and body.count("**") % 2:  # "**Findings: clear.**"
        body = body[:-2].rstrip()
    return Section(name, start, end, body)


def _collapse(text: str) -> str | None:
    return " ".join(text.split()) or None
