"""A finding without a verb, or as news, is the report's; a question, a history, a symptom is the referring doctor's."""

from pathlib import Path

import pytest

from d2rnet.cxr.sources.told_findings import leaked, told_findings

REPORT = (
    "There is a small pleural effusion on the left. The heart is enlarged. Patchy opacity is seen in the right lower lobe, "
    "with a calcified nodule of 8 mm. No pneumothorax. Mild interstitial edema may be present."
)


@pytest.mark.parametrize(
    "part",
    [
        "Small left effusion.",
        "Trace pleural effusion",
        "Moderate-sized left pleural effusion;",
        "SMALL LEFT EFFUSION AND MILDLY ENLARGED HEART.",
        "Mild cardiomegaly with clear lungs",
        "Patchy right basilar opacity",
        "1.5 cm nodule in the right lower lobe.",
        "Enlarged cardiac silhouette.",
        "Small left posterior pleural effusion",
        "Small pleural effusion posteriorly",
        "Patchy posterobasal opacity",
        "Small left effusion without pneumothorax.",
        "Small left effusion no pneumothorax",
        "No pneumothorax small left effusion",
        "Lt small pleural effusion.",
        "small L effusion",
        "Small l-sided effusion",
        "8mm RLL nodule.",
        "Rt lower lobe 8 mm nodule",
        "Interval increase in small left effusion",
        "Interval decrease in left effusion",
        "Small left effusion with atelectasis or infiltrate.",
        "Large left effusion and probably atelectasis",
        "Patchy right lower lobe opacity concerning for infection",
        "Patchy right opacity suspicious for pneumonia.",
        "Enlarged heart without acute cardiopulmonary abnormality.",
        "Bandlike opacity in the right midlung",
        "Right midlung opacity",
        "Increasing XXXX left pleural effusion",
    ],
)
def test_a_finding_of_the_report_without_a_verb(part: str) -> None:
    assert told_findings(part, REPORT) == [part]
    assert told_findings(f"Cough and fever. {part}", REPORT) == [part]
    assert told_findings(f"84-year-old man with cough, {part}", REPORT) == [part]
    assert told_findings(f"Cough - {part}", REPORT) == [part]


@pytest.mark.parametrize(
    "indication",
    [
        "cough",
        "Cough, fever, shortness of breath.",
        "Known effusion, follow-up",
        "Known small left effusion.",
        "Small left effusion, follow-up.",
        "Small left effusion?",
        "rule out pneumonia",
        "Rule out small effusion, mild edema",
        "Evaluate for small left effusion.",
        "Possible small left effusion.",
        "History of small left effusion",
        "s/p drainage of a large left effusion",
        "84-year-old woman with small left effusion",
        "Left effusion.",  # bare: as many ask
        "Cardiomegaly",
        "Pleural effusions;",
        "Mild lower extremity edema",
        "Small right effusion.",  # the other side
        "Small R effusion",
        "Small rt effusion without pneumothorax",
        "8 mm LUL nodule",
        "Small effusion on 2 L",  # of oxygen
        "s/p RUL lobectomy",
        "Post op small left effusion",
        "Postoperative small left effusion",
        "Interval change in small left effusion",
        "interval changes of small left effusion",
        "Left effusion without large pneumothorax",  # how large it is not
        "Left effusion without pneumothorax or large mass",
        "Cough without effusion",
        "Small left effusion without cough",
        "Small effusion or pneumothorax",
        "Small pneumothorax without effusion",
        "Small pneumothorax.",  # denied
        "Mild edema.",  # in doubt there
        "No small effusion.",
        "Mild pain.",
        "Mild cough, nodule",
        "Left effusion with small atelectasis or infiltrate",  # small is what is doubted
        "Small atelectasis or left effusion",
        "Small effusion, concern for empyema",
        "Left effusion concerning for infection",
        "XXXX left effusion",
        "",
    ],
)
def test_what_asks_or_knows_stays(indication: str) -> None:
    assert told_findings(indication, REPORT) == []


TABLE = Path(__file__).with_name("indications.tsv").read_text(encoding="utf-8").splitlines()
LABELLED = [line.split("\t") for line in TABLE if not line.startswith("#")]
LABELLED_REPORT = (
    "There is a small left pleural effusion. Bibasilar atelectasis. Small right apical pneumothorax. "
    "The heart is mildly enlarged."
)


def test_enough_indications_of_either_kind_are_labelled() -> None:
    assert min(sum(label == kind for label, _ in LABELLED) for kind in ("told", "kept")) >= 30


@pytest.mark.parametrize(("label", "indication"), LABELLED)
def test_news_is_told_and_what_is_asked_is_kept(label: str, indication: str) -> None:
    assert bool(told_findings(indication, LABELLED_REPORT)) is (label == "told")


def test_a_side_that_only_one_of_both_names_is_no_other_side() -> None:
    assert told_findings("Small effusion.", REPORT) == ["Small effusion."]
    assert told_findings("Small right effusion.", "Pleural effusion is seen.") == ["Small right effusion."]


def test_sentences_of_the_report_come_first_and_nothing_twice() -> None:
    assert leaked("Patchy left opacity. Small left effusion.", "Small left effusion. Hazy opacity on the left.") == [
        "Small left effusion.",
        "Patchy left opacity.",
    ]
    assert leaked("Cough.", "Small left effusion.") == []
