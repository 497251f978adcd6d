"""What happens around an iteration: progress, metrics, checkpoints, validation, and stopping on a signal.

All are detectron2 hooks of :class:`d2rnet.detector.engine.UnbiasedTeacherTrainer`.
"""

import json
import logging
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from torch.utils.tensorboard import SummaryWriter

from d2rnet.data.categories import CATEGORY_NAMES
from d2rnet.io import read_jsonl_of_killed, write_jsonl
from d2rnet.progress import track
from d2rnet.torch_files import save_torch

log = logging.getLogger(__name__)
EXIT_AFTER_SIGNAL = 143
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class ProgressHook(HookBase):
    """Shows iterations a second and the remaining time."""

    def before_train(self) -> None:
        """Start the clock."""
        todo = range(self.trainer.start_iter, self.trainer.max_iter)
        self._ticks: Iterator[int] = iter(track(todo, total=len(todo), what="train detector", unit="iteration"))
        next(self._ticks, None)

    def after_step(self) -> None:
        """Count one iteration."""
        next(self._ticks, None)


class MetricsHook(HookBase):
    """Averages figures over ``every`` iterations, to ``metrics.jsonl`` and TensorBoard, and logs the main ones."""

    def __init__(self, folder: Path, every: int) -> None:
        """Write below ``folder``, the work folder."""
        self.path = folder / "metrics.jsonl"
        self._tensorboard_folder = folder / "tensorboard"
        self._every = every
        self._writer: SummaryWriter | None = None
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def before_train(self) -> None:
        """Drop lines that a killed run wrote after its last checkpoint; they will be written again."""
        start = self.trainer.start_iter
        kept = [line for line in read_jsonl_of_killed(self.path) if line["iterations_done"] <= start]
        write_jsonl(self.path, kept)
        self._writer = SummaryWriter(str(self._tensorboard_folder), purge_step=start)
        self._since = time.perf_counter()

    def after_step(self) -> None:
        """Add this iteration's figures; write the means when an interval ends."""
        for name, value in self.trainer.metrics.items():
            self._sums[name] += value
            self._counts[name] += 1
        done = self.trainer.iter + 1
        if done % self._every == 0 or done == self.trainer.max_iter:
            self._flush(done)

    def after_train(self) -> None:
        """Close the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()

    def _flush(self, done: int) -> None:
        means: dict[str, Any] = {name: total / self._counts[name] for name, total in self._sums.items()}
        iterations = max(self._counts.values())
        means["seconds_per_iteration"] = (time.perf_counter() - self._since) / iterations
        self.write(done, means)
        assert self._writer is not None
        for name, value in means.items():
            self._writer.add_scalar(name, value, done)
        counts = {CATEGORY_NAMES[index]: count for index, count in sorted(self.trainer.class_counts.items())}
        if counts:
            self.write(done, {"pseudo_boxes_by_class": counts})
            self.trainer.class_counts.clear()
        shown = ("total_loss", "labelled_boxes_per_image", "pseudo_boxes_per_image", "seconds_per_iteration")
        figures = ", ".join(f"{name} {means[name]:.3f}" for name in shown if name in means)
        log.info("iteration %d: %s", done, figures)
        self._sums.clear()
        self._counts.clear()
        self._since = time.perf_counter()

    def write(self, done: int, figures: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"iterations_done": done, **figures}) + "\n")


class CheckpointHook(HookBase):
    """Saves the state of the run every ``every`` iterations and at the end."""

    def __init__(self, path: Path, every: int) -> None:
        """Write to ``path``."""
        self._path = path
        self._every = every

    def after_step(self) -> None:
        """Save if it is time."""
        done = self.trainer.iter + 1
        if done % self._every == 0 or done == self.trainer.max_iter:
            self.save()

    def save(self) -> None:
        """Save the state after the present iteration."""
        save_torch(self._path, self.trainer.state(self.trainer.iter + 1))


class StopSignalHook(HookBase):
    """On SIGTERM or SIGUSR1 saves a checkpoint after the iteration in flight and ends the process with status 143.

    Schedulers send these before they take a node away; a status other than 0 makes them try again.
    """

    def __init__(self, checkpoints: CheckpointHook) -> None:
        """Save through ``checkpoints``."""
        self._checkpoints = checkpoints
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Listen; only the main thread of a process may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number

    def after_step(self) -> None:
        """Stop if told to."""
        if self._received is None:
            return
        self._checkpoints.save()
        done = self.trainer.iter + 1
        log.warning("%s: checkpoint written after %d iterations, stopping", signal.Signals(self._received).name, done)
        raise SystemExit(EXIT_AFTER_SIGNAL)

    def after_train(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class ValidationHook(HookBase):
    """Scores student and, after burn-in, EMA teacher on the validation split every ``every`` iterations; changes nothing."""

    def __init__(self, score: Callable[[Any], dict[str, Any]], metrics: MetricsHook, every: int) -> None:
        """Score networks with ``score`` and write through ``metrics``."""
        self._score = score
        self._metrics = metrics
        self._every = every

    def after_step(self) -> None:
        """Score if it is time."""
        trainer = self.trainer
        done = trainer.iter + 1
        if done % self._every and done != trainer.max_iter:
            return
        networks = {"student": trainer.student}
        if done > trainer.training["burn_in_iters"]:
            networks["ema_teacher"] = trainer.ema_teacher.model
        figures: dict[str, Any] = {}
        for name, network in networks.items():
            scores = self._score(network)
            figures |= {f"validation_{name}_{key}": scores[key] for key in ("AP", "AP50")}
        trainer.student.train()
        self._metrics.write(done, figures)
        log.info("iteration %d: %s", done, ", ".join(f"{name} {value}" for name, value in figures.items()))
