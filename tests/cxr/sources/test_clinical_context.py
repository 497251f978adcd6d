"""Why a study was taken: sections that say so, and nothing of what was seen, however a report is laid out."""

import pytest

from d2rnet.cxr.sources.clinical_context import ClinicalText, checked_text, clinical_text
from d2rnet.cxr.sources.report_sections import split_sections
from d2rnet.cxr.sources.shared_sentences import shared_sentences

FINDINGS = "The lungs are clear. No pleural effusion is seen. Heart size is normal."


def read(report: str) -> ClinicalText:
    return clinical_text(split_sections(report))


@pytest.mark.parametrize(
    "header",
    ["INDICATION", "HISTORY", "CLINICAL INFORMATION", "REASON FOR EXAM", "REASON FOR EXAMINATION", "CLINICAL HISTORY",
     "REASON FOR CT", "CLINICAL DATA", "INDICTION"],
)  # fmt: skip
def test_headers_that_say_why(header: str) -> None:
    why = f" {header}:  ___F with cough\n and fever\n \n"
    report = f" FINAL REPORT\n EXAMINATION:  CHEST (PA)\n \n{why} FINDINGS: \n \n {FINDINGS}\n"
    assert read(report) == ClinicalText("___F with cough and fever")


@pytest.mark.parametrize(
    "header", ["COMPARISON", "TECHNIQUE", "EXAMINATION", "RECOMMENDATION", "WET READ", "NOTIFICATION", "LUNGS"]
)
def test_headers_that_do_not_say_why(header: str) -> None:
    assert read(f" {header}:  ___F with cough\n \n FINDINGS: \n \n {FINDINGS}\n").text == ""


def test_indication_and_history_are_joined_and_a_repetition_counts_once() -> None:
    report = f" INDICATION:  Cough.\n \n HISTORY:  Asthma.\n \n REASON FOR EXAM:  Fever.\n \n FINDINGS: \n {FINDINGS}\n"
    assert read(report).text == "Cough. Asthma."  # "reason for exam" is an indication, and the first of a name counts
    same = f" INDICATION:  Cough.\n \n HISTORY:  Cough.\n \n FINDINGS: \n {FINDINGS}\n"
    assert read(same).text == "Cough."


