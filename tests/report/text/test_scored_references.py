"""References as R2Gen scores them, against its own way of making them: ids with a start token, cut, turned back into words."""

import pytest

from d2rnet.report.text.scored_references import r2gen_cut, r2gen_exact
from d2rnet.report.text.vocabulary import count_vocabulary

VOCABULARY = count_vocabulary(["the heart is normal ."], protocol="r2gen", section="findings", min_token_count=1)


def as_r2gen_does(report: str, max_seq_length: int) -> str:
    words = {word: number for number, word in enumerate(["the", "heart", "is", "normal", ".", "<unk>"], start=1)}
    ids = [0, *(words.get(word, words["<unk>"]) for word in report.split()), 0][:max_seq_length]
    kept = []
    for number in ids[1:]:
        if number == 0:
            break
        kept.append(list(words)[number - 1])
    return " ".join(kept)


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("max_tokens", [4, 5, 6, 7])
def test_cut_and_unknown_words(length, max_tokens):
    report = " ".join(["the", "large", "heart", "is", "normal", ".", "zebra", "."][:length])
    assert r2gen_exact(report, VOCABULARY, max_tokens=max_tokens) == as_r2gen_does(report, max_tokens)


def test_the_same_as_what_validation_scores():
    """Validation turns the ids of the batch back into words and cuts them."""
    for report in ("the heart is normal .", "the heart is large .", "is normal . is normal ."):
        for max_tokens in (4, 5, 6):
            encoded = VOCABULARY.encode(report, max_tokens=max_tokens)
            kept = r2gen_cut(VOCABULARY.decode(encoded), max_tokens=max_tokens)
            assert " ".join(kept) == r2gen_exact(report, VOCABULARY, max_tokens=max_tokens)
