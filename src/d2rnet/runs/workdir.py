"""Work folders: where a long step keeps what it needs to resume.

Snakemake deletes the declared outputs of a failed job, so checkpoints live in an undeclared folder
``work/cxr/<stage>/<fingerprint>``. The fingerprint covers settings and input files: a changed configuration starts afresh in
its own folder and says what changed, it never resumes a stranger's state; a folder of a version that had fewer settings goes
on (runs/earlier_work.py). A lock keeps a second process (for instance one left behind by a killed Snakemake) from writing
into the same folder; its holder says who it is in a file beside it.
"""

import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from d2rnet.errors import D2RNetError
from d2rnet.files.atomic import remove_leftovers
from d2rnet.files.comparison import first_few
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import HashedFile, ManyFiles, fingerprint, sha256_of
from d2rnet.runs.earlier_work import IDENTITY, OtherWork, is_as_it_was, other_work, the_one_that_goes_on
from d2rnet.settings import Section

log = logging.getLogger(__name__)
SHOWN_FOLDERS = 3
WORK_KEY = "work_folder"  # in run.json, where other settings than the folder's may be
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True)
class LockHolder:
    """Who took a lock, in its own words.

    Attributes:
        pid: process number.
        host: the machine that it runs on.
        command: its sub-command.
        since_utc: when it took the lock, ISO 8601.
    """

    pid: int
    host: str
    command: str
    since_utc: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}, since {self.since_utc})"

    def is_elsewhere(self) -> bool:
        """Whether it runs on another machine than this process."""
        return self.host != socket.gethostname()

    def has_ended(self, lock_file: Path) -> bool:
        """Whether it is known to hold the lock no more: a process of its number does not have the file open.

        Nothing is known of another host's processes. Numbers are used again, so that there is a process is not enough.
        """
        if self.is_elsewhere():
            return False
        if not Path("/proc/self/fd").is_dir():  # no Linux
            return not _exists(self.pid)
        try:
            return str(lock_file.resolve()) not in map(_target, Path(f"/proc/{self.pid}/fd").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return True
        except PermissionError:
            return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - a socket's is no path
    except FileNotFoundError:
        return ""


def holder_file(lock_file: Path) -> Path:
    """Where the holder of a lock says who it is; the file of a killed holder stays until the next one."""
    return lock_file.with_name(f"{lock_file.name}.holder.json")


def read_holder(lock_file: Path) -> LockHolder | None:
    """Who last took a lock without giving it back; None if nobody did, or nobody said so in a way that can be shown."""
    try:
        holder = LockHolder(**read_json(holder_file(lock_file)))
    except (D2RNetError, OSError, TypeError):
        return None
    words = (holder.host, holder.command, holder.since_utc)
    is_sound = type(holder.pid) is int and all(isinstance(word, str) and word.isprintable() for word in words)
    return holder if is_sound else None  # a message may tell people to type the number and the host


@contextmanager
def hold_lock(lock_file: Path, *, what: str | Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, or say at once that somebody else does.

    Args:
        lock_file: its folder exists.
        what: folder or file that the lock protects, for the message.
        doing: what the other process is then doing, such as "converting these images".
        wait: wait for the other process, and say so, instead of raising.

    Raises:
        D2RNetError: another process holds the lock; the message names it and how to end it. Or the file system has no locks.
    """
    lock = FileLock(lock_file)
    _acquire(lock, lock_file, what, doing, wait)
    try:
        own = LockHolder(os.getpid(), socket.gethostname(), _command(), datetime.now(UTC).isoformat(timespec="seconds"))
        write_json(holder_file(lock_file), asdict(own))
        yield
    finally:
        holder_file(lock_file).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, lock_file: Path, what: str | Path, doing: str, wait: bool) -> None:
    try:
        lock.acquire(timeout=0)
        return
    except Timeout as error:
        last = read_holder(lock_file)
        holder = None if last is None or last.has_ended(lock_file) else last  # it may not have said yet who it is
        if not wait:
            remedy = f"end it ('kill {holder.pid}' on {holder.host})" if holder else "end it ('fuser' names it)"
            if isinstance(lock, SoftFileLock):  # filelock's way on a file system without flock: that the file is there
                remedy += f", or, if its machine was switched off, delete {lock_file}"
            raise D2RNetError(
                f"{what}: {holder or 'another process'} is {doing} (it may have outlived a killed Snakemake). "
                f"Wait for it or {remedy}, then run again."
            ) from error
    except (OSError, NotImplementedError) as error:  # the second: filelock before 3.21 where flock is missing
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        raise D2RNetError(
            f"{lock_file}: this file system has no locks ({error}); without, two processes could write into one folder. "
            "Mount it with locks (Lustre: -o flock; NFS: with its lock service), or run in a folder of another one."
        ) from error
    log.info("%s: waiting for %s, which is %s", what, holder or "another process", doing)
    lock.acquire()


def _command() -> str:
    """Sub-command of this process, or the name of the program where there is none."""
    return sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else Path(sys.argv[0]).name


@contextmanager
def open_work_dir(
    root: str | Path, *, settings: Section, inputs: Mapping[str, str | Path | ManyFiles | HashedFile]
) -> Iterator[Path]:
    """Lock and yield the work folder that belongs to these settings and input files.

    Args:
        root: folder of the stage, for instance ``work/cxr/train_detector``.
        settings: those that decide the result.
        inputs: name -> file; the files' contents decide the result too. Of many files their sizes stand for their contents.

    Yields:
        ``root/<12 hex digits>``, holding ``fingerprint.json`` with what it began with. It is named after the settings and
        inputs of now or, if an earlier version began it, after those of then.

    Raises:
        FileNotFoundError: an input is missing; names file and input.
        D2RNetError: another process holds the folder, the folder says that it belongs to another run, or an earlier version
            began it with settings that are gone, or its folder went while this run was about to lock it.
    """
    for name, path in inputs.items():
        if not isinstance(path, ManyFiles | HashedFile) and not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; expected the input '{name}'. Check the setting that names it.")
    identity = {"settings": settings.to_json(), "inputs": {name: sha256_of(path) for name, path in sorted(inputs.items())}}
    root = Path(root)
    own = root / fingerprint(identity)
    others = other_work(root, identity, settings)
    # The file, not the folder: a process may have been killed between making the two.
    earlier = None if (own / IDENTITY).is_file() else the_one_that_goes_on(others, root)
    folder = own if earlier is None else earlier.folder
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", what=folder, doing="working in this folder"):
        remove_leftovers(folder)
        if earlier is not None:
            _resume_earlier(earlier, identity, settings)
        else:
            _begin_or_resume(folder, identity, others)
        yield folder


def _resume_earlier(earlier: OtherWork, identity: Mapping[str, Any], settings: Section) -> None:
    """Prove, with the lock held, that the folder of an earlier version is what it was when it was chosen; say what is new.

    Raises:
        D2RNetError: another process has deleted or changed it.
    """
    folder = earlier.folder
    if not is_as_it_was(earlier, identity, settings):
        raise D2RNetError(
            f"{folder / IDENTITY}: gone or changed since this run chose to go on with that folder; expected what an earlier "
            "version began. Another process, such as 'd2rnet clean', deleted or edited it: run again, which looks anew."
        )
    came = ", ".join(earlier.compared.later) or "nothing"
    log.info("work folder %s: same settings and inputs, begun by an earlier version; resuming. New since: %s", folder, came)


def _begin_or_resume(folder: Path, identity: Mapping[str, Any], others: list[OtherWork]) -> None:
    """Name a new work folder and say what sets it apart from those beside it, or prove that an old one is of this run.

    Raises:
        D2RNetError: the folder says that it belongs to another run.
    """
    if not (folder / IDENTITY).is_file():
        write_json(folder / IDENTITY, identity)
        log.info("work folder %s: new", folder)
        for other in others[:SHOWN_FOLDERS]:
            reasons = first_few([*other.compared.differing, *(f"{key} no longer known" for key in other.compared.gone)])
            log.warning("begins anew; not resumed and left as it is: work folder %s, of another run: %s", other, reasons)
        if more := others[SHOWN_FOLDERS:]:
            log.info(
                "%d more work folder(s) are left as they are: %s", len(more), ", ".join(work.folder.name for work in more)
            )
        return
    if read_json(folder / IDENTITY) != json.loads(json.dumps(identity)):
        raise D2RNetError(
            f"{folder / IDENTITY}: says other settings or inputs than this run has; expected those that the folder is "
            "named after. Somebody renamed or edited it: move the folder away, then run again."
        )
    log.info("work folder %s: same settings and inputs as before, resuming", folder)
    for other in others:
        if other.goes_on:
            log.warning("work folder %s was begun with the same settings by an earlier version; left as it is", other)
