"""The benchmark of CT conversion compares like with like; a volume of two gigabytes converts within four."""

import re
import subprocess
import sys

import pytest


def run(repository, *options: str) -> str:
    """What the benchmark prints."""
    command = [sys.executable, repository / "benchmarks" / "volumes.py", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_recipes_give_the_same_volume(repository):
    printed = run(repository, "--slices", "12", "--repeat", "1")
    found = re.search(r"difference of ours from usual: at most ([\d.]+) HU", printed)
    assert found and float(found[1]) <= 2
    assert re.search(r"floor: inflate, ISA-L +[\d.]+ s", printed)


@pytest.mark.slow
def test_memory_of_1024_x_1024_x_1000(repository):
    found = re.search(r"int16, \.nii\.gz: (\d+) MiB at the most", run(repository, "--memory", "1000"))
    assert found and int(found[1]) < 4096
