"""CIDEr with the word weights of the training reports: by hand, and against pycocoevalcap."""

import math

import pytest
from pycocoevalcap.cider.cider import Cider
from toy_samples import REPORTS

from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.report.training_cider import TrainingCider

IDS = {word: number for number, word in enumerate(("<pad>", "<bos>", "<eos>", "<unk>", *"abcde"))}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a b", 10 * (1 + 1) / 4),  # no trigram: nothing of the last two orders
        ("a c", 10 * (1 / 5) / 4),  # weights log 2 and log 4 = 2 log 2: (1, 2) beside (1, 2) with one word shared
        # Words: min(2, 1) 1 + 2 2 over sqrt(2 2 + 2 2) sqrt(1 + 2 2); bigrams: one of two; one bigram more.
        ("a b a", 10 * (5 / math.sqrt(8 * 5) + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)),
        ("d e", 0.0),
        ("", 0.0),
    ],
)
def test_by_hand(written: str, expected: float) -> None:
    """Of four reports two hold a, one b, one c; so log(4 / 2), log 4, log 4."""
    cider = TrainingCider(["a b", "a c", "d e", "d e"], IDS)
    assert cider.score("a b", written) == pytest.approx(expected, abs=1e-12)


def test_a_word_that_no_training_report_has_weighs_as_one_that_one_has() -> None:
    cider = TrainingCider(["a b", "a c", "d e", "d e"], IDS)
    assert cider.score("a z", "a z") == pytest.approx(5)
    assert cider.score("a z", "a") == pytest.approx(10 * (1 / math.sqrt(5)) / 4 * math.exp(-1 / 72))


def test_one_report_alone_weighs_nothing() -> None:
    assert TrainingCider(["a b"], IDS).score("a b", "a b") == 0.0
    assert TrainingCider([], IDS).score("a b", "a b") == 0.0


def test_where_the_references_are_the_training_reports_it_is_pycocoevalcap_s() -> None:
    references = [clean_report(report, "r2gen") for report in (*REPORTS, "Lungs are clear. No nodule.", REPORTS[1])]
    written = [*references[2:], "the the heart is is .", references[0] + " there is a nodule ."]
    vocabulary = count_vocabulary(references, protocol="r2gen", section="findings", min_token_count=1)
    _, expected = Cider().compute_score(*({n: [text] for n, text in enumerate(texts)} for texts in (references, written)))
    cider = TrainingCider(references, vocabulary.ids)
    found = [cider.score(*pair) for pair in zip(references, written, strict=True)]
    assert found == pytest.approx(list(expected)) and max(found) > 1
