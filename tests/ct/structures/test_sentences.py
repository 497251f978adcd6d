"""The splitter: nothing is lost, and what is one sentence stays one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2rnet.ct.structures.sentences import split_sentences

PARTS = st.sampled_from(
    ("Trachea is open", "nodule", "3.5", "mm", "5", "im", "vs", "No", "\n", "\n\n", " ", ".", ". ", "?", "!", ";", '"', '" ')
) | st.sampled_from(("- ", "1. ", "2) ", "(", ")", "\u2022 ", "A"))  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(PARTS, max_size=40).map("".join)))
def test_sentences_joined_are_the_report(report):
    sentences = split_sentences(report)
    assert "".join(sentences) == report
    assert len(sentences) == 1 or all(any(map(str.isalnum, sentence)) or "_" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("A 3.5 mm nodule. No effusion.", ["A 3.5 mm nodule.", "No effusion."]),
        ("Nodule (series 3, im. 45) is stable. It is 4.0 mm.", ["Nodule (series 3, im. 45) is stable.", "It is 4.0 mm."]),
        ("It is 12 mm. in diameter.", ["It is 12 mm. in diameter."]),
        ("The nodule is 12 mm. Trachea is open.", ["The nodule is 12 mm.", "Trachea is open."]),
        ("Fracture of the 5. and 6. ribs. No effusion.", ["Fracture of the 5. and 6. ribs.", "No effusion."]),
        ("T10. vertebra shows a hemangioma.", ["T10. vertebra shows a hemangioma."]),
        ("Fracture of T10. Liver is normal.", ["Fracture of T10.", "Liver is normal."]),
        ("approx. 5 cm vs. 6 cm before", ["approx. 5 cm vs. 6 cm before"]),
        ("M. tuberculosis is considered. Nodule.", ["M. tuberculosis is considered.", "Nodule."]),
        ("No effusion.Heart is normal.", ["No effusion.", "Heart is normal."]),
        ("1. Emphysema. 2. Nodule in the lung.", ["1. Emphysema.", "2. Nodule in the lung."]),
        ("Emphysema\n- Nodule\n- Effusion", ["Emphysema", "- Nodule", "- Effusion"]),
        ("Nodule in the right\nupper lobe.\nNo effusion.", ["Nodule in the right\nupper lobe.", "No effusion."]),
        ("Trachea is open\nHeart is normal", ["Trachea is open", "Heart is normal"]),
        ("Compression of the\nL1 vertebra.", ["Compression of the\nL1 vertebra."]),
        ("Lungs:\nNo nodule.", ["Lungs:\nNo nodule."]),
        ('Open. " Cardiomegaly ." Emphysema " Hernia', ["Open.", '" Cardiomegaly .', '" Emphysema', '" Hernia']),
        ('The "tree-in-bud" pattern is seen.', ['The "tree-in-bud" pattern is seen.']),
        ("Cyst? metastasis? Liver is normal.", ["Cyst? metastasis?", "Liver is normal."]),
        ("", []),
        ("  ", [""]),
        ("...", ["..."]),
    ],
)  # fmt: skip
def test_cuts(report, expected):
    assert [sentence.strip() for sentence in split_sentences(report)] == expected
