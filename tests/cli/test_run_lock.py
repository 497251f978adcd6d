"""One Snakemake in a folder: a lock that a killed process does not leave behind."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from d2rnet.cli.run_lock import hold_run
from d2rnet.cli.run_state import RUN_LOCK
from d2rnet.errors import D2RNetError

HOLDER = """
    import sys, time
    from pathlib import Path
    from d2rnet.cli.run_lock import hold_run
    sys.argv = ["snakemake", "--cores", "1"]
    hold_run(Path.cwd())
    print("held", flush=True)
    time.sleep(60)
"""


TAKE = "from pathlib import Path; from d2rnet.cli.run_lock import hold_run; hold_run(Path.cwd())"


def start(folder: Path, program: Path, *words: str) -> subprocess.Popen[str]:
    """Start a script in a folder and wait for its first line."""
    process = subprocess.Popen([sys.executable, program, *words], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    """A script that takes the lock of its folder and keeps it."""
    (tmp_path / "holder.py").write_text(textwrap.dedent(HOLDER))
    return tmp_path / "holder.py"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A script that looks like the program of a job."""
    (tmp_path / "d2rnet").write_text("import time\nprint(1, flush=True)\ntime.sleep(60)\n")
    return tmp_path / "d2rnet"


def test_two_at_once_are_refused_and_a_killed_one_leaves_no_lock(holder: Path, tmp_path: Path) -> None:
    first = start(tmp_path, holder)
    try:
        with pytest.raises(D2RNetError, match=rf"process {first.pid} on .* is running the workflow here"):
            hold_run(tmp_path)
    finally:
        first.kill()
        first.wait()
    assert (tmp_path / RUN_LOCK).exists()
    done = subprocess.run([sys.executable, "-c", TAKE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("command", "is_job"), [("predict-boxes-shard", True), ("read", False)])
def test_a_job_that_outlived_its_snakemake_is_named(job: Path, tmp_path: Path, command: str, is_job: bool) -> None:
    left = start(tmp_path, job, command)
    done = subprocess.run([sys.executable, "-c", TAKE], cwd=tmp_path, capture_output=True, text=True)
    left.kill()
    left.wait()
    assert (f"process {left.pid} ({command}) still works here" in done.stderr) == is_job
    assert (f"'kill {left.pid}'" in done.stderr) == (done.returncode != 0) == is_job
