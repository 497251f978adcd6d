"""Fixtures of the report stage's tests."""

from pathlib import Path

import pytest
from report_samples import write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Folder with images and annotation.json of twelve synthetic studies."""
    return write_cohort(tmp_path / "cohort")
