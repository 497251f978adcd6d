"""From label sets to stored reports: exact set, nearest set, medoid, by hand."""

import numpy as np
import pytest

from d2rnet.evaluation.label_sets import ReportStore, medoid


def sets(*rows: str) -> np.ndarray:
    """Label sets over three labels, such as "ac"."""
    return np.array([[letter in row for letter in "abc"] for row in rows], dtype=bool)


def answer(store: ReportStore, wanted: str) -> str:
    return store.texts[store.answer(sets(wanted)[0])]


def test_medoid_shares_most_words_with_the_others():
    assert medoid(["x y", "a b c", "a b d", "a b c d"]) == 3
    assert medoid(["one"]) == 0
    assert medoid(["a b", "b a"]) == 0  # order of words is nothing; of equals the first
    assert medoid(["a", "b", "b"]) == 1  # a text that is there twice counts twice
    assert medoid(["", ""]) == 0


def test_the_same_set_goes_before_every_other():
    store = ReportStore(["one", "two", "three", "none"], sets("a", "ab", "abc", ""), candidates=9)
    assert [answer(store, wanted) for wanted in ("a", "ab", "abc", "")] == ["one", "two", "three", "none"]


def test_else_the_set_with_the_greatest_jaccard_index():
    store = ReportStore(["ab report", "c report"], sets("ab", "c"), candidates=9)
    assert answer(store, "a") == "ab report"  # 1 of 2 against 0
    assert answer(store, "bc") == "c report"  # 1 of 2 against 1 of 3
    assert answer(store, "abc") == "ab report"  # 2 of 3 against 1 of 3


def test_of_sets_equally_near_the_medoid_of_all_their_reports():
    store = ReportStore(["x", "p q", "p q r", "p q"], sets("a", "b", "b", "c"), candidates=9)
    assert answer(store, "abc") == "p q"  # a, b and c share one of three each


def test_an_empty_set_is_nearest_to_an_empty_one_only():
    store = ReportStore(["sick", "well"], sets("abc", ""), candidates=9)
    assert answer(store, "") == "well"
    assert ReportStore(["sick"], sets("a"), candidates=9).answer(sets("")[0]) == 0


def test_only_so_many_candidates_are_searched():
    texts = ["z", "a b", "a b", "a b"]
    assert answer(ReportStore(texts, sets("a", "a", "a", "a"), candidates=1), "a") == "z"
    assert answer(ReportStore(texts, sets("a", "a", "a", "a"), candidates=4), "a") == "a b"


def test_no_report_is_an_error():
    with pytest.raises(ValueError, match="no report"):
        ReportStore([], sets(), candidates=1)
