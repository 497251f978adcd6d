"""What every test may use: the repository's root, one finished tiny run, and where the optional real samples are."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """A command that a test runs in this process sets the level of the log; the next test begins as if it had not."""
    logger = logging.getLogger("d2rnet")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def run(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished tiny run on two cores; tests add to it and change nothing in it."""
    directory = tmp_path_factory.mktemp("tiny run")  # a space in the path: every command must quote
    command = [sys.executable, "-m", "snakemake", "-s", repository / "Snakefile", "-d", directory, "--cores", "2"]
    places = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != Path(sys.executable).parent]
    done = subprocess.run(
        [*command, "--configfile", repository / "workflow" / "presets" / "cxr" / "tiny.yaml"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(places)},  # the environment is not activated
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return directory


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real radiographs that is not part of the project; skips where it is absent."""
    folder = Path(os.environ.get("D2RNET_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("real samples are not on this machine (set D2RNET_SHARED to their folder)")
    return folder
