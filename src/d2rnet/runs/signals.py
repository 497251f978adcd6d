"""The signals by which schedulers ask a training run to stop, before they take its node away.

A run that stopped because of one ends with status 143: a status other than 0 makes schedulers and Snakemake try again.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

from d2rnet.exit_codes import ExitCode

log = logging.getLogger(__name__)
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


def leave(number: int, _: FrameType | None = None) -> NoReturn:
    """End the process because of a stop signal, with a word; a handler where there is no state to save.

    Raises:
        SystemExit: status 143.
    """
    log.warning("%s: stopping; give the same command again to go on", signal.Signals(number).name)
    raise SystemExit(EXIT_AFTER_SIGNAL)


@contextmanager
def leaving_at_stop_signals() -> Iterator[None]:
    """Let stop signals end what is done meanwhile by :func:`leave`, so that half-written files are removed."""
    previous = take_stop_signals(leave)
    try:
        yield
    finally:
        give_back_stop_signals(previous)


def start_resource_tracker() -> None:
    """Start the process in which multiprocessing keeps account, if it does not run, so that it outlives stop signals.

    A scheduler sends SIGUSR1 to all processes of a job. Python's tracker ignores SIGTERM only; ended by SIGUSR1 it begins anew
    without its account, and prints a KeyError for each entry that is then closed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # a new process inherits the mask
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
