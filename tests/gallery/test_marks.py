"""Verdicts on mentions, and where mentions stand in the text as shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2rnet.findings.mention_context import State
from d2rnet.findings.mentions import find_mentions, report_findings
from d2rnet.gallery.located import locate_mentions, split_spans
from d2rnet.gallery.marks import Verdict, class_verdicts, mark_of
from d2rnet.gallery.modality import CT

WORDS = (
    "no", "left", "Right", "pleural-effusion", "effusion,", "(atelectasis)", "cardiomegaly;", "?infiltrate", "?", "vs.", "or",
    "pneumothoraxx.", "e.g.", "3.5", "oedema", "-", "heart", "is", "enlarged", "Nodule/mass", "the\n\n", "XXXX", "\u00e9",
)  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("left pleural effusion .", "small left effusion .", {"Pleural effusion": Verdict.MATCH}),
        ("left pleural effusion .", "right pleural effusion .", {"Pleural effusion": Verdict.WRONG_SIDE}),
        ("bilateral effusions .", "right pleural effusion .", {"Pleural effusion": Verdict.MATCH}),
        ("left pleural effusion .", "there is a pleural effusion .", {"Pleural effusion": Verdict.MATCH}),
        ("left pleural effusion .", "no pleural effusion .", {"Pleural effusion": Verdict.MISSED}),
        ("no pneumothorax .", "possible pneumothorax .", {"Pneumothorax": Verdict.INVENTED}),
        ("no pneumothorax .", "no pneumothorax .", {"Pneumothorax": Verdict.MATCH}),
        ("no pneumothorax .", "lungs are clear .", {}),
    ],
)
def test_verdict_of_a_class(reference, hypothesis, expected):
    assert class_verdicts(reference, hypothesis) == expected


def test_a_mention_is_found_in_the_text_as_written():
    text = "Small LEFT-sided pleural  effusion, unchanged. ?Infiltrate (right base)."
    found = {located.mention.category: text[located.start : located.end] for located in locate_mentions(text)}
    assert found == {"Pleural effusion": "pleural  effusion", "Infiltration": "Infiltrate"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_every_mention_has_a_place_in_its_text(text):
    located = locate_mentions(text)
    assert [found.mention for found in located] == find_mentions(text)
    for found in located:
        assert 0 <= found.start < found.end <= len(text)
        shown = text[found.start : found.end]
        assert shown[0].isalnum() and shown[-1].isalnum()
        assert report_findings(shown) or len(shown.split()) < 4, "the words shown are those of the mention"


def test_a_denial_beside_a_claim_of_the_same_report_shows_nothing():
    text = "no right effusion . left effusion ."
    states, verdicts = report_findings(text), class_verdicts("left effusion .", text)
    assert [mark_of(found.mention, verdicts, states) for found in locate_mentions(text)] == [None, Verdict.MATCH]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one . two .", ["one .", "two ."]),
        ("Heart 3.5 cm. Clear", ["Heart 3.5 cm.", "Clear"]),
        ("", []),
        ("  a .  ", ["a ."]),
        ("no stop \n", ["no stop"]),
    ],
)
def test_sentences_of_cleaned_and_running_text(text, expected):
    assert [text[start:end] for start, end in split_spans(text)] == expected


def test_an_abnormality_that_was_not_judged_is_no_mention():
    text = "Pericardial effusion could not be evaluated. There is pleural effusion."
    assert CT.states(text) == {"Pleural effusion": State.PRESENT}
    assert class_verdicts(text, "There is pericardial effusion.", CT) == {
        "Pleural effusion": Verdict.MISSED,
        "Pericardial effusion": Verdict.INVENTED,
    }
