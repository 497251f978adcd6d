"""What test processes run that need not know a model: a module of its own, quick to import."""

import atexit
import gc
import logging
import os
import signal
import time
import warnings
from pathlib import Path

import torch.distributed as dist

from d2rnet.errors import D2RNetError
from d2rnet.runs.signals import take_stop_signals
from d2rnet.training.collectives import process_rank

log = logging.getLogger("d2rnet.samples")


class LateError(Exception):
    """Needs two arguments, so that it cannot be unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def fail(kind: str) -> None:
    """End one of two processes in some way; the other would wait for it."""
    if process_rank() == 1:
        if kind == "error":
            raise D2RNetError("loss is not finite")
        if kind == "unforeseen":
            raise KeyError("no such layer")
        if kind == "odd":
            raise LateError("layer", "too late")
        if kind == "silent":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def talk(folder: Path) -> str:
    """Log from both processes; return what the first one sees of its surroundings.

    As a process leaves, it writes to a file how many objects it no longer looks at.
    """
    file = folder / str(process_rank())
    atexit.register(lambda: file.write_text(str(gc.get_freeze_count())))
    log.info("step 1")
    log.error("loss is high")
    warnings.warn("old layer", stacklevel=1)
    return f"{process_rank()} sees GPUs {os.environ.get('CUDA_VISIBLE_DEVICES')!r}"


def save_when_told(folder: Path) -> None:
    """Wait for a stop signal; the first process takes a while to save and leaves last."""
    told: list[int] = []
    take_stop_signals(lambda number, _: told.append(number))
    (folder / f"ready_{process_rank()}").touch()
    while not told:
        time.sleep(0.01)
    if process_rank() == 0:
        time.sleep(1)
        (folder / "saved").write_text(signal.Signals(told[0]).name)
    raise SystemExit(143)


def wait_for_ever(folder: Path) -> None:
    """Wait in a collective operation for the other process, which has no handler of signals and never comes."""
    (folder / f"ready_{process_rank()}").touch()
    if process_rank() == 1:
        time.sleep(600)
    dist.barrier()
