"""Several training processes: started here, ended together, one error for all.

Each process is a fresh interpreter (no fork: torch has threads). The first that fails ends the others, which would wait for
it for ever, and its error is raised in the starting process. A request to stop (SIGTERM, SIGUSR1) goes on to all of them.
"""

import logging
import logging.handlers
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
import torch.distributed as dist

from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.runs.signals import stop_signals_passed_on

GRACE_SECONDS = 30.0


def check_processes(processes: int, device: torch.device, batch_size: int) -> None:
    """Compare the number of training processes with what there is.

    Raises:
        ConfigError: more processes than GPUs or than entries a batch, or one GPU chosen by number for several processes.
    """
    if processes < 1 or processes > batch_size:
        raise ConfigError(f"--processes {processes}: expected 1 to cxr.report.training.batch_size ({batch_size}).")
    if device.type != "cuda" or processes == 1:
        return
    if device.index is not None:
        raise ConfigError(f"--processes {processes} --device {device}: each process takes a GPU of its own; use cuda or auto.")
    if processes > torch.cuda.device_count():
        raise ConfigError(
            f"--processes {processes}: this machine shows torch {torch.cuda.device_count()} GPU(s). Lower it, or check "
            "CUDA_VISIBLE_DEVICES with 'd2rnet doctor'."
        )


def run_in_processes(function: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Run ``function(*arguments)`` in several processes that find each other; returns when all are done.

    Args:
        function: module-level function.
        arguments: pickled to each process.
        processes: how many; 1 runs here.

    Raises:
        SystemExit: with the exit code of processes that left by it.
        D2RNetError: a process died without a word.
        Exception: whatever a process raised first.
    """
    if processes == 1:
        function(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    log_queue = context.Queue()
    listener = logging.handlers.QueueListener(log_queue, *logging.getLogger().handlers)
    port, pipes, workers = _free_port(), [], []
    for rank in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(rank, processes, port, log_queue, sender, function, arguments))
        worker.start()
        sender.close()
        pipes.append(receiver)
        workers.append(worker)
    listener.start()
    try:
        with stop_signals_passed_on(lambda: workers) as stopped:
            _await(workers, pipes, stopped)
    finally:
        for worker in workers:
            worker.join(GRACE_SECONDS if sys.exc_info()[0] in (None, SystemExit) else 0)
            worker.kill()
        listener.stop()


def _await(workers: list[SpawnProcess], pipes: list[Connection], stopped: list[int]) -> None:
    """Wait until every process is done; an error ends the waiting, an exit does not: others may be saving their state."""
    waiting: dict[Any, SpawnProcess] = dict(zip(pipes, workers, strict=True))
    exits = []
    while waiting:
        for pipe in wait(list(waiting)):
            assert isinstance(pipe, Connection)
            worker = waiting.pop(pipe)
            try:
                ending = pipe.recv()
            except EOFError:
                if stopped:  # before the process could take note of the request
                    ending = SystemExit(128 + stopped[0])
                else:
                    worker.join()
                    raise D2RNetError(
                        f"training process {workers.index(worker)} was killed (exit code {worker.exitcode}), most often for "
                        "lack of memory. Lower --processes or cxr.report.training.batch_size; run again to go on."
                    ) from None
            if isinstance(ending, SystemExit):
                exits.append(ending)
            elif ending is not None:
                raise ending
    if exits:
        raise exits[0]


def _work(
    rank: int,
    processes: int,
    port: int,
    log_queue: Any,
    sender: Connection,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Run in a training process: say through the pipe how it ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["LOCAL_RANK"] = str(rank)  # tells Lightning that its processes are there already
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    logging.getLogger().addHandler(logging.handlers.QueueHandler(log_queue))
    logging.getLogger("d2rnet").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    ending: BaseException | None = None
    try:
        if torch.cuda.is_available() and torch.cuda.device_count() >= processes:
            torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
        function(*arguments)
        dist.destroy_process_group()
    except SystemExit as stop:
        ending = SystemExit(stop.code)
    except Exception as error:
        ending = error
        if not isinstance(error, D2RNetError | OSError):
            logging.getLogger(__name__).exception("training process %d", rank)
    sender.send(ending)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
