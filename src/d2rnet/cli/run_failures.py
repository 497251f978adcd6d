"""The jobs of a workflow that failed, each in its own words: what a user wants to see last on the screen.

Reads Snakemake's log and the logs of the jobs that it names. Writes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN_LINES = 15
SHOWN_JOBS = 10
TAIL_BYTES = 100_000
_ERROR = re.compile(r"^\s*(?:Error in )?rule (\w+):$")
_FIELD = re.compile(r"^\s+(jobid|output|log): (.*)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+)\b")
# How the logs of this package begin a line, and the line that tells why a sub-command ended.
STAMPED = re.compile(r"^\d\d:\d\d:\d\d ")
_TOLD = re.compile(r"^\d\d:\d\d:\d\d [a-z][a-z-]+: ")
_UNTOLD = "it ended without a word of its own: killed, most often for lack of memory or at its time limit"


@dataclass(frozen=True)
class FailedJob:
    """A job that failed and did not end well later.

    Attributes:
        rule: its rule.
        logs: its own log, then that of the scheduler, relative to the run's folder or absolute.
    """

    rule: str
    logs: tuple[str, ...]


def failed_jobs(log: Path) -> list[FailedJob]:
    """Return the jobs that failed for good, in the order in which Snakemake says so.

    Args:
        log: log of one start of Snakemake; damaged parts are passed over.
    """
    failed: dict[str, FailedJob] = {}
    rule, number = "", ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if error := _ERROR.match(line):
            rule, number = error[1] if "Error in" in line else "", ""
        elif finished := _FINISHED.match(line):
            failed.pop(finished[1], None)
        elif rule and (field := _FIELD.match(line)):
            if field[1] == "jobid":
                number = field[2]
                failed.pop(number, None)  # a further attempt
                failed[number] = FailedJob(rule, ())
            elif field[1] == "log" and number:
                files = field[2].removesuffix(" (check log file(s) for error details)")
                failed[number] = FailedJob(rule, tuple(files.split(", ")))
        elif not line.startswith(" "):
            rule = ""
    return list(failed.values())


def failure_lines(folder: Path, log: Path) -> Iterator[str]:
    """Lay out why the jobs of a start of Snakemake failed.

    Args:
        folder: working directory of the workflow.
        log: log of that start.

    Yields:
        Lines for a terminal; none where no job failed.
    """
    jobs = failed_jobs(log)
    for job in jobs[:SHOWN_JOBS]:
        yield f"{job.rule} failed:"
        yield from (f"  {line}" for line in reason_of([folder / name for name in job.logs]))
        yield from (f"  log: {folder / name}" for name in job.logs)
    if len(jobs) > SHOWN_JOBS:
        yield f"and {len(jobs) - SHOWN_JOBS} more jobs, named in {log}"


def reason_of(logs: Sequence[Path]) -> list[str]:
    """Return the lines in which a job says why it ended: the last message of its sub-command, the last line of a traceback.

    Args:
        logs: its own log, then that of the scheduler, which alone tells of a job that did not come to log anything.
    """
    tails = [tail for tail in map(tail_of, logs) if tail]
    for lines in tails:
        told = next((place for place in reversed(range(len(lines))) if _TOLD.match(lines[place])), None)
        if told is not None and not any(STAMPED.match(line) for line in lines[told + 1 :]):
            return _shortened([STAMPED.sub("", lines[told]), *lines[told + 1 :]])
    last = [line for lines in tails for line in lines[-3:]]
    return [f"{_UNTOLD}. The last of its log{'s' if len(tails) > 1 else ''}:", *last] if last else [f"{_UNTOLD}; no log"]


def tail_of(path: Path) -> list[str]:
    """Return the last lines of a log, without empty ones; [] where there is none."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _shortened(lines: list[str]) -> list[str]:
    """Leave out the inside of a traceback, and of a long list the middle."""
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return [lines[0], lines[-1]]
    if len(lines) > SHOWN_LINES:
        return [*lines[: SHOWN_LINES - 2], f"  ({len(lines) - SHOWN_LINES + 1} more lines)", lines[-1]]
    return lines
