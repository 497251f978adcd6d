"""The tiny detector, its data and a run of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detector_samples import RUNTIME, TINY, draw_split, draw_splits

from d2rnet.cxr.detector.settings import DetectorRuntime, PredictionSettings, TrainDetectorSettings


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors are quickest on one thread, and two runs give the same bits; from before the first shared run on."""
    torch.set_num_threads(1)


@pytest.fixture
def settings() -> TrainDetectorSettings:
    """The tiny detector and its training of four iterations."""
    return TINY


@pytest.fixture
def runtime() -> DetectorRuntime:
    """Logs and saves after each iteration."""
    return RUNTIME


@pytest.fixture
def prediction() -> PredictionSettings:
    """Takes nearly every box of the tiny detector, which is sure of nothing."""
    return PredictionSettings().replaced(score_floor=TINY.training.pseudo_score_threshold, batch_images=3)


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four COCO files that train_detector takes, by argument name."""
    return draw_splits(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def draw() -> Callable[..., Path]:
    """The function that draws a split."""
    return draw_split


@pytest.fixture(scope="session")
def trained(one_thread: None, splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run of four iterations."""
    from d2rnet.cxr.detector.trainer import train_detector

    folder = tmp_path_factory.mktemp("trained")
    output = folder / "output"
    train_detector(**splits, work=folder / "work", output=output, device="cpu", settings=TINY, runtime=RUNTIME)
    return output
