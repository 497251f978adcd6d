"""Signs of degenerate reports, counted by hand."""

import pytest

from d2rnet.evaluation.degeneracy import degeneracy, text_statistics


def test_degeneracy_by_hand():
    texts = [
        "lungs are clear . lungs are clear .",  # a sentence twice; 4-grams: 5, of which 1 was there before
        "left effusion .",
        "left effusion .",
        "",
    ]
    found = degeneracy(texts)
    assert found["most_frequent_share"] == 0.5
    assert found["normal_report_rate"] == 0.5
    assert found["repeated_sentence_rate"] == 0.25
    assert found["repeated_4gram_share"] == pytest.approx(1 / 5 / 4)
    assert found["distinct_words"] == 5


def test_a_doubted_lesion_is_no_normal_report():
    assert degeneracy(["possible left effusion ."])["normal_report_rate"] == 0
    assert degeneracy(["no left effusion ."])["normal_report_rate"] == 1


def test_a_lone_full_stop_repeats_nothing():
    assert degeneracy([". . ."])["repeated_sentence_rate"] == 0


def test_both_sides_are_described():
    found = text_statistics(["a b .", "left nodule ."], ["x y .", "x y ."])
    assert found["degeneracy"]["hypothesis"]["most_frequent_share"] == 1
    assert found["degeneracy"]["reference"]["normal_report_rate"] == 0.5
