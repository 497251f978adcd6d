"""The signals by which schedulers ask a training run to stop, before they take its node away.

A run that stopped because of one ends with status 143: a status other than 0 makes schedulers and Snakemake try again.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from d2rnet.exit_codes import ExitCode

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_AFTER_SIGNAL = ExitCode.STOPPED

Handler = Callable[[int, FrameType | None], None]


def take_stop_signals(handler: Handler) -> dict[int, Any]:
    """Handle SIGTERM and SIGUSR1 with ``handler``; return the handlers until now, none where Python allows no handler."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in STOP_SIGNALS}


def give_back_stop_signals(previous: dict[int, Any]) -> None:
    """Put back the handlers that :func:`take_stop_signals` returned."""
    for number, handler in previous.items():
        signal.signal(number, handler)


@contextmanager
def stop_signals_passed_on(processes: Callable[[], Iterable[BaseProcess]]) -> Iterator[list[int]]:
    """Hand stop signals on to child processes.

    Args:
        processes: returns those that exist when a signal comes.

    Yields:
        The list of the signals received so far; it grows.
    """
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        for process in processes():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    previous = take_stop_signals(pass_on)
    try:
        yield received
    finally:
        give_back_stop_signals(previous)
