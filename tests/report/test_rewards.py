"""Rewards: F1 of findings by hand, ids to texts, what the settings ask for."""

import pickle

import pytest
import torch
from toy_samples import ENTRIES, VOCABULARY

from d2rnet.ct.evaluation.abnormalities import named_abnormalities
from d2rnet.findings.mentions import named_classes
from d2rnet.report.rewards import FindingsF1, Reward, make_reward
from d2rnet.report.settings import ReportTrainingSettings
from d2rnet.report.training_cider import TrainingCider


@pytest.mark.parametrize(
    ("reference", "written", "expected"),
    [
        ("cardiomegaly . no effusion .", "cardiomegaly .", 1.0),
        ("cardiomegaly . left pleural effusion .", "the heart is enlarged .", 2 / 3),
        ("cardiomegaly .", "left pleural effusion .", 0.0),
        ("cardiomegaly .", "no acute disease .", 0.0),
        ("no acute disease .", "cardiomegaly .", 0.0),
        ("no acute disease .", "clear lungs .", 1.0),
        ("no acute disease .", "", 0.0),
        ("no acute disease .", ".", 0.0),
        ("possible pneumothorax .", "pneumothorax .", 1.0),  # a doubt counts
    ],
)
def test_f1_of_lesions_by_hand(reference: str, written: str, expected: float) -> None:
    assert FindingsF1(named_classes)(reference, written) == pytest.approx(expected)


def test_f1_of_abnormalities_by_hand() -> None:
    score = FindingsF1(named_abnormalities)
    assert score("Pericardial effusion. Hiatal hernia.", "Hiatal hernia. Emphysema. Atelectasis.") == pytest.approx(2 / 5)


def test_ids_are_read_to_the_end_token() -> None:
    seen: list[tuple[str, str]] = []

    def score(reference: str, written: str) -> float:
        seen.append((reference, written))
        return 0.25 * len(seen)

    heart, large = VOCABULARY.ids["heart"], VOCABULARY.ids["large"]
    references = torch.tensor([[1, heart, 2, 0, 0], [1, heart, large, large, 2]])
    written = torch.tensor([[large, 2, 0], [heart, large, large]])
    earned = Reward(VOCABULARY, score)(references, written)
    assert earned.tolist() == [0.25, 0.5] and earned.dtype == torch.float32
    assert seen == [("heart", "large"), ("heart large large", "heart large large")]


def test_what_the_settings_ask_for() -> None:
    def made(kind: str) -> Reward | None:
        settings = ReportTrainingSettings().replaced(self_critical={"reward": kind}, max_report_tokens=4)
        return make_reward(settings, VOCABULARY, read=named_classes, entries=ENTRIES)

    assert made("none") is None
    reward = made("findings_f1")
    assert reward is not None and reward.score == FindingsF1(named_classes)
    cider = pickle.loads(pickle.dumps(made("cider")))  # training processes get a copy
    learnt = ["the heart is large", "lungs are clear .", "there is a nodule", "the heart is small"]  # cut to four words
    expected = TrainingCider(learnt, VOCABULARY.ids).score("heart is large", "heart is small")
    assert cider.score("heart is large", "heart is small") == pytest.approx(expected) and expected > 0
