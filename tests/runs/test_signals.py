"""Stop signals to a whole process group, as schedulers send them."""

import subprocess
import sys
import textwrap

import pytest

CODE = """
    import multiprocessing, os, signal, time
    from d2rnet.runs.signals import start_resource_tracker, take_stop_signals
    take_stop_signals(lambda number, frame: print("asked to stop", flush=True))
    if {early}:
        start_resource_tracker()
    lock = multiprocessing.get_context("spawn").Lock()
    os.killpg(0, signal.SIGUSR1)
    time.sleep(0.5)
    multiprocessing.get_context("spawn").Lock()
"""


@pytest.mark.parametrize("early", [True, False], ids=["ours", "Python's own"])
def test_a_signal_to_all_processes_of_a_job_leaves_no_noise(early: bool) -> None:
    code = textwrap.dedent(CODE).format(early=early)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True)
    assert (done.returncode, done.stdout) == (0, "asked to stop\n")
    assert (done.stderr == "") == early  # the day that Python's own keeps quiet, ours can go
