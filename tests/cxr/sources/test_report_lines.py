"""Lines and letters of reports after transport, and the layouts of headers that come of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from property_settings import QUICK

from d2rnet.cxr.sources.report_lines import restored
from d2rnet.cxr.sources.report_sections import extract_section

CLEAR = "The lungs are clear."
NORMAL = "No acute disease."
# Own layouts: each has findings CLEAR and impression NORMAL.
LAYOUTS = {
    "tabs": "\tINDICATION:\tCough.\n\tFINDINGS:\tThe lungs are clear.\n\tIMPRESSION:\tNo acute disease.",
    "dash lines": "FINDINGS\n--------\nThe lungs are clear.\n\nIMPRESSION\n----------\nNo acute disease.",
    "equals both": "=== FINDINGS ===\nThe lungs are clear.\n=== IMPRESSION ===\nNo acute disease.",
    "stars": "*** FINDINGS ***\nThe lungs are clear.\n*** IMPRESSION ***\nNo acute disease.",
    "pipe": "INDICATION | Cough.\nFINDINGS | The lungs are clear.\nIMPRESSION | No acute disease.",
    "semicolon": "FINDINGS;\nThe lungs are clear.\nIMPRESSION;\nNo acute disease.",
    "dot": "Findings. The lungs are clear.\nImpression. No acute disease.",
    "equals": "FINDINGS = The lungs are clear.\nIMPRESSION = No acute disease.",
    "arrow": "FINDINGS -> The lungs are clear.\nIMPRESSION -> No acute disease.",
    "spaced letters": "F I N D I N G S :\nThe lungs are clear.\nI M P R E S S I O N :\nNo acute disease.",
    "one line": "INDICATION: Cough. FINDINGS: The lungs are clear. IMPRESSION: No acute disease.",
    "one line mixed": "Indication: Cough. Findings: The lungs are clear. Impression: No acute disease.",
    "one line lower": "indication: cough. findings: The lungs are clear. impression: No acute disease.",
    "xml": "<findings>The lungs are clear.</findings><impression>No acute disease.</impression>",
    "xml lines": "<FINDINGS>\nThe lungs are clear.\n</FINDINGS>\n<IMPRESSION>\nNo acute disease.\n</IMPRESSION>",
    "html br": "<b>FINDINGS:</b><br>The lungs are clear.<br><b>IMPRESSION:</b><br>No acute disease.",
    "rst": "Findings\n========\n\nThe lungs are clear.\n\nImpression\n==========\n\nNo acute disease.",
    "numbered roman": "I. INDICATION: Cough.\nII. FINDINGS: The lungs are clear.\nIII. IMPRESSION: No acute disease.",
    "findings of chest": "FINDINGS (CHEST):\nThe lungs are clear.\nIMPRESSION (CHEST):\nNo acute disease.",
    "radiographic findings": "RADIOGRAPHIC FINDINGS:\nThe lungs are clear.\nRADIOGRAPHIC IMPRESSION:\nNo acute disease.",
    "radiographic mixed": "Radiographic findings:\nThe lungs are clear.\nOverall impression:\nNo acute disease.",
    "unicode colon": "FINDINGS\uff1aThe lungs are clear.\nIMPRESSION\uff1aNo acute disease.",
    "nbsp": "\xa0\xa0FINDINGS\xa0:\xa0The lungs are clear.\n\xa0IMPRESSION\xa0:\xa0No acute disease.",
    "LSEP": "FINDINGS: The lungs are clear.\u2028IMPRESSION: No acute disease.",
    "VT": "FINDINGS: The lungs are clear.\x0bIMPRESSION: No acute disease.",
    "crcrlf": "FINDINGS:\r\r\nThe lungs are clear.\r\r\nIMPRESSION:\r\r\nNo acute disease.\r\r\n",
    "literal \\n": "FINDINGS:\\nThe lungs are clear.\\nIMPRESSION:\\nNo acute disease.",
    "caret .br": "FINDINGS:\\.br\\The lungs are clear.\\.br\\IMPRESSION:\\.br\\No acute disease.",
    "hl7 tilde": "FINDINGS:~The lungs are clear.~IMPRESSION:~No acute disease.",
    "bold underscores": "__FINDINGS__: The lungs are clear.\n__IMPRESSION__: No acute disease.",
    "checkbox md": "- **Findings**: The lungs are clear.\n- **Impression**: No acute disease.",
    "md in table": "| Section | Text |\n|---|---|\n| Findings | The lungs are clear. |\n| Impression | No acute disease. |",
    "quote": "> FINDINGS: The lungs are clear.\n> IMPRESSION: No acute disease.",
    "braces": "{FINDINGS}\nThe lungs are clear.\n{IMPRESSION}\nNo acute disease.",
    "angle": "<<FINDINGS>>\nThe lungs are clear.\n<<IMPRESSION>>\nNo acute disease.",
    "soft hyphen": "FIND\xadINGS: The lungs are clear.\nIMPRES\xadSION: No acute disease.",
    "zero width": "\u200bFINDINGS\u200b: The lungs are clear.\n\u200bIMPRESSION\u200b: No acute disease.",
    "full-width letters": "\uff26INDING\uff33\uff1a The lungs are clear.\nImpression: No acute disease.",
    "findings below": "FINDINGS:\n\n\n   \n\tThe lungs are clear.\n\n\nIMPRESSION:\n\nNo acute disease.",
    "colon next line": "FINDINGS\n: The lungs are clear.\nIMPRESSION\n: No acute disease.",
    "title case no colon": "Findings\nThe lungs are clear.\n\nImpression\nNo acute disease.",
    "lower no colon blank": "findings\nThe lungs are clear.\n\nimpression\nNo acute disease.",
    "deep indent": "        Findings:\n        The lungs are clear.\n        Impression:\n        No acute disease.",
    "long prefix": "[2019-01-01 10:20] FINDINGS: The lungs are clear.\n[2019-01-01 10:21] IMPRESSION: No acute disease.",
    "line numbers": "001 FINDINGS: The lungs are clear.\n002 IMPRESSION: No acute disease.",
    "impr abbreviation": "FINDINGS: The lungs are clear.\nIMPR: No acute disease.",
    "findings:impression swapped": "IMPRESSION: No acute disease.\nFINDINGS: The lungs are clear.",
}
# What looks like a header and is none: the text stays whole, and is counted as one without headers.
PROSE = [
    "Clear lungs. There are no acute\nfindings. The heart is normal.",
    "Clear lungs. There are no other\nfindings; the heart is normal.",
    "The heart is normal; this was our impression. The lungs are clear.",
    "Effusion < 1 cm, heart > normal. Size ~ 3 cm.",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    found = [extract_section(LAYOUTS[layout], name) for name in ("findings", "impression")]
    assert found == [CLEAR, NORMAL]


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_no_header(text: str) -> None:
    assert extract_section(text, "findings") == " ".join(text.split())
    assert extract_section(text, "impression") is None


def test_sizes_and_marks_inside_a_section_stay() -> None:
    text = "FINDINGS:\n- Nodule ~ 3 mm.\n- Mass = 2 cm | left; stable.\nIMPRESSION:\n1. Nodule.\n2. Mass."
    assert extract_section(text, "findings") == "- Nodule ~ 3 mm. - Mass = 2 cm | left; stable."
    assert extract_section(text, "impression") == "1. Nodule. 2. Mass."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\r\nb\nc\nd"),
        ("a\\nb\\r\\nc", "a \nb   \nc"),
        ("a\\.br\\b<BR/>c</p>d", "a    \nb    \nc   \nd"),
        ("a~b ~ 3~4", "a\nb ~ 3~4"),
        ("a~b\nc", "a~b\nc"),
        ("fi\xadnd\xading x", "finding   x"),
        ("\uff21\uff42\uff1a", "Ab:"),
        ("F I N D I N G S :", "FINDINGS        :"),
        ("A B C", "A B C"),
        ("</findings>x</strong>", "          \nx</strong>"),
    ],
)
def test_restored(text: str, expected: str) -> None:
    assert restored(text) == expected


@QUICK
@given(st.text(alphabet="aFIND :\\nr.b<>/p~\r\n\xad\xa0\uff21\u2028", max_size=60))
def test_length_stays(text: str) -> None:
    assert len(restored(text)) == len(text)
