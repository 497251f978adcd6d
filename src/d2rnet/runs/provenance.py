"""run.json: what made a result (commit, configuration, versions, seeds, hardware, inputs, counts)."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import d2rnet
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import HashedFile, ManyFiles, sha256_of
from d2rnet.settings import as_json

REPOSITORY = Path(__file__).resolve().parents[3]
RECORDED_PACKAGES = (
    "numpy",
    "pandas",
    "pydicom",
    "opencv-python-headless",
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "detectron2",
    "sal-detectron2",
    "pycocotools",
    "pycocoevalcap",
    "ensemble-boxes",
    "snakemake",
)
PROCESS_START = time.time()


def write_run_record(
    target: str | Path,
    *,
    command: str,
    settings: Any,
    inputs: Mapping[str, str | Path | ManyFiles | HashedFile] | None = None,
    counts: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a run record.

    Args:
        target: path of ``run.json``.
        command: sub-command name, such as ``train-detector``.
        settings: the settings section used.
        inputs: name -> file whose SHA-256 is recorded, or many files.
        counts: what went in, what was dropped and why, what came out.
        seeds: name -> seed.
        extra: anything else worth keeping (checkpoint chosen, iterations).
    """
    record = {
        "command": command,
        "argv": sys.argv[1:],
        "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_since_process_start": round(time.time() - PROCESS_START, 1),
        "code": code_version(),
        "settings": as_json(settings),
        "inputs": {name: _input(source) for name, source in (inputs or {}).items()},
        "counts": dict(counts or {}),
        "seeds": dict(seeds or {}),
        "versions": versions(),
        "hardware": hardware(),
        **(extra or {}),
    }
    write_json(target, record)


def _input(source: str | Path | ManyFiles | HashedFile) -> dict[str, str]:
    """Name and hash an input; of many files the folder."""
    place = source.folder if isinstance(source, ManyFiles) else source.path if isinstance(source, HashedFile) else source
    return {"file": str(place), "sha256": sha256_of(source)}


def code_version() -> dict[str, Any]:
    """Package version, git commit and whether tracked files differ from it (None where there is no git checkout).

    An image holds no checkout; the commit it was built of is in the file COMMIT (envs/container/setup).
    """
    commit = _git("rev-parse", "HEAD") or _commit_of_image()
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"d2rnet": d2rnet.__version__, "commit": commit, "dirty": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit_of_image() -> str | None:
    try:
        return (REPOSITORY / "COMMIT").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def versions() -> dict[str, str]:
    """Python and the versions of the packages that can change a result, as installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Machine, usable cores, memory in GiB, and GPUs if torch is already loaded in this process."""
    torch = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def device_name(device: Any) -> str:
    """Return a torch device with the name of its GPU or processor."""
    machine = hardware()
    return f"{device}: {machine['gpus'][device.index or 0] if device.type == 'cuda' else machine['processor']}"
