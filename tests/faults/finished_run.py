"""A finished run as the measure of others: how it was before one of its jobs, and whether another run equals it."""

import base64
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from killing import REPOSITORY

from d2rnet.files.documents import read_json
from d2rnet.files.hashes import sha256_file
from d2rnet.files.torch_files import load_torch

RESUME_PAGE = REPOSITORY / "docs" / "how-to" / "resume.md"
STARTED_MARGIN_SECONDS = 0.02  # a file's time comes from a coarser clock than Snakemake's
UNEQUAL_BY_NATURE = {"run.json"}
TIMED = ("metrics.jsonl", "config.yaml", "_card.md")  # ends of names
TIME = re.compile(r'"?\b\w*seconds\w*"?: [-+.e\d]+|^\| finished \(UTC\) .*')


@dataclass(frozen=True)
class Job:
    """A job of a finished run: sub-command, its outputs, and when it ran (seconds since the epoch)."""

    command: str
    outputs: tuple[str, ...]
    started: float
    ended: float


def jobs_of(run: Path) -> list[Job]:
    """Jobs of a finished run in the order in which they ran; needs a run on one core, where they do not overlap."""
    jobs: dict[str, dict[str, dict[str, Any]]] = {}
    for name, path in snakemake_records(run):
        record = read_json(path)
        jobs.setdefault(record["shellcmd"] or name, {})[name] = record
    found = []
    for records in jobs.values():
        first = next(iter(records.values()))
        command = first["rule"].replace("_", "-")
        found.append(Job(command, tuple(sorted(records)), float(first["starttime"]), float(first["endtime"])))
    return sorted(found, key=lambda job: job.started)


def snakemake_records(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield each output that a job of Snakemake's made, and the file of its record: the name in URL-safe base64."""
    folder = run / ".snakemake" / "metadata"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        code = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        yield base64.urlsafe_b64decode(code).decode(), path


def rewind(run: Path, job: Job, target: Path) -> Path:
    """Copy a finished run to ``target`` as it was when ``job`` began; return ``target``.

    Later files and Snakemake's records of later outputs are left out. No inode is shared, times are kept.
    """
    kept = {name for other in jobs_of(run) if other.ended <= job.started for name in other.outputs}
    before = job.started + STARTED_MARGIN_SECONDS
    for source in sorted(
        path for path in run.rglob("*") if path.is_file() and ".snakemake" not in path.relative_to(run).parts
    ):
        if source.stat().st_mtime <= before:
            copy = target / source.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    for name, record in snakemake_records(run):
        if name in kept:
            copy = target / record.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(record, copy)
    return target


def converted(run: Path) -> list[str]:
    """Arrays and pictures of a run that the conversions wrote beside their declared outputs."""
    found = [path for suffix in ("npy", "png") for path in run.glob(f"resources/*/**/*.{suffix}")]
    return sorted(str(path.relative_to(run)) for path in found if not path.name.startswith("."))


def documented_commands() -> list[list[str]]:
    """Arguments of the Snakemake commands that the documentation gives for after a crash, in order."""
    block = re.search(r"^```bash\n(.*?)^```", RESUME_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert block is not None, f"{RESUME_PAGE}: no block of commands"
    words = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    found = [line[1:] for line in words if line and line[0].endswith("/snakemake")]
    assert found, f"{RESUME_PAGE}: no Snakemake command"
    return [_without_cores(line) for line in found]


def _without_cores(words: list[str]) -> list[str]:
    """Drop ``--cores all``: the tests give a number, on which rounding depends."""
    return [word for word, before in zip(words, ["", *words], strict=False) if "--cores" not in (word, before)]


def differences(run: Path, other: Path, outputs: tuple[str, ...]) -> list[str]:
    """Outputs whose content differs between two runs, or which ``other`` lacks.

    Compared byte by byte, except: run.json is left out; torch files by their tensors; histories, config.yaml and cards
    without the times in them.
    """
    found = []
    for name in outputs:
        path = Path(name)
        if path.name in UNEQUAL_BY_NATURE:
            continue
        if not (other / name).exists():
            found.append(f"{name}: missing")
        elif not all(_equal(run / name / part, other / name / part) for part in _parts(run / name)):
            found.append(f"{name}: differs")
    return found


def _parts(path: Path) -> Iterator[Path]:
    """Files below a folder, "." for a file."""
    if path.is_dir():
        yield from (part.relative_to(path) for part in sorted(path.rglob("*")) if part.is_file())
    else:
        yield Path()


def _equal(first: Path, second: Path) -> bool:
    if not second.is_file():
        return False
    if sha256_file(first) == sha256_file(second):
        return True
    if first.suffix == ".pth":
        return _same(load_torch(first), load_torch(second))
    if first.name.endswith(TIMED):
        return _untimed(first) == _untimed(second)
    return False


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    return first == second


def _untimed(path: Path) -> list[str]:
    """Lines of a text file without its times."""
    return [TIME.sub("", line) for line in path.read_text(encoding="utf-8").splitlines()]
