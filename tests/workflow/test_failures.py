"""What is on the screen when a run ends badly: the reason, last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = "workflow/presets/cxr/tiny.yaml"


def snakemake(repository: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake with everything it prints in ``stdout``, in the order of the screen."""
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "-d", str(directory), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_the_reason_of_a_failed_job_is_the_last_thing_on_the_screen(repository, tmp_path):
    overlay = tmp_path / "mine.yaml"
    roots = {"labelled": {"root": "/nowhere"}, "reports": {"root": "/nowhere"}}
    overlay.write_text(json.dumps({"cxr": {"data": {"demo": {"enabled": False}, **roots}}}))
    run = tmp_path / "a run"
    done = snakemake(repository, run, "verify_inputs", "--cores", "1", "--configfile", str(repository / TINY), str(overlay))
    assert done.returncode == 1
    last = done.stdout.rpartition("At least one job did not complete successfully.\n\n")[2].splitlines()
    assert last[0] == "verify_inputs failed:" and last[1].startswith("  verify-inputs: ")
    assert any("/nowhere/train: cxr.data.labelled.root: got no such file" in line for line in last)
    assert last[-2] == f"  log: {run}/logs/cxr/verify_inputs.log"
    assert last[-1].startswith("what to do: ") and last[-1].endswith(f"d2rnet doctor --run '{run}'")


@pytest.mark.parametrize(
    ("overlay", "reason"),
    [
        ({"cxr": {"annotation": {"max_box": 3}}}, "cxr.annotation.max_box: unknown key; did you mean 'max_boxes'?"),
        ({"cxr": {"ablation": {"design": "gone.yaml"}}}, "gone.yaml"),
    ],
    ids=["setting", "design"],
)
def test_the_reason_of_a_failure_inside_the_snakefile_too(repository, tmp_path, overlay, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(overlay))
    done = snakemake(repository, tmp_path, "-n", "--configfile", str(path))
    assert done.returncode == 1
    assert reason in done.stdout.splitlines()[-1] and ' File "' not in done.stdout
