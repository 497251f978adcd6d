"""Lesion mentions: hand-labelled sentences, wording of the demo cohort, texts of both protocols, awkward input."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from d2rnet.cxr.demo.findings import deal_findings
from d2rnet.cxr.demo.reports import write_report
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mention_context import State
from d2rnet.findings.mention_lexicon import BLOCKED, NORMAL, PATTERNS, SIGNS
from d2rnet.findings.mention_text import normalise_sentence, split_text
from d2rnet.findings.mentions import find_mentions, named_classes, report_findings
from d2rnet.report.text.protocols import clean_report

STATES = {"+": State.PRESENT, "-": State.ABSENT, "?": State.UNCERTAIN}
Label = tuple[str, State, str]


def read_sentences(name: str = "mention_sentences.tsv") -> list[tuple[str, list[Label]]]:
    """Sentence and labels (class, state, side) of each line of a file beside this one."""
    found = []
    for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        sentence, _, labels = line.partition("\t")
        parts = [label.strip() for label in labels.split(";") if label.strip()]
        found.append((sentence.replace("\\n", "\n"), [(*label[1:].partition("@")[::2], STATES[label[0]]) for label in parts]))
    return [(sentence, [(name, state, side) for name, side, state in labels]) for sentence, labels in found]


SENTENCES = read_sentences()


def labels_of(text: str) -> set[Label]:
    return {(mention.category, mention.state, mention.side) for mention in find_mentions(text)}


def test_labelled_sentences_cover_every_class_and_state():
    assert len(SENTENCES) >= 200
    seen = {(name, state) for _, labels in SENTENCES for name, state, _ in labels}
    assert {name for name, state in seen if state is State.PRESENT} == set(CATEGORY_NAMES)
    assert len([name for name, state in seen if state is State.ABSENT]) >= 19
    assert len([name for name, state in seen if state is State.UNCERTAIN]) >= 12


@pytest.mark.parametrize(("sentence", "labels"), SENTENCES, ids=[sentence[:60] for sentence, _ in SENTENCES])
def test_labelled_sentence(sentence, labels):
    assert labels_of(sentence) == set(labels)


RETOLD = read_sentences("retold_sentences.tsv")
RETOLD_NOT_YET = {
    "Since drainage of the left effusion, a small pneumothorax is seen at the apex.",
    "Compared with the prior, on which there was no effusion, a large right effusion has developed.",
    "The patient has a history of pneumothorax.",  # read as denied
    "On the prior study there was a right pneumothorax; this has resolved.",
    "no fracture of the ribs left clavicle fracture",
}
RETOLD_SIDE_NOT_YET = {"A skin fold over the left chest should not be mistaken for a pneumothorax."}
DICTATED = read_sentences("dictated_sentences.tsv")
NOT_YET = {
    "Pneumothorax has been ruled out, effusion has not.",
    "Pleural spaces are free of fluid and air.",
    "Effusion unlikely, pneumothorax excluded.",
    "Effusion n/a, pneumothorax none.",
    "No pneumothorax, with or without effusion.",
    "Effusion +ve on the left, pneumothorax -ve.",
    "Is there a pneumothorax? No.",
}
SIDE_NOT_YET = {
    "The right lung shows no consolidation, while the left lower lobe is consolidated.",
    "Effusion: small, right; moderate, left. Pneumothorax: none.",
    "Effusion: right yes, left no.",
}


def test_dictated_sentences_were_enough():
    assert len(DICTATED) >= 100
    assert {sentence for sentence, _ in DICTATED} > NOT_YET | SIDE_NOT_YET


@pytest.mark.parametrize(("sentence", "labels"), DICTATED, ids=[sentence[:60] for sentence, _ in DICTATED])
def test_dictated_sentence(sentence, labels):
    found = labels_of(sentence)
    assert (found == set(labels)) == (sentence not in NOT_YET | SIDE_NOT_YET)  # one that is mended leaves the list
    states = {(name, state) for name, state, _ in labels}
    assert ({(name, state) for name, state, _ in found} == states) == (sentence not in NOT_YET)


@pytest.mark.parametrize(("sentence", "labels"), RETOLD, ids=[sentence[:60] for sentence, _ in RETOLD])
def test_retold_sentence(sentence, labels):
    found = labels_of(sentence)
    assert (found == set(labels)) == (sentence not in RETOLD_NOT_YET | RETOLD_SIDE_NOT_YET)
    states = {(name, state) for name, state, _ in labels}
    assert ({(name, state) for name, state, _ in found} == states) == (sentence not in RETOLD_NOT_YET)


COMPARED = read_sentences("compared_sentences.tsv")
COMPARED_NOT_YET = {"A right rather than left effusion."}  # read as denied


@pytest.mark.parametrize(("sentence", "labels"), COMPARED, ids=[sentence[:60] for sentence, _ in COMPARED])
def test_sentence_that_compares_the_sides(sentence, labels):
    assert (labels_of(sentence) == set(labels)) == (sentence not in COMPARED_NOT_YET)


def test_retold_sentences_were_enough():
    assert len(RETOLD) >= 120
    assert {sentence for sentence, _ in RETOLD} > RETOLD_NOT_YET | RETOLD_SIDE_NOT_YET
    assert not {sentence for sentence, _ in RETOLD} & {sentence for sentence, _ in [*SENTENCES, *DICTATED]}


def test_lexicon_names_the_22_classes_only():
    assert tuple(PATTERNS) == CATEGORY_NAMES
    assert set(BLOCKED) | set(NORMAL) | set(SIGNS) <= set(CATEGORY_NAMES)


@pytest.mark.parametrize("protocol", ["raw", "r2gen", "faithful"])
def test_demo_reports_name_what_the_cohort_drew(protocol):
    """Lesion F1 of the demo's own reports against the facts that they were written from, and their sides."""
    rng = np.random.default_rng(7)
    counts, wrong_sides, sides = Counter(), 0, 0
    for findings in deal_findings(600, rng):
        text = write_report(findings, rng).findings
        text = text if protocol == "raw" else clean_report(text, protocol)
        facts, named = {finding.category for finding in findings}, named_classes(text)
        counts += Counter(right=len(facts & named), invented=len(named - facts), missed=len(facts - named))
        sided = {finding.category: finding.side for finding in findings if finding.side}
        for mention in find_mentions(text):
            if mention.side and mention.state is not State.ABSENT and mention.category in sided:
                sides += 1
                wrong_sides += mention.side != sided[mention.category]
    assert counts["right"] > 900
    assert 2 * counts["right"] / (2 * counts["right"] + counts["invented"] + counts["missed"]) > 0.995
    assert sides > 700 and wrong_sides == 0


