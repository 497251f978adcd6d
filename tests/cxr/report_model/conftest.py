"""Fixtures of the report model's tests."""

from pathlib import Path
from typing import Any

import pytest
import torch
from report_samples import small_settings, write_cohort


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors are quickest on one thread, and results do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture
def report_settings() -> dict[str, Any]:
    """Section ``report`` with a model that trains in a moment."""
    return small_settings()


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Folder with images and annotation.json of twelve synthetic studies."""
    return write_cohort(tmp_path / "cohort")
