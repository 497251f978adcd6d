"""A finished miniature run and its models, made once."""

from pathlib import Path

import pytest
import torch
from reading_samples import make_run

from d2rnet.reading.cxr import Models, load_models


@pytest.fixture(autouse=True)
def single_thread() -> None:
    """Small tensors are quickest on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of the miniature run."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def loaded(finished_run: Path) -> Models:
    """Both models of the miniature run."""
    results = finished_run / "results" / "cxr"
    return load_models(results / "train_detector", results / "train_report_model", device="cpu")
