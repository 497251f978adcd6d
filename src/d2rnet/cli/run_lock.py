"""One Snakemake in a working directory: a lock that ends with its process, however that ends.

Snakemake's own lock is a file, which a killed Snakemake leaves behind and nobody may remove unasked: nothing in it says whose
it is. Profile ``default`` switches it off; this one is the kernel's, on a shared file system for all of its machines, and gone
as soon as its process is. So after a kill the same command goes on. Jobs that a killed Snakemake left at work on this machine
must end first: a second one of the same kind would only repeat them.

Writes: ``.snakemake/d2rnet.lock``, who holds it beside it, and ``.snakemake/d2rnet.command.json``, how Snakemake was called.
"""

import atexit
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from d2rnet.cli.commands import FOR_PEOPLE
from d2rnet.cli.run_state import COMMAND_FILE, RUN_LOCK, work_processes
from d2rnet.errors import D2RNetError
from d2rnet.files.documents import write_json
from d2rnet.runs.workdir import hold_lock

NO_JOBS = {"snakemake", *(name.split()[0] for name in FOR_PEOPLE)}  # first words of commands that no rule calls


def hold_run(folder: Path) -> None:
    """Take the lock of a working directory until this process ends, and note how it was called.

    Args:
        folder: working directory of the workflow.

    Raises:
        D2RNetError: another Snakemake works there, or a job that one left behind.
    """
    place = folder / RUN_LOCK
    place.parent.mkdir(exist_ok=True)
    held = ExitStack()
    held.enter_context(hold_lock(place, what=folder, doing="running the workflow here"))
    atexit.register(held.close)
    jobs = [job for job in work_processes(folder) or () if job.command not in NO_JOBS]
    if jobs:
        named = ", ".join(f"process {job.pid} ({job.command})" for job in jobs)
        numbers = " ".join(str(job.pid) for job in jobs)
        raise D2RNetError(
            f"{folder}: {named} still works here, left by a killed Snakemake or started by hand. Wait for it or end it "
            f"('kill {numbers}'; a training then saves its state), then run again."
        )
    write_json(folder / COMMAND_FILE, {"text": " ".join(sys.argv), "command": called_as(sys.argv)})


def called_as(words: list[str]) -> str:
    """Return a command line that a shell takes for these words of a process (``sys.argv``)."""
    program = [sys.executable, "-m", "snakemake"] if Path(words[0]).name == "__main__.py" else words[:1]
    return shlex.join([*program, *words[1:]])
