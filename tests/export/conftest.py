"""A finished miniature run, made once."""

from pathlib import Path

import pytest
import torch
from reading_samples import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of the miniature run."""
    torch.set_num_threads(1)
    return make_run(tmp_path_factory.mktemp("run"))
