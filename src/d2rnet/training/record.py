"""What a training run leaves behind while it runs: checkpoints, best weights, history; and how it stops when told to.

Lives in the work folder (see d2rnet.runs.workdir): ``last.pt`` (resume), ``best.pt`` (selected weights), ``metrics.jsonl`` and
``tensorboard/`` (history).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from d2rnet.files.torch_files import save_torch
from d2rnet.runs.signals import EXIT_AFTER_SIGNAL, give_back_stop_signals, take_stop_signals
from d2rnet.training.collectives import num_processes, process_rank, sum_over_processes
from d2rnet.training.history import History
from d2rnet.training.task import TrainingTask

log = logging.getLogger(__name__)
LAST = "last.pt"
BEST = "best.pt"
LOG_EVERY_SECONDS = 10.0
Row = dict[str, float]
Validate = Callable[[], Row]
IsBetter = Callable[[Row, Row], bool]


class StopRequest:
    """Set when SIGTERM or SIGUSR1 (a scheduler's warning) arrives."""

    def __init__(self) -> None:
        """Nothing asked for yet."""
        self.received = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal (its handler)."""
        self.received = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGUSR1 into a request to stop after the current step; put the old handlers back at the end."""
    request = StopRequest()
    previous = take_stop_signals(request.note)
    try:
        yield request
    finally:
        give_back_stop_signals(previous)


class TrainingRecord:
    """Writes checkpoints and history, validates, keeps the best weights, reports progress and stops on request."""

    def __init__(
        self,
        folder: Path,
        task: TrainingTask,
        *,
        validate: Validate,
        is_better: IsBetter,
        stop: StopRequest,
        checkpoint_minutes: float,
    ) -> None:
        """Take the parts.

        Args:
            folder: work folder.
            task: what is trained.
            validate: scores of the validation split.
            is_better: whether a row of the history is better than the best one so far (an empty one at first).
            stop: the request to stop.
            checkpoint_minutes: minutes between checkpoints.
        """
        self.folder = folder
        self.task = task
        self.settings = task.settings
        self.validate = validate
        self.is_better = is_better
        self.stop = stop
        self.checkpoint_minutes = checkpoint_minutes
        self.history = History(folder, "step")
        self.best: dict[str, float] = {}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: take over the best scores."""
        self.best = state["best"]

    def begin(self) -> None:
        """Start the clocks, and the history where the task is."""
        self.history.cut(self.task.finished_steps)
        self._start_step = self.task.finished_steps
        self._started = self._saved = self._logged = self._epoch_started = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint."""
        if process_rank() == 0:
            save_torch(self.folder / LAST, {**self.task.state(), "best": self.best})
        self._saved = time.monotonic()

    def after_step(self) -> None:
        """Report, save or stop where it is time to.

        Raises:
            SystemExit: 143, if this or another process was told to stop; the state is saved.
        """
        task = self.task
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_SECONDS:
            self._logged = now
            self._report_progress(now)
        if self._told_to_stop():
            if task.is_between_epochs:
                self.finish_epoch()
            self.save()
            if process_rank() == 0:
                log.warning("told to stop: saved step %d of %d; run again to go on", task.finished_steps, task.total_steps)
            raise SystemExit(EXIT_AFTER_SIGNAL)
        if now - self._saved >= 60 * self.checkpoint_minutes and not task.is_between_epochs:
            self.save()

    def _told_to_stop(self) -> bool:
        """Whether any process was; all of them have to stop after the same step."""
        if num_processes() == 1:
            return self.stop.received  # asking the device would wait for the step that it has begun
        return bool(sum_over_processes(torch.tensor(int(self.stop.received), device=self.task.device)))

    def finish_epoch(self) -> None:
        """Validate where due, write history, keep the best weights."""
        task = self.task
        epoch = task.finished_epochs
        row: dict[str, float] = {"epoch": epoch, "step": task.finished_steps, **task.mean_losses()}
        row["learning_rate"] = task.optimizer.param_groups[-1]["lr"]
        row["train_seconds"] = round(time.monotonic() - self._epoch_started, 2)
        if epoch % self.settings.validate_every_epochs == 0 or epoch == self.settings.epochs:
            row |= self.validate()
            self._keep_if_best(row)
        task.loss_sums.clear()
        self.history.write(row)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key not in ("epoch", "step"))
        log.info("epoch %d/%d: %s", epoch, self.settings.epochs, shown)
        self._epoch_started = time.monotonic()

    def _keep_if_best(self, row: dict[str, float]) -> None:
        if self.is_better(row, self.best):
            self.best = dict(row)
            if process_rank() == 0:
                save_torch(self.folder / BEST, {**self.task.weights(), "selected": self.best})

    def _report_progress(self, now: float) -> None:
        task = self.task
        rate = (task.finished_steps - self._start_step) / (now - self._started)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in task.mean_losses().items())
        log.info(
            "train: step %d/%d, epoch %d/%d, %s, %.1f entries/s, ETA %.1f min",
            task.finished_steps,
            task.total_steps,
            min(task.finished_epochs + 1, self.settings.epochs),
            self.settings.epochs,
            shown,
            rate * self.settings.batch_size,
            (task.total_steps - task.finished_steps) / rate / 60,
        )
