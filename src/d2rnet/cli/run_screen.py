"""A run of the workflow on the screen: a line a job with its duration when it ends, and below them how far the others are.

What jobs print goes to their logs (:mod:`d2rnet.cli.logs`), what Snakemake says of them to its own log. Errors are shown
whole, and the reason of each failed job is told at the very end (:mod:`d2rnet.cli.run_failures`).

Reads: the last lines of the logs of running jobs. Writes: nothing. Used by: ``make demo``, ``snakemake --logger d2rnet``.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from d2rnet.cli.logs import CLEAR_LINE, FILE_ALONE
from d2rnet.cli.run_failures import STAMPED, tail_of

EVERY_SECONDS = 1.0  # on a terminal
EVERY_SECONDS_IN_A_FILE = 30.0
LAST_LINES = 3  # of a log; one with the remaining time is preferred to a later one without
RULE_WIDTH = 28
# What Snakemake says without being asked and a user wants to know all the same.
SHOWN = ("Nothing to be done", "Terminating", "Will exit", "Trying", "Unlocked")
TOLD_AT_THE_END = "RuleException:\nCalledProcessError"  # with a long command line; the reason of the job follows
TARGETS = ("cxr", "ct")  # rules that do nothing themselves


@dataclass(frozen=True)
class Job:
    """A running job.

    Attributes:
        rule: its rule.
        what: what it does, in a sentence; "" for a target, which does nothing.
        log: its log, "" for none.
        start: when it began, seconds.
    """

    rule: str
    what: str
    log: str
    start: float

    def line(self, now: float, what: str) -> str:
        """Lay out its duration, its rule and what there is to say of it."""
        return f"{clock(now - self.start):>8}  {self.rule:<{RULE_WIDTH}} {what}"

    def progress(self) -> str:
        """Return the last that it has logged, or what it does."""
        return progress_of(Path(self.log)) or self.what


class LogHandler(LogHandlerBase):
    """Takes what Snakemake logs and shows what matters."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Begin: jobs started from here leave the screen alone."""
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.start = time.monotonic()
        self.running: dict[int, Job] = {}
        self.done = self.total = 0
        self.stopped = threading.Event()
        if self.common_settings.dryrun:
            self._show_all()
            return
        os.environ[FILE_ALONE] = "1"
        threading.Thread(target=self._tick, daemon=True).start()

    def _show_all(self) -> None:
        """Show what Snakemake itself shows: a dry run runs no job that could be told."""
        from snakemake.logging import DefaultFormatter

        self.setFormatter(DefaultFormatter(self.common_settings.quiet))

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or take note of it."""
        try:
            self._take(record)
        except Exception:
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        fields = record.__dict__
        if self.common_settings.dryrun:
            if event is not LogEvent.SHELLCMD and (text := self.format(record)) not in ("", "None"):
                self._say(text)
        elif event is LogEvent.RUN_INFO:
            self._begin(fields["stats"])
        elif event is LogEvent.JOB_INFO:
            self._started(fields)
        elif event is LogEvent.JOB_FINISHED:
            self._finished(fields["job_id"])
        elif event is LogEvent.JOB_ERROR:
            self._failed(fields)
        elif _is_shown(record):
            self._say(record.getMessage())

    def _begin(self, stats: Mapping[str, int]) -> None:
        """Say how many jobs there are."""
        self.total = stats["total"] - sum(stats.get(rule, 0) for rule in TARGETS)
        self._say(f"{self.total} job{'s' * (self.total != 1)} to do; what they say is in logs/")

    def _started(self, fields: Mapping[str, object]) -> None:
        log = fields["log"]
        first = str(log[0]) if isinstance(log, list) and log else ""
        number = fields["jobid"]
        assert isinstance(number, int)
        self.running[number] = Job(str(fields["rule_name"]), str(fields["rule_msg"] or ""), first, time.monotonic())

    def _finished(self, number: int) -> None:
        job = self.running.pop(number, None)
        if job is None or not job.what:
            return
        self.done += 1
        count = f"[{self.done:>{len(str(self.total))}}/{self.total}]"
        self._say(f"{self._before(count)}{job.line(time.monotonic(), job.what)}")
        if self.done == self.total:
            self._say(f"done in {clock(time.monotonic() - self.start)}")

    def _failed(self, fields: Mapping[str, object]) -> None:
        number = fields["jobid"]
        job = self.running.pop(number, None) if isinstance(number, int) else None
        if job is not None:
            self._say(f"{self._before('failed')}{job.line(time.monotonic(), job.log)}")

    def _before(self, word: str) -> str:
        """Return a word as wide as the count of jobs, which the lines of jobs begin with."""
        return f"{word:>{2 * len(str(self.total)) + 3}}"

    def _say(self, text: str) -> None:
        """Show lines that stay, in the place of the line of progress, which comes back below them."""
        self.stream.write((CLEAR_LINE if self.live else "") + text + "\n")
        self._show_progress()
        self.stream.flush()

    def _tick(self) -> None:
        """Show the progress from time to time, until the end."""
        every = EVERY_SECONDS if self.live else EVERY_SECONDS_IN_A_FILE
        while not self.stopped.wait(every):
            self.acquire()
            try:
                self._show_progress(ticked=True)
                self.stream.flush()
            finally:
                self.release()

    def _show_progress(self, *, ticked: bool = False) -> None:
        """Show how far the running jobs are: in one line that is written over, or, in a file, below the others."""
        now = time.monotonic()
        least = 0.0 if self.live else EVERY_SECONDS_IN_A_FILE
        jobs = [job for job in self.running.values() if job.what and now - job.start >= least]
        if self.stopped.is_set() or not jobs:
            return
        if self.live:
            line = " | ".join(f"{clock(now - job.start)} {job.rule}: {job.progress()}" for job in jobs)
            self.stream.write(CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        elif ticked:
            for job in jobs:
                self.stream.write(f"{self._before('...')}{job.line(now, job.progress())}\n")

    def close(self) -> None:
        """End: nothing is left in the place of the progress."""
        if not self.stopped.is_set():
            self.stopped.set()
            if self.live:
                self.stream.write(CLEAR_LINE)
            self.stream.flush()
        super().close()


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a record that is not of a job is shown."""
    text = record.getMessage()
    if record.levelno >= logging.WARNING:
        return not text.startswith(TOLD_AT_THE_END)
    return getattr(record, "event", None) is None and text.startswith(SHOWN)


def progress_of(log: Path) -> str:
    """Return the last that a job has logged, without its time; "" where there is nothing yet."""
    lines = [STAMPED.sub("", line) for line in tail_of(log) if STAMPED.match(line)][-LAST_LINES:]
    return next((line for line in reversed(lines) if " ETA " in line), lines[-1] if lines else "")


def clock(seconds: float) -> str:
    """Format a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
