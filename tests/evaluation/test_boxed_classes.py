"""Which boxes count as there: the thresholds that fit the training reports, by hand."""

import numpy as np
import pytest

from d2rnet.evaluation.boxed_classes import best_scores, boxed_classes
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES
from d2rnet.report.annotation_file import Entry

HEART, CLEAR = "there is cardiomegaly .", "the lungs are clear ."


def entry(report: str, **boxes: list[float]) -> Entry:
    """An entry whose boxes are given as class = scores."""
    labels = [name for name, scores in boxes.items() for _ in scores]
    scores = [score for scores in boxes.values() for score in scores]
    return {"report": report, "labels": labels, "scores": scores}  # type: ignore[return-value]


def classes_of(boxed: np.ndarray) -> list[set[str]]:
    return [{CATEGORY_NAMES[column] for column in np.flatnonzero(row)} for row in boxed]


def test_the_best_score_of_each_class_counts() -> None:
    best = best_scores([entry("", Edema=[0.2, 0.7, 0.4], ILD=[0.3]), entry("")])
    assert best.shape == (2, 22) and best[1].sum() == 0
    assert {name: best[0, CATEGORY_IDS[name] - 1] for name in ("Edema", "ILD", "Cardiomegaly")} == {
        "Edema": 0.7,
        "ILD": 0.3,
        "Cardiomegaly": 0.0,
    }


def test_the_training_reports_choose_from_which_score_on_a_box_is_there() -> None:
    """Hearts are right from 0.4 on; an edema that no report names never is; a rare class takes the threshold of all."""
    training = [entry(HEART, Cardiomegaly=[0.4 + 0.05 * step]) for step in range(10)]
    training += [entry(CLEAR, Cardiomegaly=[0.3], Edema=[0.35]) for _ in range(10)]
    entries = [
        entry("", Cardiomegaly=[0.39], Edema=[0.39]),
        entry("", Cardiomegaly=[0.1, 0.4], ILD=[0.4]),
        entry("", ILD=[0.39]),
        entry(""),
    ]
    assert classes_of(boxed_classes(training, entries)) == [set(), {"Cardiomegaly", "ILD"}, set(), set()]


@pytest.mark.parametrize("reports", [[CLEAR], [HEART, CLEAR]])
def test_boxes_that_agree_with_no_report_are_not_there(reports: list[str]) -> None:
    training = [entry(report, Edema=[0.9]) for report in reports]
    assert not boxed_classes(training, [entry("", Edema=[0.95])]).any()
