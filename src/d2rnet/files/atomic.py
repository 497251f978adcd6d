"""Atomic writes: a reader never sees half a file, whatever happens to the writer."""

import ctypes
import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2rnet.errors import D2RNetError

log = logging.getLogger(__name__)

PART = ".part"  # in the name of a file that is being written
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Put the file into the error of a disk that fills up while it is written, which says nothing but that.

    Args:
        path: what is being written.

    Raises:
        OSError: the same one, its ``filename`` set.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(target: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it over ``target`` on success, remove it on any error.

    Args:
        target: final file path; its folder is made if needed.
        flush: wait until the content is on disk; not needed where a file that is empty after a power cut is made again.

    Yields:
        Path with the same suffix as ``target``, to be written by the caller.

    Raises:
        D2RNetError: ``target`` is a folder, pipe, socket or device. A file would take the place of ``/dev/null``, too.
    """
    target = Path(target)
    if target.exists() and not target.is_file():
        raise D2RNetError(f"{target}: got {_kind(target.stat().st_mode)}; expected the path of a file to write. Name one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{PART}{target.suffix}")
    temporary.touch(exist_ok=False)
    try:
        with full_disk_named(target):
            yield temporary
            if flush:
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def flush_file_system(folder: Path) -> None:
    """Put all files below a folder on disk, with whatever else its file system has to write: quicker than one by one.

    Raises:
        OSError: the file system could not write something.
    """
    flush = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if flush is None:  # not Linux
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if flush(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


def leftovers(folder: str | Path) -> list[Path]:
    """Temporary files of :func:`atomic_path` in a folder, not below it: being written, or left by a killed process."""
    return sorted(Path(folder).glob(f".*{PART}*"))


def remove_leftovers(folder: str | Path) -> int:
    """Remove what killed processes left half-written in a folder that nobody else writes to now; return their number."""
    found = leftovers(folder)
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        log.info("%s: removed %d half-written file(s) of a killed process", folder, len(found))
    return len(found)


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _kind(mode: int) -> str:
    """Name what is no regular file."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
