"""What a run has left in its working directory: unfinished files, checkpoints, locks, processes, and how it was started last.

Reads Snakemake's records (``.snakemake``), the work folders and locks of d2rnet.runs.workdir, and the processes (Linux).
Changes nothing, so it may look at a run that goes on. Which results there are and which are to be made, Snakemake itself tells
(``--summary``, ``-n``). :mod:`d2rnet.cli.run_report` puts it into words.
"""

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2rnet.errors import D2RNetError
from d2rnet.files.atomic import leftovers
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.runs.earlier_work import IDENTITY
from d2rnet.runs.workdir import LockHolder, read_holder

INCOMPLETE = ".snakemake/incomplete"
LOCKS = ".snakemake/locks"
METADATA = ".snakemake/metadata"
LOGS = ".snakemake/log"
RUN_LOCK = ".snakemake/d2rnet.lock"  # of d2rnet.cli.run_lock: one Snakemake at a time
COMMAND_FILE = ".snakemake/d2rnet.command.json"  # how it was called, quoted; Snakemake's log has the bare words
STATE_FOLDERS = ("work", "resources", "results")
NO_RUN = re.compile(r" (?:-n|--dry-run|--dryrun|--unlock|--touch|--report|--lint|--summary|--detailed-summary)\b")
ALL_DONE = re.compile(r"\(100%\) done|^ *Nothing to be done", flags=re.MULTILINE)
DETECTOR_CHECKPOINT = "checkpoint.pth"
REPORT_CHECKPOINT = "last.pt"
KEPT_VOLUMES = {  # folder of the CT wing -> what in it is a volume that is done
    "resources/ct/convert_ct/volumes": "*/*.json",
    "results/ct/extract_ct_features/features": "**/*.safetensors",
}


@dataclass(frozen=True)
class Invocation:
    """The last time that Snakemake was started to run something.

    Attributes:
        command: the command line, quoted for a shell where it is known how.
        folder: where it was given.
        is_complete: it says that all was done.
        log: Snakemake's log of it.
    """

    command: str
    folder: str
    is_complete: bool
    log: Path


@dataclass(frozen=True)
class Process:
    """A process that works in the run's folder; ``command`` is a sub-command, or "snakemake"."""

    pid: int
    command: str


@dataclass(frozen=True)
class Lock:
    """A lock that somebody took and did not give back; ``is_stale`` says that its process has ended."""

    file: Path
    holder: LockHolder
    is_stale: bool


@dataclass(frozen=True)
class WorkFolder:
    """A work folder, and in words how far its checkpoint is."""

    path: Path
    progress: str
    is_finished: bool


@dataclass(frozen=True)
class RunState:
    """Everything that is known of a run; paths are relative to ``folder``.

    Attributes:
        folder: the working directory.
        incomplete: outputs of jobs that began and did not finish.
        is_locked: Snakemake's lock is there.
        invocation: what was started last; None if no log tells.
        processes: processes at work in the folder; None where that cannot be known.
        work_folders: folders that training resumes from.
        converted: manifest of a conversion, or folder of volumes -> images or volumes that need not be made again.
        locks: locks that are held or were left behind.
        leftovers: temporary files: being written, or left by a killed process.
    """

    folder: Path
    incomplete: list[str]
    is_locked: bool
    invocation: Invocation | None
    processes: list[Process] | None
    work_folders: list[WorkFolder] = field(default_factory=list)
    converted: dict[Path, int] = field(default_factory=dict)
    locks: list[Lock] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)


def read_run_state(folder: Path) -> RunState:
    """Look at a run.

    Args:
        folder: working directory of the workflow, or its ``results`` folder.

    Raises:
        D2RNetError: Snakemake has never run there.
    """
    folder = folder.resolve()
    if not (folder / ".snakemake").is_dir() and (folder.parent / ".snakemake").is_dir():
        folder = folder.parent
    if not (folder / ".snakemake").is_dir():
        raise D2RNetError(
            f"{folder}: no folder .snakemake here or above; expected the folder that a workflow ran in (--directory of "
            "Snakemake, or where it was started), or its results folder."
        )
    below = [path for name in STATE_FOLDERS for path in sorted((folder / name).rglob("*"))]
    return RunState(
        folder=folder,
        incomplete=sorted(filter(None, map(_named, _files(folder / INCOMPLETE)))),
        is_locked=any((folder / LOCKS).glob("*")),
        invocation=_last_invocation(folder),
        processes=work_processes(folder),
        work_folders=[_work_folder(path.parent) for path in below if path.name == IDENTITY],
        converted=dict(_converted(folder, below)),
        locks=[lock for path in [folder / RUN_LOCK, *below] if path.name.endswith(".lock") for lock in _lock(path)],
        leftovers=[path for place in below if place.is_dir() for path in leftovers(place)],
    )


