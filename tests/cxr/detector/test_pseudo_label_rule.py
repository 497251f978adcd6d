"""Thresholds of pseudo boxes."""

import pytest
import torch
from detectron2.structures import Instances

from d2rnet.cxr.detector.pseudo_label_rule import AdaptiveRule, FixedRule
from d2rnet.cxr.detector.settings import DetectorTrainingSettings

CPU = torch.device("cpu")


def training(**changes: object) -> DetectorTrainingSettings:
    settings = {"pseudo_score_threshold": 0.75, "adaptive_threshold_range": [0.2, 0.9]}
    return DetectorTrainingSettings().replaced(**{**settings, "adaptive_box_share": 0.5, "adaptive_keep_rate": 0.5, **changes})


def detections(scores: list[float], classes: list[int]) -> Instances:
    found = Instances((64, 80))
    found.scores = torch.tensor(scores)
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return found


def test_fixed_thresholds_never_move() -> None:
    rule = FixedRule(training(), 3, CPU)
    rule.observe([detections([0.9], [0])], 1)
    assert rule.thresholds.tolist() == [0.75, 0.75, 0.75]
    assert rule.state() == {}


def test_adaptive_thresholds_by_hand() -> None:
    """Two images; wanted are 0.5 * (2, 1, 0, 1) boxes an image, that is 2, 1, 0 and 1 boxes of these images."""
    rule = AdaptiveRule(training(), [2.0, 1.0, 0.0, 1.0], CPU)
    assert rule.thresholds.tolist() == [0.75] * 4
    images = [
        detections([0.945, 0.605, 0.415, 0.305], [0, 0, 0, 1]),
        detections([0.855, 0.505, 0.705], [1, 1, 2]),
    ]
    rule.observe(images, 2)
    # Lowest bin edges that leave no more: 0.42 (0.41 would leave three), 0.51, 0.71 and, without any box, the lower limit 0.2.
    found = [0.42, 0.51, 0.71, 0.2]
    assert rule.thresholds.tolist() == pytest.approx([(0.75 + value) / 2 for value in found])  # half known
    rule.observe(images, 2)
    assert rule.thresholds.tolist() == pytest.approx([0.25 * 0.75 + 0.75 * value for value in found])


def test_the_older_share_is_the_one_that_is_kept() -> None:
    rule = AdaptiveRule(training(adaptive_keep_rate=0.75, adaptive_box_share=1.0), [0.6], CPU)
    for score in (0.455, 0.855):
        rule.observe([detections([score], [0])], 1)
    # Boxes an image: 0.75 * 0.25 of score 0.45 and 0.25 of 0.85, over 0.4375 known: 3/7 and 4/7, of which 0.6 are wanted.
    assert rule.thresholds.item() == pytest.approx(0.5625 * 0.75 + 0.4375 * 0.46)


def test_limits() -> None:
    rule = AdaptiveRule(training(adaptive_keep_rate=1e-9), [0.0, 5.0], CPU)
    rule.observe([detections([0.99, 1.0, 0.3], [0, 0, 1])], 1)
    assert rule.thresholds.tolist() == pytest.approx([0.9, 0.2])


def test_a_teacher_that_grows_sure_raises_its_thresholds_and_old_scores_fade() -> None:
    rule = AdaptiveRule(training(adaptive_box_share=1.0), [1.0], CPU)
    for score in (0.455, 0.855):
        for _ in range(60):
            rule.observe([detections([score, score - 0.1], [0, 0])], 1)
        assert rule.thresholds.item() == pytest.approx(score - 0.095)  # the second box is one too many


def test_no_detection_at_all() -> None:
    rule = AdaptiveRule(training(), [1.0, 0.0], CPU)
    rule.observe([detections([], [])], 1)
    assert rule.thresholds.tolist() == pytest.approx([(0.75 + 0.2) / 2] * 2)


def test_state_comes_back_to_the_last_bit() -> None:
    ours, theirs = (AdaptiveRule(training(), [0.3, 0.7], CPU) for _ in range(2))
    theirs.load_state(ours.state())
    assert theirs.thresholds.tolist() == [0.75, 0.75]
    generator = torch.Generator().manual_seed(0)
    batches = [detections(torch.rand(5, generator=generator).tolist(), [0, 1, 1, 0, 1]) for _ in range(6)]
    for batch in batches[:3]:
        ours.observe([batch], 2)
    theirs.load_state({name: value.clone() for name, value in ours.state().items()})
    assert torch.equal(theirs.thresholds, ours.thresholds)
    for batch in batches[3:]:
        ours.observe([batch], 2)
        theirs.observe([batch], 2)
    assert torch.equal(theirs.thresholds, ours.thresholds)
