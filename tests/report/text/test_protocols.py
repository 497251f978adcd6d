"""Cleaning protocols against results worked out by hand."""

import pytest

from d2rnet.report.text.protocols import PROTOCOLS, clean_report, has_words, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal. Lungs are clear.", "the heart is normal . lungs are clear ."),
        ("1. No effusion.\n2. Heart size is normal.", "no effusion . heart size is normal ."),
        ("Compared to ___, no change.", "compared to no change ."),
        ("A 3.5 cm mass.", "a 35 cm mass ."),
        ("Well-aerated; (clear) lungs, bilaterally!", "well-aerated clear lungs bilaterally ."),
        ("At T11. The line ends there", "at t11 . the line ends there ."),
        ("Small  left\teffusion..  No pneumothorax", "small left effusion . no pneumothorax ."),
        ("Patient's tube: 50% in", "patients tube 50 in ."),
        ("___. ...", ""),
        ("", ""),
    ],
)
def test_r2gen_protocol(text: str, expected: str) -> None:
    assert clean_report(text, "r2gen") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 3.5 cm mass, left.", "A 3.5 cm mass , left ."),
        ("1. No effusion.\n2. Heart normal", "No effusion . Heart normal ."),
        ("Patient's tube at T4/5; e.g. low.", "Patient's tube at T4/5 ; e.g. low ."),
        ("Compared to ___, none", "Compared to ___ , none ."),
        ("Well-aerated.. . Clear.", "Well-aerated . Clear ."),
        ("1,200 mL", "1,200 mL ."),
        ("... ,", ""),
    ],
)
def test_faithful_protocol(text: str, expected: str) -> None:
    assert clean_report(text, "faithful") == expected


@pytest.mark.parametrize("protocol", ["r2gen", "faithful"])
@pytest.mark.parametrize("breaker", ["\n", "\r", "\r\n", "\u2028", "\x0b"])
def test_line_breaks_of_every_kind_become_spaces(protocol: str, breaker: str) -> None:
    assert clean_report(f"no{breaker}effusion", protocol) == "no effusion ."


@pytest.mark.parametrize("text", ["heart normal. lungs clear.", "one sentence", "a 3.5 cm mass. 2. done"])
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_report(text, "r2gen")
    assert clean_report(once, "r2gen") == once


def test_sentences_joined_are_the_tokens() -> None:
    tokens = ["the", "heart", "is", "normal", ".", "no", "effusion", ".", "unfinished"]
    sentences = split_sentences(tokens)
    assert sentences == [["the", "heart", "is", "normal", "."], ["no", "effusion", "."], ["unfinished"]]
    assert [token for sentence in sentences for token in sentence] == tokens
    assert split_sentences([]) == []


@pytest.mark.parametrize("text", ["", "-", " . ", "___", "1. ___", "1. 1. ___.", "...", "1. ."])
def test_a_report_without_words(text: str) -> None:
    assert not has_words(text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("text", ["Normal.", "1. Normal.", "3", "No ___ change."])
def test_a_report_with_words_is_one_in_every_protocol(text: str, protocol: str) -> None:
    assert has_words(text) and clean_report(text, protocol)
