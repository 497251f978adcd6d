"""Work folders: where a long step keeps what it needs to resume.

Snakemake deletes the declared outputs of a failed job, so checkpoints live in an undeclared folder
``work/<stage>/<fingerprint>``. The fingerprint covers settings and input files: a changed configuration starts afresh in
its own folder and says so, it never resumes a stranger's state. A lock keeps a second process (for instance one left behind
by a killed Snakemake) from writing into the same folder.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from d2rnet.errors import D2RNetError
from d2rnet.io import fingerprint, sha256_file, write_json

log = logging.getLogger(__name__)


@contextmanager
def hold_lock(lock_file: Path, *, what: str | Path, doing: str) -> Iterator[None]:
    """Hold a lock file, or say at once that somebody else does.

    Args:
        lock_file: its folder exists.
        what: folder or file that the lock protects, for the message.
        doing: what the other process is then doing, such as "converting these images".

    Raises:
        D2RNetError: another process holds the lock.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise D2RNetError(
            f"{what}: another process is {doing} (it may have outlived a killed Snakemake). "
            "Wait for it or end it ('fuser' names it), then run again."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_work_dir(root: str | Path, *, settings: Any, inputs: Mapping[str, str | Path]) -> Iterator[Path]:
    """Lock and yield the work folder that belongs to these settings and input files.

    Args:
        root: folder of the stage, for instance ``work/train_detector``.
        settings: JSON-serialisable settings that decide the result.
        inputs: name -> file; the files' contents decide the result too.

    Yields:
        ``root/<12 hex digits>``, holding ``fingerprint.json`` with what it stands for.

    Raises:
        FileNotFoundError: an input is missing; names file and input.
        D2RNetError: another process holds the folder.
    """
    for name, path in inputs.items():
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; expected the input '{name}'. Check the setting that names it.")
    identity = {"settings": settings, "inputs": {name: sha256_file(path) for name, path in sorted(inputs.items())}}
    root = Path(root)
    folder = root / fingerprint(identity)
    others = sorted(p.name for p in root.glob("*") if p.is_dir() and p != folder) if root.is_dir() else []
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", what=folder, doing="working in this folder"):
        if is_new:
            write_json(folder / "fingerprint.json", identity)
            log.info("work folder %s: new", folder)
            if others:
                log.info("%d work folder(s) of other settings or inputs are left alone: %s", len(others), ", ".join(others))
        else:
            log.info("work folder %s: same settings and inputs as before, resuming", folder)
        yield folder
