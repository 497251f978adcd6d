"""The profile for another scheduler that profiles/README.md shows: its submit command gets what the rules ask for."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from slurm_runs import command, copy_state, write_overlay

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
QSUB = """#!/bin/sh
echo "$@" >> {log}
for script; do :; done
setsid sh "$script" > /dev/null 2>&1 &
echo $!.server
"""
GPU_JOB = "-l select=1:ncpus=1:mem=4000mb:ngpus=1 -l walltime=1440:00"
JOIN = "-l select=1:ncpus=1:mem=4000mb:ngpus=0 -l walltime=60:00"


def test_prediction_through_the_documented_profile(run: Path, repository: Path, tmp_path: Path) -> None:
    page = (repository / "profiles" / "README.md").read_text().partition("## Another scheduler")[2]
    profile, programs, folder = tmp_path / "profile", tmp_path / "bin", tmp_path / "run"
    for path in (profile, programs):
        path.mkdir()
    (profile / "config.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[1])
    (programs / "qsub").write_text(QSUB.format(log=tmp_path / "qsub.log"))
    (programs / "qsub").chmod(0o755)
    write_overlay(folder, {"prediction_shards": 2})
    copy_state(run, folder, "resources", "results/cxr/train_detector")
    done = subprocess.run(
        command(folder, 600, "--profile", str(profile), "predict_boxes"),
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "results/cxr/predict_boxes/predictions.json").is_file()
    asked = [line.rpartition(" ")[0] for line in (tmp_path / "qsub.log").read_text().splitlines()]
    assert asked == [GPU_JOB, GPU_JOB, JOIN]
