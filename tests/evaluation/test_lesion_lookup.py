"""Baseline that looks reports up by the classes of boxes, by hand."""

from d2rnet.evaluation.labeller import class_matrix
from d2rnet.evaluation.lesion_lookup import lesion_set_answers
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import Entry

CLEAR = "lungs are clear ."
HEART = "there is cardiomegaly ."
DOUBT = "possible pneumothorax ."
BOTH = "there is cardiomegaly . there is a left pneumothorax ."


def entry(name: str, study: str, report: str) -> Entry:
    return {"id": name, "study_id": study, "report": report, "labels": []}  # type: ignore[typeddict-item]


TRAINING = [entry("1", "s1", "Lungs are clear."), entry("2", "s2", "There is cardiomegaly."), entry("3", "s3", DOUBT)]


def test_each_entry_gets_the_report_that_names_its_classes() -> None:
    assert lesion_set_answers(TRAINING, class_matrix([["Cardiomegaly"], []], CATEGORY_NAMES), "r2gen") == [HEART, CLEAR]


def test_a_doubted_lesion_counts_as_named() -> None:
    training = [entry(name, name, "There is cardiomegaly.") for name in "ab"]
    training.append(entry("3", "s3", DOUBT))
    assert lesion_set_answers(training, class_matrix([["Pneumothorax", "Pneumothorax"]], CATEGORY_NAMES), "r2gen") == [DOUBT]


def test_else_the_nearest_set() -> None:
    training = [*TRAINING, entry("4", "s4", BOTH)]
    assert lesion_set_answers(
        training, class_matrix([["Cardiomegaly", "Pneumothorax", "Edema"]], CATEGORY_NAMES), "r2gen"
    ) == [BOTH]


def test_a_study_of_many_images_counts_once_and_an_empty_report_never() -> None:
    far = [entry(name, "far", "cardiomegaly here ?") for name in "abcd"]
    near = [entry("e", "e", "moderate cardiomegaly is seen ."), entry("f", "f", "mild cardiomegaly is seen .")]
    training = [entry("empty", "none", " "), *far, *near]
    assert lesion_set_answers(training, class_matrix([["Cardiomegaly"]], CATEGORY_NAMES), "r2gen") == [
        "moderate cardiomegaly is seen ."
    ]
