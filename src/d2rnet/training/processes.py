"""Several training processes, one per GPU (NCCL) or all on the CPU (gloo): started here, ended together, one error for all.

Each process is a fresh interpreter (no fork: torch has threads). The parent passes stop signals on, prints what the processes
log, and turns whatever ended one of them into the error that a single process would have raised. The first process (rank 0)
alone writes files and shows progress.
"""

import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.runs.device import freed_memory_kept
from d2rnet.runs.signals import EXIT_AFTER_SIGNAL, leave, start_resource_tracker, stop_signals_passed_on
from d2rnet.training.collectives import gather_objects, num_processes, process_rank

log = logging.getLogger(__name__)
Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"
# The others wait in a collective operation while rank 0 validates or saves.
COLLECTIVE_TIMEOUT = timedelta(hours=3)
# A process that fails because another died waits, so that the parent sees the dead one first.
LAST_WORDS_SECONDS = 3.0
# For processes that have said how they ended, to come to their end.
GRACE_SECONDS = 30.0


class ProcessError(D2RNetError):
    """A training process died without a word of its own."""


class _Job(NamedTuple):
    """What each process is given: the function and where to meet the others and the parent."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    processes: int
    device: torch.device
    port: int
    records: Any
    level: int
    parent: int


def check_processes(processes: int, device: torch.device) -> None:
    """Refuse a number of processes that this machine cannot run.

    Args:
        processes: how many train together.
        device: of :func:`d2rnet.runs.device.resolve_device`; each process takes a GPU of its own.

    Raises:
        ConfigError: names the option.
    """
    if processes < 1:
        raise ConfigError(f"--processes {processes}: expected at least 1.")
    if device.type != "cuda" or processes == 1:
        return
    if device.index is not None:
        raise ConfigError(
            f"--device {device} with --processes {processes}: expected cuda, each process takes a GPU of its own."
        )
    found = torch.cuda.device_count()
    if processes > found:
        raise ConfigError(
            f"--processes {processes}: this machine shows torch {found} GPU(s); each process needs one. Lower it, or check "
            "CUDA_VISIBLE_DEVICES with 'd2rnet doctor'."
        )


def device_of_process(device: torch.device) -> torch.device:
    """Return the device of the calling process: with several on GPUs, each has its own."""
    return torch.device("cuda", process_rank()) if device.type == "cuda" and num_processes() > 1 else device


def run_processes(function: Callable[..., Result], *arguments: Any, processes: int, device: torch.device) -> Result:
    """Run ``function(*arguments)`` in each of several processes that find each other, or in this one if there is to be one.

    Args:
        function: importable by name.
        arguments: pickled to each process.
        processes: how many.
        device: on a CPU, GPUs are hidden from the processes.

    Returns:
        What rank 0 returned.

    Raises:
        SystemExit: with the status of processes that left by it; 143 if they were told to stop.
        ProcessError: one of them died, was killed for instance.
        Exception: whatever one of them raised first.
    """
    start_resource_tracker()
    if processes == 1:
        with freed_memory_kept(device):
            return function(*arguments)
    context = multiprocessing.get_context("spawn")
    records: Any = context.Queue()
    # The parent holds the meeting point, so that no port is taken between its choice and its use.
    store = dist.TCPStore(HOST, 0, processes, is_master=True, wait_for_workers=False)
    level = logging.getLogger("d2rnet").getEffectiveLevel()
    job = _Job(function, arguments, processes, device, store.port, records, level, os.getpid())
    listener = QueueListener(records, _Relay())
    listener.start()
    workers: list[SpawnProcess] = []
    try:
        with _hidden_gpus(device), stop_signals_passed_on(lambda: workers) as stopped:
            pipes = [_start(context, rank, job, workers) for rank in range(processes)]
            return _await(workers, pipes, stopped)
    finally:
        for worker in workers:
            worker.join(GRACE_SECONDS if sys.exc_info()[0] in (None, SystemExit) else 0)
            worker.kill()
            worker.join()
        listener.stop()


def _start(context: Any, rank: int, job: _Job, workers: list[SpawnProcess]) -> Connection:
    """Start a process and add it to ``workers``; return the end of a pipe through which it says how it ended."""
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(rank, job, sender))
    worker.start()
    sender.close()  # or its end would never be seen
    workers.append(worker)
    return receiver


def _await(workers: list[SpawnProcess], pipes: list[Connection], stopped: list[int]) -> Any:
    """Wait until every process is done; an error ends the waiting, an exit does not: others may be saving their state."""
    waiting: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(pipes)}
    exits: list[SystemExit] = []
    result = None
    while waiting:
        for pipe in wait(list(waiting)):
            assert isinstance(pipe, Connection)
            rank = waiting.pop(pipe)
            try:
                ending = pipe.recv()
            except EOFError:
                ending = _death(workers, rank)
            if isinstance(ending, SystemExit):
                exits.append(ending)
            elif isinstance(ending, BaseException):
                # A process that is told to stop while it starts dies of it, and the others fail for want of it.
                if stopped:
                    leave(stopped[0])
                raise ending
            elif rank == 0:
                result = ending
    if exits:
        raise exits[0]
    return result


def _death(workers: list[SpawnProcess], rank: int) -> ProcessError:
    """Say how a process ended that has not said so itself."""
    workers[rank].join()
    code = workers[rank].exitcode or 0
    end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ProcessError(
        f"training process {rank} (of 0 to {len(workers) - 1}) ended with {end}, most often for lack of memory; the others "
        "were stopped. The last checkpoint is kept: run again to go on from it, with fewer --processes or smaller batches "
        "if need be."
    )


def _work(rank: int, job: _Job, sender: Connection) -> None:
    """Body of each process: run the function, and say through the pipe what it returned or how it ended."""
    _die_with(job.parent)
    _log_to(job.records, job.level if rank == 0 else logging.ERROR, rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // job.processes))
    ending: Any = None
    try:
        _join_group(rank, job)
        with freed_memory_kept(job.device):
            result = job.function(*job.arguments)
        ending = result if rank == 0 else None
        gather_objects(None)  # nobody leaves while others still talk
        dist.destroy_process_group()
    except SystemExit as stop:
        ending = SystemExit(stop.code)
    except (D2RNetError, OSError) as error:
        ending = error
    except Exception as error:
        log.exception("training process %d", rank)
        time.sleep(LAST_WORDS_SECONDS)
        ending = error
    sender.send(_sendable(ending))
    gc.freeze()  # or Python goes over every object of the libraries before it leaves, for seconds


def _join_group(rank: int, job: _Job) -> None:
    """Meet the other processes; tensors on a GPU go through NCCL, all others through gloo."""
    backend = "gloo"
    if job.device.type == "cuda":
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    store = dist.TCPStore(HOST, job.port, job.processes, is_master=False)
    dist.init_process_group(backend, store=store, rank=rank, world_size=job.processes, timeout=COLLECTIVE_TIMEOUT)


def _sendable(ending: Any) -> Any:
    """Return what a process ends with, or an error of the same text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(ending))
    except Exception:
        return ProcessError(f"{type(ending).__name__}: {ending}")
    return ending


def _die_with(parent: int) -> None:
    """Let the kernel kill this process with its parent, whose lock keeps others out of the work folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # killed while this process was starting
        raise SystemExit(EXIT_AFTER_SIGNAL)


def _log_to(records: Any, level: int, rank: int) -> None:
    """Send the log of a process to its parent."""
    handler = QueueHandler(records)
    handler.setFormatter(logging.Formatter(f"process {rank}: %(message)s" if rank else "%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("d2rnet").setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)


class _Relay(logging.Handler):
    """Hands a record of a process to the logger of the same name in the parent."""

    def handle(self, record: logging.LogRecord) -> bool:
        logging.getLogger(record.name).handle(record)
        return True


@contextmanager
def _hidden_gpus(device: torch.device) -> Iterator[None]:
    """Let processes that are started meanwhile see no GPU if they compute on the CPU."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if device.type == "cpu":
        os.environ[name] = ""
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
