"""The private SLURM cluster that the tests of this folder share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, why_not

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))  # finished_run: what two runs have in common


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster of four nodes; skips where there cannot be one."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    cluster = Cluster(prompt=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
