"""Header rules of MIMIC-CXR reports, on hand-written reports (no patient data)."""

import itertools
from pathlib import Path

import pytest

from d2rnet.cxr.sources.mimic_exceptions import MIMIC_EXCEPTIONS, SectionException, read_exceptions
from d2rnet.cxr.sources.report_sections import extract_section, normalise_header, split_sections
from d2rnet.errors import DatasetError

TITLE = "                                 FINAL REPORT\n"
CLEAR = "The lungs are clear."
NORMAL = "No acute process."

# name -> (report, findings, impression)
REPORTS: dict[str, tuple[str, str | None, str | None]] = {
    "full set of headers": (
        TITLE + " EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___ year old woman with cough  // pneumonia?\n \n"
        " TECHNIQUE:  Chest PA and lateral\n \n COMPARISON:  ___\n \n FINDINGS: \n \n The lungs are clear. Heart size is\n"
        " normal.\n \n IMPRESSION: \n \n No acute process.\n",
        "The lungs are clear. Heart size is normal.", NORMAL,
    ),
    "text on the header's line": (f" FINDINGS:  {CLEAR}\n\n IMPRESSION:  {NORMAL}\n", CLEAR, NORMAL),
    "findings only": (f"{TITLE} FINDINGS: {CLEAR}\n", CLEAR, None),
    "impression only": (f"{TITLE} INDICATION: Fever.\n \n IMPRESSION: {NORMAL}\n", None, NORMAL),
    "neither": (f"{TITLE} INDICATION: Fever.\n \n COMPARISON: None.\n \n {CLEAR}\n", None, None),
    "no header at all": (f"{TITLE} Portable AP film.\n {CLEAR}\n", f"Portable AP film. {CLEAR}", None),
    "no header, no title": (f"{CLEAR}  {NORMAL}", f"{CLEAR} {NORMAL}", None),
    "empty file": ("", None, None),
    "blank file": (" \n \n\t\n", None, None),
    "title alone": (TITLE, None, None),
    "last findings win": (
        f" FINDINGS: Large effusion.\n\n IMPRESSION: Effusion.\n\n ADDENDUM: Dictated anew.\n\n FINDINGS: {CLEAR}\n\n"
        f" IMPRESSION: {NORMAL}\n", CLEAR, NORMAL,
    ),
    "empty last findings lose": (f" FINDINGS: {CLEAR}\n\n FINDINGS:\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "only empty findings": (f" FINDINGS: \n \n IMPRESSION: {NORMAL}\n", None, NORMAL),
    "findings and impression in one": (f" FINDINGS AND IMPRESSION: {NORMAL}\n", None, NORMAL),
    "findings/impression": (f" FINDINGS/IMPRESSION: {NORMAL}\n", None, NORMAL),
    "findings / impression": (f" FINDINGS / IMPRESSION: {NORMAL}\n", None, NORMAL),
    "impression and findings": (f" IMPRESSION AND FINDINGS: {NORMAL}\n", None, NORMAL),
    "impression and recommendation": (f" IMPRESSION AND RECOMMENDATION: {NORMAL}\n", None, NORMAL),
    "conclusion": (f" FINDINGS: {CLEAR}\n\n CONCLUSION: {NORMAL}\n", CLEAR, NORMAL),
    "chest, two views": (f"{TITLE} CHEST, TWO VIEWS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "study title is no findings": (
        f" CHEST, PA AND LATERAL:\n \n HISTORY: Cough.\n \n FINDINGS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL,
    ),
    "title below the findings header": (
        f" FINDINGS:\n PORTABLE CHEST: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL,
    ),
    "ap portable view": (f" INDICATION: Tube.\n \n AP PORTABLE VIEW OF THE CHEST: {CLEAR}\n", CLEAR, None),
    "pa & lateral": (f" PA & LATERAL VIEWS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "digits in the title": (f" CHEST, 2 VIEWS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "blanked date in the title": (f" CHEST RADIOGRAPH, ___: {CLEAR}\n", CLEAR, None),
    "ribs": (f" LEFT RIBS: No fracture.\n\n IMPRESSION: {NORMAL}\n", "No fracture.", NORMAL),
    "reason naming the chest": (f" REASON FOR CHEST RADIOGRAPH: Fever.\n\n IMPRESSION: {NORMAL}\n", None, NORMAL),
    "technique naming views": (f" TECHNIQUE: PA and lateral views.\n\n FINDINGS: {CLEAR}\n", CLEAR, None),
    "misspelt findings": (f" FINIDNGS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "findings cut short": (f" FINDNGS: {CLEAR}\n\n IMPRESSON: {NORMAL}\n", CLEAR, NORMAL),
    "impression without its I": (f" FINDING: {CLEAR}\n\n MPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "misspelt indication": (f" NDICATION: Fever.\n\n FINDINGS: {CLEAR}\n", CLEAR, None),
    "mixed case": (f" Findings:  {CLEAR}\n\n Impression:  {NORMAL}\n", CLEAR, NORMAL),
    "mixed case of a rare word stays text": (
        f" FINDINGS: {CLEAR}\n Note: skin folds on the left.\n", f"{CLEAR} Note: skin folds on the left.", None,
    ),
    "sentence with a colon": (
        " FINDINGS: Two lines end\n in the SVC: both are unchanged. Time: 5:30.\n",
        "Two lines end in the SVC: both are unchanged. Time: 5:30.", None,
    ),
    "no blank behind the colon": (f" FINDINGS:{CLEAR}\n\n IMPRESSION:1. {NORMAL}\n", CLEAR, f"1. {NORMAL}"),
    "blank before the colon": (f" FINDINGS : {CLEAR}\n\n IMPRESSION : {NORMAL}\n", CLEAR, NORMAL),
    "no colon": (f" FINDINGS\n {CLEAR}\n\n IMPRESSION\n {NORMAL}\n", CLEAR, NORMAL),
    "word in capitals inside the text": (
        f" FINDINGS: See IMPRESSION below. {CLEAR}\n", f"See IMPRESSION below. {CLEAR}", None,
    ),
    "two headers on one line": (f" COMPARISON: None. FINDINGS: {CLEAR} IMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "second header inside a later line": (
        f" COMPARISON: Film of ___,\n unchanged. FINDINGS: {CLEAR}\n", CLEAR, None,
    ),
    "organ headers": (
        f" FINDINGS:\n\n LUNGS: Clear.\n HEART: Normal.\n BONES AND SOFT TISSUES: Intact.\n\n IMPRESSION: {NORMAL}\n",
        "LUNGS: Clear. HEART: Normal. BONES AND SOFT TISSUES: Intact.", NORMAL,
    ),
    "chest and abdomen": (
        f" CHEST: {CLEAR}\n\n ABDOMEN: Free air.\n\n IMPRESSION: Free air.\n", CLEAR, "Free air.",
    ),
    "unknown header ends the findings": (f" FINDINGS: {CLEAR}\n\n DOSE REPORT: 0.1 mSv.\n", CLEAR, None),
    "recommendations end the impression": (f" IMPRESSION: {NORMAL}\n\n RECOMMENDATION(S): CT.\n", None, NORMAL),
    "notification ends the impression": (f" IMPRESSION: {NORMAL}\n\n NOTIFICATION: By phone.\n", None, NORMAL),
    "wet read first": (
        f" WET READ: ___ 9:33 PM\n Probably normal.\n{TITLE} FINDINGS: {CLEAR}\n\n IMPRESSION: {NORMAL}\n", CLEAR, NORMAL,
    ),
    "reference findings": (f" REFERENCE FINDINGS: {CLEAR}\n", CLEAR, None),
    "CRLF line ends": (f" FINDINGS:\r\n \r\n The lungs\r\n are clear.\r\n \r\n IMPRESSION: {NORMAL}\r\n", CLEAR, NORMAL),
    "CRLF behind a title": (f"          FINAL REPORT\r\n {CLEAR}\r\n", CLEAR, None),
    "CRLF behind headers without a colon": (f" FINDINGS\r\n {CLEAR}\r\n IMPRESSION\r\n {NORMAL}\r\n", CLEAR, NORMAL),
    "no indent": (f"FINDINGS: {CLEAR}\n\nIMPRESSION: {NORMAL}\n", CLEAR, NORMAL),
    "deep indent is no header": (f" FINDINGS: {CLEAR}\n          SIGNED: ___\n", f"{CLEAR} SIGNED: ___", None),
    "non-ASCII text": (" FINDINGS: Kerley\u2019s lines at 37\u00b0, \u00e9panchement\u2011free.\n",
                       "Kerley\u2019s lines at 37\u00b0, \u00e9panchement\u2011free.", None),
    "anonymised header words": (
        f" INDICATION: ___M with ___, evaluate.\n \n FINDINGS: ___ tube. {CLEAR}\n", f"___ tube. {CLEAR}", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_report(name: str) -> None:
    report, findings, impression = REPORTS[name]
    assert extract_section(report, "findings") == findings
    assert extract_section(report, "impression") == impression


# Headers as other hospitals, exports and dictation systems write them: all say the same two sections.
OTHER_HEADERS: dict[str, str] = {
    "CR line ends": f"{TITLE[:-1]}\r EXAM:  CHEST\r\r FINDINGS: {CLEAR}\r\r IMPRESSION: {NORMAL}\r",
    "CR and lower case": f"indication: cough\rfindings: {CLEAR}\rimpression: {NORMAL}\r",
    "form feeds": f"INDICATION: cough\x0cFINDINGS: {CLEAR}\x0cIMPRESSION: {NORMAL}\x0c",
    "line separators": f"INDICATION: cough\u2028FINDINGS: {CLEAR}\x85IMPRESSION: {NORMAL}",
    "byte-order marks": f"\ufeffINDICATION: cough\n\ufeffFINDINGS: {CLEAR}\nIMPRESSION: {NORMAL}\n",
    "no-break spaces": f"\xa0FINDINGS\xa0:\xa0{CLEAR}\n\xa0IMPRESSION:\xa0{NORMAL}\n",
    "full-width colon": f"FINDINGS\uff1a{CLEAR}\nImpression\uff1a{NORMAL}\n",
    "lower case": f" final report\n indication:  cough\n\n findings:\n\n {CLEAR}\n\n impression:\n\n {NORMAL}\n",
    "lower case below a title": f" CHEST, TWO VIEWS:\n findings: {CLEAR}\n conclusion: {NORMAL}\n",
    "deep indent": f"        EXAM: CHEST\n\n        FINDINGS:\n\n        {CLEAR}\n        IMPRESSION: {NORMAL}\n",
    "deep indent, mixed case": f"\t\tFindings: {CLEAR}\n\t\tImpression: {NORMAL}\n",
    "bold": f" INDICATION: cough\n **FINDINGS:**\n {CLEAR}\n\n **IMPRESSION:**\n {NORMAL}\n",
    "bold, colon outside": f"**Findings**: {CLEAR}\n\n**Impression**: {NORMAL}\n",
    "bold, no colon": f"**Findings**\n{CLEAR}\n\n**Impression**\n{NORMAL}\n",
    "bold on one line": f"**FINDINGS:** {CLEAR} **IMPRESSION:** {NORMAL}",
    "bold paragraphs": f"**Findings: {CLEAR}**\n\n**Impression: {NORMAL}**\n",
    "underscores": f"__Findings__\n{CLEAR}\n__Impression__\n{NORMAL}\n",
    "headings": f"# Chest\n\n## Indication\nCough.\n\n## Findings\n{CLEAR}\n\n## Impression\n{NORMAL}\n",
    "bold headings": f"## **Findings**\n{CLEAR}\n\n### **Impression:**\n{NORMAL}\n",
    "heading beside plain headers": f" INDICATION: cough\n## Findings:\n {CLEAR}\n IMPRESSION: {NORMAL}\n",
    "underlined headings": f"Findings\n--------\n{CLEAR}\n\nIMPRESSION\n==========\n{NORMAL}\n",
    "HTML": f"<b>FINDINGS:</b> {CLEAR}\n<h2>Impression</h2>\n{NORMAL}\n",
    "brackets": f"[FINDINGS]\n{CLEAR}\n[IMPRESSION]\n{NORMAL}\n",
    "dash": f"Indication - cough\nFindings - {CLEAR}\nImpression - {NORMAL}\n",
    "en dash": f"FINDINGS \u2013 {CLEAR}\nIMPRESSION \u2013 {NORMAL}\n",
    "numbered": f"1. Indication: cough\n2. Findings: {CLEAR}\n3. Impression: {NORMAL}\n",
    "numbered capitals": f"1. INDICATION: cough\n2. FINDINGS: {CLEAR}\n3. IMPRESSION: {NORMAL}\n",
    "Roman numbers": f"I. Findings\n{CLEAR}\nII. Impression\n{NORMAL}\n",
    "items": f"- Findings: {CLEAR}\n- Impression: {NORMAL}\n",
    "quoted": f"> FINDINGS: {CLEAR}\n> IMPRESSION: {NORMAL}\n",
    "alone": f"Indication\nCough\n\nFindings\n{CLEAR}\n\nImpression\n{NORMAL}\n",
    "alone, lower case": f"indication\ncough\n\nfindings\n{CLEAR}\n\nimpression\n{NORMAL}\n",
    "line ends lost": f"EXAM: CHEST INDICATION: cough FINDINGS: {CLEAR} IMPRESSION: {NORMAL}",
    "line ends lost, lower case": f"exam: chest. indication: cough. findings: {CLEAR} impression: {NORMAL}",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_HEADERS)
def test_headers_that_mimic_does_not_have(name: str) -> None:
    report = OTHER_HEADERS[name]
    assert extract_section(report, "findings") == CLEAR
    assert extract_section(report, "impression") == NORMAL


@pytest.mark.parametrize(
    "report",
    [
        f"Portable film shows\nfindings\nof edema. {CLEAR}",  # a word on its own line
        f"Chest film. INDICATION: cough. {CLEAR}",  # neither findings nor impression is named: nothing is cut off
        f"Findings are unchanged. {CLEAR}",
        f"___ Findings ___ {CLEAR}",  # ___ is where a name was taken out, no mark
    ],
)
def test_words_that_are_no_headers(report: str) -> None:
    assert [section.name for section in split_sections(report)] == ["full report"]
    assert extract_section(report, "findings") == " ".join(report.split())


def test_informal_findings_are_not_looked_for_beside_formal_ones() -> None:
    report = f" IMPRESSION: CT shows these\n findings: nodule.\n - Findings - stable. {NORMAL}\n"
    assert extract_section(report, "findings") is None
    assert extract_section(report, "impression") == f"CT shows these findings: nodule. - Findings - stable. {NORMAL}"
    assert extract_section(f" FINDINGS AND IMPRESSION: {NORMAL}\n findings: x", "findings") is None


def test_enough_reports() -> None:
    assert len(REPORTS) >= 40


@pytest.mark.parametrize("name", REPORTS)
def test_sections_are_slices_in_order(name: str) -> None:
    report = REPORTS[name][0]
    sections = split_sections(report)
    assert all(section.text in report for section in sections if "FINAL" not in report)
    assert all(before.end <= after.start for before, after in itertools.pairwise(sections))
    assert sections[-1].end == len(report)


def test_split_sections_names_and_places() -> None:
    report = "FINAL REPORT\n HISTORY:  Cough.\n\n FINDINGS:  Clear.\n"
    sections = split_sections(report)
    assert [(section.name, section.text) for section in sections] == [("history", "Cough."), ("findings", "Clear.")]
    assert report[sections[1].start : sections[1].end] == "  Clear.\n"
    assert [section.name for section in split_sections("Seen by Dr. ___.\n FINDINGS: Clear.")] == ["preamble", "findings"]
    assert [section.name for section in split_sections("Clear.")] == ["full report"]


@pytest.mark.parametrize(
    ("header", "section"),
    [
        ("COMPARISON EXAM", "comparison"), ("COMPARISONN", "comparison"), ("CLINICAL INFORMATION", "history"),
        ("TYPE OF EXAMINATION", "examination"), ("EXAM", "examination"), ("CLINICAL INDICATION", "indication"),
        ("WET  READ", "wet read"), ("PORTABLE SEMI-UPRIGHT RADIOGRAPH", "findings"), ("BONE WINDOWS", "findings"),
        ("FRONTAL AND LATERAL RADIOGRAPHS", "findings"), ("CHEST EXAMINATION", "findings"),
        ("EXAMINATION OF THE CHEST", "examination of the chest"), ("LINES/TUBES", None), ("UPPER ABDOMEN", None), ("L", None),
        ("ABDOMEN", "abdomen"), ("MEDICATIONS", "medications"), ("NOTIFICATION", "notification"),
    ],
)  # fmt: skip
def test_normalise_header(header: str, section: str | None) -> None:
    assert normalise_header(header) == section


def test_built_in_exceptions_have_the_published_sizes() -> None:
    by_section = [study for study, exception in MIMIC_EXCEPTIONS.items() if exception.section]
    assert (len(by_section), len(MIMIC_EXCEPTIONS)) == (23, 54)
    assert sum(exception == SectionException() for exception in MIMIC_EXCEPTIONS.values()) == 8


def test_exceptions_decide_the_findings() -> None:
    report = " INDICATION: Heart is large.\n\n FINDINGS: See above.\n\n IMPRESSION: Large heart.\n"
    exceptions = {
        "1": SectionException(section="indication"),
        "2": SectionException(start=13, end=28),
        "3": SectionException(),
    }
    found = {study: extract_section(report, "findings", study, exceptions=exceptions) for study in "1234"}
    assert found == {"1": "Heart is large.", "2": "Heart is large.", "3": None, "4": "See above."}
    assert extract_section(report, "impression", "3", exceptions=exceptions) == "Large heart."


def test_range_counts_a_line_end_as_one_character() -> None:
    assert extract_section("ab\r\ncd ef", "findings", "9", exceptions={"9": SectionException(start=3, end=5)}) == "cd"


def test_read_exceptions(tmp_path: Path) -> None:
    path = tmp_path / "section_exceptions.csv"
    path.write_text("study_id,section,start,end\ns100,Technique,,\n101,,5,9\n102,,0,0\n")
    assert read_exceptions(path) == {
        "100": SectionException(section="technique"),
        "101": SectionException(start=5, end=9),
        "102": SectionException(),
    }


@pytest.mark.parametrize("row", ["100,technique,1,2", "100,,,", "100,,9,5", "100,,-1,5"])
def test_read_exceptions_refuses_an_unclear_row(tmp_path: Path, row: str) -> None:
    path = tmp_path / "section_exceptions.csv"
    path.write_text(f"study_id,section,start,end\n{row}\n")
    with pytest.raises(DatasetError, match=r"section_exceptions.csv: row 1 \(study 100\)"):
        read_exceptions(path)
