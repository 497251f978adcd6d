"""A run on the screen: a line a job when it ends, progress below, errors whole, and a log file for everything else."""

import io
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from d2rnet.cli import run_screen
from d2rnet.cli.logs import FILE_ALONE
from d2rnet.cli.run_screen import LogHandler, clock, progress_of

TRAIN = {"jobid": 2, "rule_name": "train_detector", "rule_msg": "Train the detector", "log": ["logs/train.log"]}
TARGET = {"jobid": 0, "rule_name": "cxr", "rule_msg": None, "log": []}


def record(message="", level=logging.INFO, **fields):
    made = logging.LogRecord("snakemake.logging", level, "", 0, message, (), None)
    made.__dict__.update(fields)
    return made


@pytest.fixture
def handler(monkeypatch):
    """A handler of a run that ends with the test; the clock stands still until it is told otherwise."""
    monkeypatch.setenv(FILE_ALONE, "before")
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(run_screen.time, "monotonic", lambda: now.seconds)
    made = LogHandler(SimpleNamespace(dryrun=False, stdout=False, quiet=None), None)
    made.now, made.stream = now, io.StringIO()
    yield made
    made.close()


def shown(handler) -> str:
    """What the handler has written since it was asked last."""
    text = handler.stream.getvalue()
    handler.stream.seek(0)
    handler.stream.truncate()
    return text


def test_each_job_is_a_line_when_it_ends(handler):
    assert os.environ[FILE_ALONE] == "1"
    handler.handle(record("Job stats:\n...", event=LogEvent.RUN_INFO, stats={"train_detector": 1, "cxr": 1, "total": 2}))
    handler.handle(record("Execute 1 jobs...", event=LogEvent.JOB_STARTED, jobs=[2]))
    handler.handle(record(event=LogEvent.JOB_INFO, **TRAIN))
    handler.handle(record("python -m d2rnet train-detector", event=LogEvent.SHELLCMD))
    handler.now.seconds = 3671.0
    handler.handle(record(event=LogEvent.JOB_FINISHED, job_id=2))
    handler.handle(record(event=LogEvent.PROGRESS, done=1, total=2))
    handler.handle(record(event=LogEvent.JOB_INFO, **TARGET))
    handler.handle(record(event=LogEvent.JOB_FINISHED, job_id=0))
    assert shown(handler).splitlines() == [
        "1 job to do; what they say is in logs/",
        "[1/1] 1:01:11  train_detector               Train the detector",
        "done in 1:01:11",
    ]


