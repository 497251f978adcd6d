"""Fixtures of the report model's tests."""

from pathlib import Path

import pytest
import torch
from report_samples import small_settings, write_cohort

from d2rnet.cxr.report_model.settings import ReportSettings


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors are quickest on one thread, and results do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture
def report_settings() -> ReportSettings:
    """Section ``report`` with a model that trains in a moment."""
    return small_settings()


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Folder with images and annotation.json of twelve synthetic studies."""
    return write_cohort(tmp_path / "cohort")
