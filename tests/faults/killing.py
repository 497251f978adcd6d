"""Kills a running workflow at chosen moments and in three ways, and looks after what it leaves running.

Every process that works for a run has the run's folder as its working directory, which is how they are found, whoever their
parent is.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "tests" / "workflow"))  # which pytest does; the battery is a program of its own
from warm_snakemake import warm_snakemake  # noqa: E402 (found only now)

PRESETS = REPOSITORY / "workflow" / "presets"
TINY = (PRESETS / "cxr" / "tiny.yaml", PRESETS / "ct" / "tiny.yaml")
EVERYTHING = ("cxr", "ct")
WAYS = ("job", "snakemake", "group")
CORES = 2  # those of the shared run: the number of threads decides how sums are rounded
POLL_SECONDS = 0.002
PATIENCE_SECONDS = 1200.0  # a machine with many other busy processes is slow
ORPHAN_SECONDS = 60.0  # children of a killed process have ended after this


class NotReachedError(Exception):
    """The moment to kill at never came: the workflow ended before it."""


@dataclass(frozen=True)
class Killed:
    """What a kill hit: the sub-command that was running ("" between two jobs), and how long it had run."""

    command: str
    seconds: float


def words_of(folder: Path, *arguments: str, cores: int = 1) -> list[str]:
    """Arguments of Snakemake on the tiny cohorts in ``folder``."""
    base = ["-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    return [*base, "--configfile", *map(str, TINY), "--cores", str(cores), *arguments]  # words behind --configfile are files


def environment() -> dict[str, str]:
    """One thread wherever a library asks the environment; no colours."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "NO_COLOR": "1"}


def run_snakemake(folder: Path, *arguments: str, cores: int = 1) -> subprocess.CompletedProcess[str]:
    """Run Snakemake to its end; its output is in ``stdout``."""
    return warm_snakemake(*words_of(folder, *arguments, cores=cores), environment=environment(), one_stream=True)


class Workflow:
    """Snakemake and everything below it, in a process group of their own."""

    def __init__(self, folder: Path, *arguments: str, cores: int = 1) -> None:
        """Start it; its output goes to ``output``, a file beside the folder."""
        self.folder = folder
        self.output = folder.with_name(f"{folder.name}.output.txt")
        command = [sys.executable, "-m", "snakemake", *words_of(folder, *arguments, cores=cores)]
        with self.output.open("ab") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment(), start_new_session=True)

    def wait_for(self, is_time: Callable[[], bool], *, every: float = POLL_SECONDS) -> None:
        """Return as soon as ``is_time()``.

        Raises:
            NotReachedError: the workflow has ended.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_time():
            if self.process.poll() is not None or time.monotonic() > end:
                raise NotReachedError(self.output.read_text(encoding="utf-8", errors="replace")[-3000:])
            time.sleep(every)

    def wait_for_job(self, command: str) -> psutil.Process:
        """Return the process of a sub-command as soon as it runs."""
        found: list[psutil.Process] = []

        def has_begun() -> bool:
            found[:] = [process for process, name in jobs_in(self.folder) if name == command]
            return bool(found)

        self.wait_for(has_begun)
        return found[0]

    def kill(self, way: str) -> Killed:
        """Kill with SIGKILL: the job's own process, Snakemake alone, or the whole process group.

        A job is killed only where one is running; between two jobs the way ``job`` takes Snakemake.
        """
        jobs = jobs_in(self.folder)
        hit = Killed(jobs[0][1], round(time.time() - jobs[0][0].create_time(), 2)) if jobs else Killed("", 0.0)
        if way == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        elif way == "job" and jobs:
            jobs[0][0].kill()
        else:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        return hit


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every live process whose working directory is ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def jobs_in(folder: Path) -> list[tuple[psutil.Process, str]]:
    """The jobs' own processes, without the children that they made, and their sub-commands."""
    found = {}
    for process in processes_in(folder):
        try:
            if command := sub_command(process):
                found[process.pid] = process, command, process.ppid()
        except psutil.Error:
            continue
    return [(process, command) for process, command, parent in found.values() if parent not in found]


def sub_command(process: psutil.Process) -> str:
    """Sub-command of a job's process, "" for any other process."""
    words = process.cmdline()
    place = next((n for n, pair in enumerate(pairwise(words)) if pair == ("-m", "d2rnet")), None)
    return words[place + 2] if place is not None and place + 2 < len(words) else ""


def wait_until_alone(folder: Path, *, but: Sequence[str] = (), seconds: float = ORPHAN_SECONDS) -> list[str]:
    """Wait until nobody works in ``folder`` any more; return the command lines of those that stay.

    Args:
        folder: the run's folder.
        but: sub-commands that may stay.
        seconds: how long to wait.
    """
    end = time.monotonic() + seconds
    while True:
        keepers = {process.pid for process, command in jobs_in(folder) if command in but}
        kept = keepers | {child.pid for pid in keepers for child in _children(pid)}
        others = [process for process in processes_in(folder) if process.pid not in kept]
        if not others or time.monotonic() > end:
            return [_shown(process) for process in others]
        time.sleep(0.1)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)


def end_all(folder: Path) -> None:
    """Kill whoever still works in a folder; for the end of a test that failed."""
    for process in processes_in(folder):
        try:
            process.kill()
        except psutil.Error:
            continue