# Reports that would tell the answer, were everything behind the header taken.
LEAKS = {
    "unlabelled findings in a paragraph": (f" INDICATION:  Cough.\n \n {FINDINGS}\n \n IMPRESSION:  Normal.\n", "Cough."),
    "unlabelled findings on the next line": (f" INDICATION:  Cough.\n {FINDINGS}\n \n IMPRESSION:  Normal.\n", "Cough."),
    "unlabelled findings on the same line": (f" INDICATION:  Cough. {FINDINGS}\n \n IMPRESSION:  Normal.\n", "Cough."),
    "findings first": (f" FINDINGS:  {FINDINGS}\n \n IMPRESSION:  Normal.\n \n INDICATION:  Cough.\n", "Cough."),
    "an addendum repeats both": (
        f" INDICATION:  Cough.\n \n FINDINGS:  {FINDINGS}\n \n ADDENDUM:\n \n INDICATION:  Right lower lobe pneumonia.\n \n"
        f" FINDINGS:  Right lower lobe pneumonia.\n",
        "Cough.",
    ),
    "one header for indication and findings": (f" INDICATION AND FINDINGS:  Cough. {FINDINGS}\n", ""),
    "the history is the impression": (
        f" HISTORY:  Right lower lobe pneumonia.\n \n FINDINGS:  {FINDINGS}\n \n IMPRESSION:  Right lower lobe pneumonia.\n",
        "",
    ),
    "in another case, and run in": (
        f" INDICATION:  Cough, mild interstitial edema, fever.\n \n FINDINGS:  {FINDINGS} Mild interstitial edema.\n",
        "",
    ),
    "a finding without a verb": (
        " INDICATION:  Cough. Small left effusion. Fever.\n \n FINDINGS:  There is a small pleural effusion on the left.\n",
        "",
    ),
    "normal structures without a verb": (f" INDICATION:  Cough. Clear lungs. Fever.\n \n FINDINGS:  {FINDINGS}\n", "Cough."),
    "the same, the other way round": (f" INDICATION:  Cough. Heart size normal.\n \n FINDINGS:  {FINDINGS}\n", "Cough."),
    "what an opacity may represent": (
        f" INDICATION:  Cough. Right basilar opacity which may represent atelectasis. Fever.\n \n FINDINGS:  {FINDINGS}\n",
        "Cough.",
    ),
    "what densities reflect": (
        f" INDICATION:  Cough. Densities at the left base could well reflect scars.\n \n FINDINGS:  {FINDINGS}\n",
        "Cough.",
    ),
    "short sentences, several": (
        " INDICATION:  Effusion? Mild edema? Pneumonia?\n \n FINDINGS:  Mild edema. Pneumonia. Clear apices throughout.\n",
        "",
    ),
    "no header at all": (f"Cough. {FINDINGS}\n", ""),
    "before the first header": (f"{FINDINGS}\n \n INDICATION:  Cough.\n \n IMPRESSION:  Normal.\n", "Cough."),
    "findings on the line of the indication, without a full stop before": (
        " INDICATION:  Cough FINDINGS:  Mild cardiomegaly.\n \n IMPRESSION:  Large heart today.\n",
        "Cough",
    ),
    "an impression on that line, in small letters": (
        f" INDICATION:  Cough. Impression: left basal pneumonia.\n \n FINDINGS:  {FINDINGS}\n",
        "Cough.",
    ),
    "a wet read, far indented": (
        f" INDICATION:  Cough.\n      WET READ:  large left pneumothorax.\n \n FINDINGS:  {FINDINGS}\n",
        "Cough.",
    ),
    "why somebody was called": (
        f" INDICATION:  Cough.\n \n FINDINGS:  {FINDINGS}\n \n REASON FOR CALL:  left pneumothorax.\n",
        "Cough.",
    ),
    "why a report was changed": (
        f" REASON FOR CHANGE:  missed left pneumothorax.\n \n INDICATION:  Cough.\n \n FINDINGS:  {FINDINGS}\n",
        "Cough.",
    ),
    "a wet read behind it": (f" INDICATION:  Cough.\n \n WET READ:  {FINDINGS}\n \n IMPRESSION:  Normal.\n", "Cough."),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_nothing_of_findings_or_impression_gets_in(name: str) -> None:
    report, expected = LEAKS[name]
    found = read(report).text
    assert found == expected
    assert not shared_sentences(found, FINDINGS)


def test_a_cut_and_a_refusal_are_told_apart() -> None:
    assert checked_text("Cough. The lungs are clear. Fever.", []) == ClinicalText("Cough.", is_cut=True)
    assert checked_text("Cough with fever today.", ["No. Cough with fever today."]) == ClinicalText(is_refused=True)
    assert checked_text("", ["Normal."]) == ClinicalText()


@pytest.mark.parametrize(
    "indication",
    [
        "___ year old man with chest pain. Evaluate the patient's chest.",
        "Known left pleural effusion, interval change?",
        "Rule out pneumothorax after line placement.",
        "History of lung cancer, short of breath.",
        "Fever, may represent pneumonia. Assess for opacity.",
        "Dyspnea which could be due to heart failure.",
    ],
)
def test_what_is_asked_for_is_no_description(indication: str) -> None:
    assert checked_text(indication, [FINDINGS]) == ClinicalText(indication)


def test_shared_sentences_by_hand() -> None:
    assert shared_sentences("cough, NO pleural effusion", "Clear. No pleural effusion. Normal heart.") == [
        "No pleural effusion."
    ]
    assert shared_sentences("pneumonia", "Pneumonia. Normal heart.") == []  # one short sentence: asked for and found
    assert shared_sentences("mild edema, pneumonia", "Mild edema. Pneumonia.") == ["Mild edema.", "Pneumonia."]
    assert shared_sentences("no pleural effusions", "No pleural effusion.") == []  # whole words
    # numbers of a list are no sentences
    assert shared_sentences("cough for 2 weeks, fever for 1 day", "1. Edema. 2. Large heart. 3. Clear apices.") == []
    assert shared_sentences("", "Normal.") == [] and shared_sentences("cough", "...") == []


def test_a_second_paragraph_is_left_out() -> None:
    """Whatever it says: without a header, nothing tells what it is."""
    assert read(" INDICATION:  Cough.\n \n Wedge at the right base.\n \n IMPRESSION:  Normal.\n").text == "Cough."
