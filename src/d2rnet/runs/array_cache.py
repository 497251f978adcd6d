"""Arrays made once and kept in memory-mapped files.

Several trainings may share a cache: the first fills it, the others wait for its lock. On a file system that does not tell
other machines of a lock two may fill it at once. Both write the same into the same files then: a file is put in place whole,
once, and never emptied.
"""

import ctypes
import errno
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from d2rnet.errors import DatasetError
from d2rnet.files.atomic import PART, full_disk_named, remove_leftovers
from d2rnet.files.problems import Problems
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track

FLUSH_EVERY = 256
DECODED_AT_A_TIME = 16
ZEROS_BYTES = 1 << 24
TRIES = 10  # of putting a file in place


Item = TypeVar("Item")


Result = TypeVar("Result")


Map = np.memmap[Any, np.dtype[np.uint8]]


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of change, (0, 0) for a missing file: a replaced file is decoded again."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def open_maps(path: Path, shape: tuple[int, ...], *, rows: int) -> tuple[Map, Map]:
    """Open a cache for writing, its lock held.

    Args:
        path: file of what is kept; ``done.u8`` beside it says which rows are.
        shape: of what is kept.
        rows: number of rows.

    Returns:
        What is kept, and (rows,) 1 where a row is. No row is done where the file is new or of another size, whatever
        ``done.u8`` says: somebody may have deleted the larger of the two, and zeros are a black image.
    """
    done = path.with_name("done.u8")
    remove_leftovers(path.parent)
    if not _has_size(path, shape):
        done.unlink(missing_ok=True)
    return _open_map(path, shape), _open_map(done, (rows,))


def _has_size(path: Path, shape: tuple[int, ...]) -> bool:
    return path.is_file() and path.stat().st_size == int(np.prod(shape))


def _open_map(path: Path, shape: tuple[int, ...]) -> Map:
    """Open a memory map for writing, made of zeros if it is new or of another size.

    Where locks are not seen another process may take a file that is being made here for a leftover, or for one whose larger
    companion is gone, and remove it: it is made again.
    """
    for _ in range(TRIES - 1):
        try:
            return _map(path, shape)
        except FileNotFoundError:
            continue
    return _map(path, shape)


def _map(path: Path, shape: tuple[int, ...]) -> Map:
    """Do so once. The file's space is taken at once: on a disk that fills up later, a write into a map kills the process."""
    size = int(np.prod(shape))
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        if found is not None:
            path.unlink()
        part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PART}{path.suffix}")
        try:
            with full_disk_named(path), part.open("wb") as stream:
                _take_space(stream, size)
            _put_in_place(part, path)
        finally:
            part.unlink(missing_ok=True)
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def _put_in_place(part: Path, path: Path) -> None:
    """Give a file its name, unless another process has put one there since it was found missing."""
    try:
        path.hardlink_to(part)
    except OSError:
        if not path.exists():  # a file system without hard links
            part.replace(path)


def _take_space(file: BinaryIO, size: int) -> None:
    """Give an empty file ``size`` bytes of disk, which read as zeros.

    Linux' own ``fallocate`` takes them in no time. Where the file system lacks it (NFS before 4.2), ``os.posix_fallocate``
    would write a byte into every block, each a round trip over the network: zeros are written in large pieces instead.

    Raises:
        OSError: no space is left.
    """
    reserve = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if reserve and reserve(file.fileno(), 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return
    if reserve and ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    zeros = bytes(min(size, ZEROS_BYTES))
    for start in range(0, size, ZEROS_BYTES):
        file.write(zeros[: size - start])


def fill(
    done: np.memmap,
    sources: Sequence[Item],
    *,
    read: Callable[[Item], Result],
    keep: Callable[[int, Result], None],
    flush: Callable[[], None],
    path_of: Callable[[Item], Path],
    what: str,
    workers: int,
) -> None:
    """Read what is not in a cache yet and keep it there.

    Args:
        done: (rows,) 1 where a row is kept; marked here, after its content is on disk.
        sources: what each row is read from.
        read: reads a source; module-level, as it runs in other processes.
        keep: writes what was read into the row's place.
        flush: puts what was written on disk.
        path_of: file of a source.
        what: what is being done, for progress and errors.
        workers: reading processes; below 2 this process reads.

    Raises:
        DatasetError: sources cannot be read; the first ten are named.
    """
    missing: list[int] = np.flatnonzero(done == 0).tolist()
    if not missing:
        return
    problems = Problems()
    results = map_in_processes(
        partial(_attempt, read),
        [sources[row] for row in missing],
        workers=workers,
        what=what,
        setting="runtime.loader_workers",
        chunk_size=DECODED_AT_A_TIME,
    )
    fresh: list[int] = []

    def mark_done() -> None:
        flush()
        done[fresh] = 1
        done.flush()
        fresh.clear()

    for row, (result, complaint) in zip(missing, track(results, total=len(missing), what=what), strict=True):
        if result is None:
            problems.add(
                "unreadable_image",
                file=path_of(sources[row]),
                record="pixels",
                got=complaint,
                expected="the radiograph of annotation.json",
                remedy="Run 'd2rnet verify-inputs'.",
            )
            continue
        keep(row, result)
        fresh.append(row)
        if len(fresh) >= FLUSH_EVERY:
            mark_done()
    mark_done()
    problems.raise_if_any()


def _attempt(read: Callable[[Item], Result], source: Item) -> tuple[Result | None, str]:
    """Return what a source holds, or None with the reason why it cannot be read."""
    try:
        return read(source), ""
    except (DatasetError, OSError) as error:
        return None, str(error)
