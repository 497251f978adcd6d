"""What every test may use: the repository's root, and where the optional real samples are."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs that is not part of the project; skips where it is absent."""
    folder = Path(os.environ.get("D2RNET_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("real samples are not on this machine (set D2RNET_SHARED to their folder)")
    return folder
