"""The private SLURM cluster that the tests of this folder share, and Snakemake on it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, why_not

TINY = Path("workflow") / "presets" / "tiny.yaml"
# A look at the queue every few seconds: a cluster's own pace would make a run of some seconds a job last ten minutes.
QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "20")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster of four nodes; skips where there cannot be one."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def command(repository: Path) -> Callable[..., list[str]]:
    """How to call Snakemake: ``command(directory, seconds, *arguments)``; it is killed after so many seconds."""

    def build(directory: Path, seconds: int, *arguments: str) -> list[str]:
        overlay = directory / "overlay.yaml"
        words = ["timeout", "-k", "10", str(seconds), sys.executable, "-m", "snakemake"]
        words += ["-s", str(repository / "Snakefile"), "-d", str(directory), *arguments]
        return [*words, "--configfile", str(repository / TINY), str(overlay)]

    return build


@pytest.fixture(scope="session")
def locally(command: Callable[..., list[str]]) -> Callable[..., None]:
    """Run rules on this machine, without the cluster: ``locally(directory, *targets)``."""

    def run(directory: Path, *targets: str) -> None:
        done = subprocess.run(
            command(directory, 1800, "--cores", "2", *targets),
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture(scope="session")
def start(repository: Path, cluster: Cluster, command: Callable[..., list[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Start Snakemake on the cluster with the shipped profile: ``start(directory, seconds, *targets)``."""

    def run(directory: Path, seconds: int, *targets: str) -> subprocess.Popen[str]:
        profile = repository / "profiles" / "slurm"
        with (directory / "snakemake.log").open("w") as log:
            return subprocess.Popen(
                command(directory, seconds, "--profile", str(profile), *QUICK, *targets),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=cluster.environment | {"OMP_NUM_THREADS": "1"},
            )

    return run