def made_here(folder: Path) -> list[Path]:
    """Return the outputs that Snakemake has made in a working directory, as it noted them, relative to it."""
    return [Path(name) for name in filter(None, map(_named, _files(folder / METADATA)))]


def _files(folder: Path) -> list[Path]:
    """List the files below a folder, relative to it."""
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]


def _named(record: Path) -> str:
    """Return the output that a file of Snakemake's is about, "" if that cannot be told.

    Its path is the name in URL-safe base64; parts of long names are folders that begin with "@".
    """
    try:
        return base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in record.parts)).decode("utf-8")
    except ValueError:  # no base64, no ASCII or no UTF-8
        return ""


def _last_invocation(folder: Path) -> Invocation | None:
    for path in sorted((folder / LOGS).glob("*.snakemake.log"), reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace")
        command = re.search(r"^  Command: (.*)$", text, flags=re.MULTILINE)
        if command is None or NO_RUN.search(command[1]):
            continue
        place = re.search(r"^  Run directory: (.*)$", text, flags=re.MULTILINE)
        return Invocation(_quoted(folder, command[1]), place[1] if place else "", bool(ALL_DONE.search(text)), path)
    return None


def _quoted(folder: Path, command: str) -> str:
    """Return a command of Snakemake's log, whose words are joined by bare spaces, as it was noted with quotes."""
    try:
        noted = read_json(folder / COMMAND_FILE)
    except (D2RNetError, OSError):
        return command
    return str(noted["command"]) if isinstance(noted, dict) and noted.get("text") == command else command


def work_processes(folder: Path) -> list[Process] | None:
    """List Snakemake and its jobs whose working directory is ``folder``, without their children and this process."""
    if not Path("/proc/self/cwd").exists():
        return None
    found: dict[int, tuple[str, int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.name == str(os.getpid()) or (entry / "cwd").readlink() != folder:
                continue
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if command := _command_of(words):
            found[int(entry.name)] = command, parent
    return [
        Process(pid, command) for pid, (command, parent) in sorted(found.items()) if found.get(parent, ("",))[0] != command
    ]


def _command_of(words: list[str]) -> str:
    """Sub-command of a process of this package, "snakemake" for Snakemake, "" for any other."""
    programs = [Path(word).name for word in words[:3]]
    if "snakemake" in programs:
        return "snakemake"
    place = programs.index("d2rnet") if "d2rnet" in programs else len(words)
    return words[place + 1] if place + 1 < len(words) else ""


def _lock(path: Path) -> Iterator[Lock]:
    holder = read_holder(path)
    if holder is not None:
        yield Lock(path, holder, holder.has_ended(path))


def _converted(folder: Path, below: list[Path]) -> Iterator[tuple[Path, int]]:
    """Yield each manifest with its lines, each folder of volumes with those that are done."""
    for path in below:
        if path.name.endswith("manifest.jsonl") and path.is_file():
            yield path, path.read_bytes().count(b"\n")
    for name, pattern in KEPT_VOLUMES.items():
        if (folder / name).is_dir():
            yield folder / name, sum(1 for _ in (folder / name).glob(pattern))


def _work_folder(folder: Path) -> WorkFolder:
    """Read how far the checkpoint of a work folder is."""
    try:
        settings = read_json(folder / IDENTITY)["settings"]
        training = (settings if "training" in settings else settings["structure_model"])["training"]
        if (folder / DETECTOR_CHECKPOINT).is_file():
            done = int(_load(folder / DETECTOR_CHECKPOINT)["iterations_done"])
            total = int(training["total_iters"])
            return WorkFolder(folder, f"iteration {done} of {total}", done >= total)
        if (folder / REPORT_CHECKPOINT).is_file():
            step = _load(folder / REPORT_CHECKPOINT)["finished_steps"]
            epochs = [row["epoch"] for row in read_jsonl(folder / "metrics.jsonl") if row["step"] <= step]
            done = max(epochs, default=0)
            total = int(training["epochs"])
            return WorkFolder(folder, f"epoch {done} of {total} (step {step})", done >= total)
    except (D2RNetError, OSError, KeyError, TypeError, ValueError) as error:
        return WorkFolder(folder, f"unreadable: {error}", is_finished=False)
    return WorkFolder(folder, "no checkpoint yet, begins anew", is_finished=False)


def _load(path: Path) -> dict[str, Any]:
    from d2rnet.files.torch_files import load_torch  # a run's folder can be looked at without torch until here

    return load_torch(path)
