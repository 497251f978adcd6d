"""Progress of long steps: a bar on a terminal, a line every ten seconds in a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
T = TypeVar("T")
LOG_EVERY_SECONDS = 10.0


def track(items: Iterable[T], *, total: int, what: str, unit: str = "image", step: int = 1) -> Iterator[T]:
    """Yield ``items`` while showing count, rate and remaining time.

    Args:
        items: what to iterate over.
        total: number of units expected.
        what: what is being done, such as ``"convert labelled images"``.
        unit: singular name of what is counted.
        step: units an item stands for (a batch of 8 images: 8).
    """
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):  # --quiet wants no bar either
        with tqdm(total=total, desc=what, unit=unit) as bar:
            for item in items:
                yield item
                bar.update(min(step, total - bar.n))
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(done + step, total)
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS:
            last = now
            rate = done / (now - start)
            log.info("%s: %d/%d %ss, %.1f %ss/s, ETA %s", what, done, total, unit, rate, unit, _clock((total - done) / rate))
    seconds = time.monotonic() - start
    log.info("%s: %d/%d %ss in %s (%.1f %ss/s)", what, done, total, unit, _clock(seconds), done / max(seconds, 1e-9), unit)


def _clock(seconds: float) -> str:
    """Format a duration as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
