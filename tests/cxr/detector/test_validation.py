"""Validation amid a training draws what prediction draws."""

from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector import validation
from d2rnet.cxr.detector.config import TEACHER_NAME
from d2rnet.cxr.detector.predict import detect, load_detector, make_batches
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.runs.settings import LoaderRuntime


def test_validation_draws_the_boxes_of_prediction_and_gives_the_network_back(
    splits: dict[str, Path], trained: Path, prediction: PredictionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network whose own floor is lower, as the EMA teacher's is where pseudo boxes may be unsure."""
    records = load_records(splits["labelled_test"])
    network, cfg = load_detector(trained, TEACHER_NAME, "cpu", prediction)
    batches = make_batches(records, cfg, prediction.batch_images)
    everything = [box for image in detect(network, cfg, batches, prediction) for box in image]
    scores = sorted({box["score"] for box in everything})
    floor = sum(scores[len(scores) // 2 :][:2]) / 2  # between two, for they are rounded
    scored: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(validation, "coco_scores", lambda _, results: scored.append(results) or {})
    validation.score_on(records, cfg, prediction.replaced(score_floor=floor), LoaderRuntime(), network.train())
    assert not network.training
    assert 0 < len(scored[0]) < len(everything)
    assert scored[0] == [box for box in everything if box["score"] > floor]
    assert network.roi_heads.box_predictor.test_score_thresh == prediction.score_floor
