"""One finished tiny run for all tests that look at it."""

from pathlib import Path

import pytest
from test_dag import snakemake

TINY = "workflow/presets/tiny.yaml"


@pytest.fixture(scope="session")
def run(repository, tmp_path_factory) -> Path:
    """Working directory of the run; tests add to it and change nothing in it."""
    directory = tmp_path_factory.mktemp("tiny run")  # a space in the path: every command must quote
    done = snakemake(repository, directory, "--cores", "2", "--configfile", str(repository / TINY))
    assert done.returncode == 0, done.stderr[-6000:]
    return directory