def test_one_state_a_class():
    text = "No pneumothorax. Possible left effusion. Effusion on the left is larger than before. Possible nodule."
    assert report_findings(text) == {
        "Nodule/Mass": State.UNCERTAIN,
        "Pleural effusion": State.PRESENT,
        "Pneumothorax": State.ABSENT,
    }
    assert named_classes(text) == {"Nodule/Mass", "Pleural effusion"}
    assert named_classes(text, uncertain_counts=False) == {"Pleural effusion"}


def test_mentions_know_their_sentence():
    found = find_mentions("Heart size is normal. The lungs are clear. There is a left effusion, and a right rib fracture.")
    assert [(mention.sentence, mention.category) for mention in found] == [
        (0, "Cardiomegaly"),
        (2, "Pleural effusion"),
        (2, "Rib fracture"),
    ]


@pytest.mark.parametrize("text", ["", " ", ".", "...", "XXXX", "1. 2.", "???", ",,;", "(", "\u2014 \u2019"])
def test_nothing_is_found_in_nothing(text):
    assert find_mentions(text) == []


def test_sentences_are_cut_at_full_stops_only():
    text = "A 3.5 cm mass vs. abscess.No effusion; heart is large.\n\nClear"
    assert split_text(text) == ["A 3.5 cm mass vs abscess.", "No effusion;", "heart is large.", "Clear"]
    assert split_text("no effusion . heart is large .") == ["no effusion .", "heart is large ."]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Pnuemothorax", "pneumothorax"),  # swapped
        ("effussion", "effusion"),  # one too many
        ("consoldation", "consolidation"),  # one missing
        ("atelectesis", "atelectasis"),  # one wrong
        ("cardiomeagely", "cardiomeagely"),  # two slips stay
        ("nodulemass scarringatelectasis", "nodule mass scarring atelectasis"),  # "/" that r2gen cleaning took out
        ("modules perfusion infusion capacity", "modules perfusion infusion capacity"),  # other words stay
        ("Ground-glass/air-space (left): oedema", "ground glass air space ; left ; , edema"),
    ],
)
def test_normalised_words(written, read):
    assert normalise_sentence(written) == f" {read} "


def test_a_long_report_takes_no_time_out_of_proportion():
    """Patterns with gaps must not run away on text without full stops."""
    text = "the heart and aorta and mediastinum and trachea are left and right and stable and rib and clavicle " * 200
    assert find_mentions(text) is not None


def test_a_report_that_repeats_two_findings_for_ever():
    """As a collapsed model writes: each mention shares the side of the one before it, down to the first."""
    found = find_mentions("left effusion " + "opacity effusion " * 700)
    assert len(found) == 1401
    assert {mention.side for mention in found} == {"left"}
