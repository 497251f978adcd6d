"""The same function over many items in several processes: results in order, memory bounded, no orphan, no hang."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar, overload

import cv2

from d2rnet.errors import D2RNetError
from d2rnet.files.write_behind import WriteBehind
from d2rnet.runs.signals import start_resource_tracker

Item = TypeVar("Item")
Made = TypeVar("Made")
Result = TypeVar("Result")
CHUNKS_IN_FLIGHT = 4  # a worker: enough to keep it busy while the parent writes
SHOWN_SUSPECTS = 10


@overload
def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    setting: str = ...,
    chunk_size: int = ...,
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order."""


@overload
def map_in_processes(
    function: Callable[[Item], Made],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    setting: str = ...,
    chunk_size: int = ...,
    then: Callable[[Made], Result],
) -> Iterator[Result]:
    """Yield ``then(function(item))`` for each item, in order."""


def map_in_processes(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    setting: str = "runtime.workers",
    chunk_size: int = 4,
    then: Callable[[Any], Any] | None = None,
) -> Iterator[Any]:
    """Yield ``function(item)`` for each item, in order, or ``then(function(item))``.

    At most ``CHUNKS_IN_FLIGHT * workers`` chunks are held at a time, whatever the number of items. An exception of the
    function is raised here. Workers end with this process, even if it is killed.

    Args:
        function: module-level function (or partial of one); its items and results are pickled.
        items: what to apply it to.
        workers: processes; 1 works in this process.
        what: what is being done, for the error message.
        setting: the setting that ``workers`` comes from, for the error message.
        chunk_size: items sent to a worker at a time; larger where an item takes less than a millisecond.
        then: what waits for the disk, such as writing; a worker does it in a thread while it is at the next item of the
            chunk, one at a time.

    Raises:
        D2RNetError: a worker was killed; names the items that were being worked on.
    """
    if workers <= 1 or len(items) <= 1:
        yield from (function(item) if then is None else then(function(item)) for item in items)
        return
    start_resource_tracker()
    # not fork: a forked copy of a process with threads (OpenCV, progress bar, torch) may deadlock
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_start_worker)
    in_flight: deque[tuple[int, Future[list[Any]]]] = deque()
    try:
        for start in range(0, len(items), chunk_size):
            chunk = items[start : start + chunk_size]
            in_flight.append((start, pool.submit(_run_chunk, function, chunk, then)))
            if len(in_flight) >= CHUNKS_IN_FLIGHT * workers:
                yield from in_flight[0][1].result()
                in_flight.popleft()
        while in_flight:
            yield from in_flight[0][1].result()
            in_flight.popleft()
    except BrokenProcessPool as error:
        unfinished = [start for start, future in in_flight if future.exception() is not None]
        first = unfinished[0] if unfinished else 0
        suspects = "\n  ".join(str(item) for item in items[first : first + SHOWN_SUSPECTS])
        raise D2RNetError(
            f"{what}: a worker process was killed near item {first + 1} of {len(items)}, most often for lack of memory. Lower "
            f"{setting} (now {workers}) or give the job more memory, then run again. If the same item fails again, a "
            f"decoder crashes on it; it is one of these or the next few:\n  {suspects}"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_chunk(function: Callable[[Item], Any], chunk: Sequence[Item], then: Callable[[Any], Any] | None) -> list[Any]:
    if then is None:
        return [function(item) for item in chunk]
    with WriteBehind(threads=1, most_waiting=1) as write:
        results = [write(then, function(item)) for item in chunk]
    return [result.result() for result in results]


def _start_worker() -> None:
    """Prepare a worker: one thread, Ctrl-C left to the parent, and an end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
