"""Training on several processes: started by detectron2's launcher, one a GPU (NCCL) or several on the CPU (gloo).

The first process of the launcher's group (rank 0) alone writes files and shows progress. The parent passes stop signals on,
prints what the processes log, and turns whatever ended one of them into the error that a single process would have raised.
"""

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.exit_codes import ExitCode
from d2rnet.runs.signals import EXIT_AFTER_SIGNAL, stop_signals_passed_on

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Item = TypeVar("Item")
EXIT_AFTER_ERROR = ExitCode.REFUSED
PR_SET_PDEATHSIG = 1
# The others wait in a collective operation while rank 0 validates or saves.
COLLECTIVE_TIMEOUT = timedelta(hours=3)
# A process that fails because another died waits, so that the launcher sees the dead one first.
LAST_WORDS_SECONDS = 3.0


class ProcessError(D2RNetError):
    """A training process died without a word of its own."""


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
        raise ConfigError(f"--device {device} with --processes {processes}: expected cuda, each process takes a GPU.")
    found = torch.cuda.device_count()
    if processes > found:
        raise ConfigError(
            f"--processes {processes}: this machine shows torch {found} GPU(s); each process needs one. Lower it, or check "
            "CUDA_VISIBLE_DEVICES with 'd2rnet doctor'."
        )


def device_of_process(device: torch.device) -> torch.device:
    """Return the device of the calling process: with several on GPUs, each has its own."""
    if device.type == "cuda" and comm.get_world_size() > 1:
        return torch.device("cuda", comm.get_local_rank())
    return device


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor of the same shape of all processes; every process gets the sum."""
    if comm.get_world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def gather_from_processes(value: Item) -> list[Item]:
    """Collect a value that can be pickled from all processes, in the order of their ranks; every process gets all."""
    if comm.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * comm.get_world_size()
    dist.all_gather_object(values, value, group=_cpu_group())
    return values


@cache
def _cpu_group() -> Any:
    """All processes, talking through the CPU. That of detectron2 gives up after 30 minutes, within a long validation."""
    if dist.get_backend() == "nccl":
        return dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    return dist.group.WORLD


@torch.no_grad()
def average_over_processes(tensors: list[Tensor]) -> None:
    """Replace floating-point tensors by their means over all processes, in place."""
    if comm.get_world_size() == 1 or not tensors:
        return
    flat = sum_over_processes(torch.cat([tensor.flatten() for tensor in tensors])) / comm.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def run_processes(function: Callable[..., Result], processes: int, device: torch.device, arguments: tuple[Any, ...]) -> Result:
    """Run a function in each of several processes, or in this one if there is to be one only.

    Args:
        function: importable by name.
        processes: how many.
        device: on a CPU, GPUs are hidden from the processes, since detectron2 would talk through them.
        arguments: of the function; can be pickled.

    Returns:
        What rank 0 returned.

    Raises:
        D2RNetError: that one of the processes raised; ProcessError if one died, was killed for instance.
        OSError: that one of them raised.
        SystemExit: status 143 if they stopped after a signal.
    """
    if processes == 1:
        return function(*arguments)
    context = multiprocessing.get_context("spawn")
    records: Any = context.Queue()
    listener = QueueListener(records, _Relay())
    level = logging.getLogger("d2rnet").getEffectiveLevel()
    with (
        tempfile.TemporaryDirectory() as folder,
        _hidden_gpus(device),
        stop_signals_passed_on(multiprocessing.active_children) as received,
    ):
        listener.start()
        try:
            outbox = Path(folder)
            launch(
                _in_process,
                processes,
                dist_url="auto",
                args=(function, arguments, outbox, records, level, os.getpid()),
                timeout=COLLECTIVE_TIMEOUT,
            )
            return pickle.loads((outbox / "result").read_bytes())
        except (ProcessExitedException, ProcessRaisedException) as error:
            raise _explained(error, outbox, processes, stopped=bool(received)) from None
        finally:
            listener.stop()


def _explained(error: Exception, outbox: Path, processes: int, *, stopped: bool) -> BaseException:
    """What the end of a process means for the whole."""
    code = getattr(error, "exit_code", None)
    words = sorted(outbox.glob("error_*"))
    if stopped or code == EXIT_AFTER_SIGNAL:
        return SystemExit(EXIT_AFTER_SIGNAL)
    if words:
        return pickle.loads(words[0].read_bytes())
    if isinstance(error, ProcessRaisedException):
        return error
    end = getattr(error, "signal_name", None) or f"exit code {code}"
    return ProcessError(
        f"train-detector: process {getattr(error, 'error_index', '?')} (of 0 to {processes - 1}) ended with {end}; out of "
        "memory? The others were stopped. The last checkpoint is kept: run again to go on from it."
    )


def _in_process(
    function: Callable[..., Any], arguments: tuple[Any, ...], outbox: Path, records: Any, level: int, parent: int
) -> None:
    """Body of each process of the launcher."""
    _die_with(parent)
    rank = comm.get_rank()
    _log_to(records, level if rank == 0 else logging.ERROR, rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_world_size()))
    try:
        result = function(*arguments)
    except (D2RNetError, OSError) as error:
        (outbox / f"error_{rank}").write_bytes(pickle.dumps(error))
        raise SystemExit(EXIT_AFTER_ERROR) from error
    except Exception:
        time.sleep(LAST_WORDS_SECONDS)
        raise
    if rank == 0:
        (outbox / "result").write_bytes(pickle.dumps(result))
    comm.synchronize()
    dist.destroy_process_group()


def _die_with(parent: int) -> None:
    """Let the kernel kill this process with its parent, whose lock keeps others out of the work folder.

    torch asks for an interrupt instead; a process started in the background of a shell script ignores it.
    """
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