def test_warnings_and_errors_are_shown_and_the_rest_is_not(handler):
    handler.handle(record("Building DAG of jobs..."))
    handler.handle(record("Nothing to be done (all requested files are present and up to date)."))
    handler.handle(record("a rule is odd", logging.WARNING))
    handler.handle(record("MissingInputException in rule x", logging.ERROR, event=LogEvent.ERROR))
    handler.handle(
        record("RuleException:\nCalledProcessError in file x:\nCommand 'set -euo", logging.ERROR, event=LogEvent.ERROR)
    )
    handler.handle(record("WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR))
    handler.handle(record(event=LogEvent.JOB_INFO, **TRAIN))
    handler.now.seconds = 5.0
    handler.handle(record("Error in rule train_detector", logging.ERROR, event=LogEvent.JOB_ERROR, jobid=2))
    handler.handle(record("Trying to restart job 2."))
    assert shown(handler).splitlines() == [
        "Nothing to be done (all requested files are present and up to date).",
        "a rule is odd",
        "MissingInputException in rule x",
        "WorkflowError:",
        "At least one job did not complete successfully.",
        "failed    0:05  train_detector               logs/train.log",
        "Trying to restart job 2.",
    ]


def test_progress_is_a_line_below_that_is_written_over(handler, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    handler.live = True
    handler.handle(record(event=LogEvent.JOB_INFO, **TRAIN))
    handler._show_progress()
    assert shown(handler) == "\r\x1b[K0:00 train_detector: Train the detector"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/train.log").write_text(
        "08:00:00 train: 3/9 iterations, 2.0 iterations/s, ETA 0:00:03\n08:00:01 loss 2\n"
    )
    handler.now.seconds = 9.0
    handler._say("[1/2] another job")
    told = "0:09 train_detector: train: 3/9 iterations, 2.0 iterations/s, ETA 0:00:03"
    assert shown(handler) == f"\r\x1b[K[1/2] another job\n\r\x1b[K{told[:59]}"
    handler.close()
    handler._say("the end")
    assert shown(handler) == "\r\x1b[K\r\x1b[Kthe end\n"


def test_a_file_gets_progress_of_long_jobs_only(handler):
    handler.handle(record(event=LogEvent.JOB_INFO, **TRAIN))
    handler.now.seconds = run_screen.EVERY_SECONDS_IN_A_FILE - 1
    handler._show_progress(ticked=True)
    handler.now.seconds += 1
    handler._show_progress()
    assert shown(handler) == ""
    handler._show_progress(ticked=True)
    assert shown(handler) == "  ...    0:30  train_detector               Train the detector\n"


def test_a_dry_run_shows_what_snakemake_shows(monkeypatch, capsys):
    monkeypatch.delenv(FILE_ALONE, raising=False)
    handler = LogHandler(SimpleNamespace(dryrun=True, stdout=True, quiet=None), None)
    handler.handle(record("This was a dry-run"))
    handler.handle(record("python -m d2rnet", event=LogEvent.SHELLCMD))
    handler.close()
    assert capsys.readouterr().out == "This was a dry-run\n" and FILE_ALONE not in os.environ


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("Traceback\n", ""),
        ("08:00:00 one\n08:00:01 two\n  more of it\n", "two"),
        ("08:00:00 x: 1/9, ETA 0:00:08\n08:00:01 loss 1\n08:00:02 loss 2\n", "x: 1/9, ETA 0:00:08"),
        ("08:00:00 x: 1/9, ETA 0:00:08\n08:00:01 a\n08:00:02 b\n08:00:03 c\n", "c"),
    ],
)
def test_progress_is_the_last_of_the_log(tmp_path, text, told):
    (tmp_path / "x.log").write_text(text)
    assert progress_of(tmp_path / "x.log") == told
    assert progress_of(tmp_path / "none.log") == ""


def test_durations():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599.4, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]


PRINTER = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from d2rnet.cli.logs import set_up_logging
set_up_logging(Path(sys.argv[1]) if sys.argv[1:] else None, command="train-detector", verbose=True)
logging.getLogger("d2rnet.x").info("an info")
logging.getLogger("d2rnet.x").warning("a \\x1b[31mwarning")
logging.getLogger("d2rnet.x").error("an error")
logging.getLogger("torch").warning("of a library")
warnings.warn("deprecated", FutureWarning)
print("a table", flush=True)
os.write(2, b"from C\\n")
subprocess.run(["sh", "-c", "echo from a child >&2"])
"""
EVERYTHING = (
    "an info",
    "a \\x1b[31mwarning",
    "an error",
    "of a library",
    "FutureWarning: deprecated",
    "from C",
    "from a child",
)


@pytest.mark.parametrize("told", [True, False], ids=["a run told job by job", "alone"])
def test_what_a_job_prints_is_in_its_log_and_its_warnings_on_the_screen(tmp_path, told):
    log = tmp_path / "logs" / "x.log"
    environment = {key: value for key, value in os.environ.items() if key != FILE_ALONE} | ({FILE_ALONE: "1"} if told else {})
    call = [sys.executable, "-c", PRINTER, log]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=True)
    screen, written = done.stdout + done.stderr, log.read_text()
    if told:
        assert screen == "train-detector: a \\x1b[31mwarning\n"
        assert all(part in written for part in (*EVERYTHING, "a table"))
    else:
        assert all(part in screen for part in (*EVERYTHING, "a table")) and "from C" not in written
        assert "an error" in written
    without = subprocess.run(call[:-1], capture_output=True, text=True, env=environment, check=True)
    assert "an info" in without.stderr and without.stdout == "a table\n"
