"""What a training run leaves behind while it runs: checkpoints, best weights, history; and how it stops when told to.

Lives in the work folder (see d2rnet.runs.workdir): ``last.pt`` (resume), ``best.pt`` (selected weights), ``metrics.jsonl``
(history), ``csv/`` and ``tensorboard/``.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch

from d2rnet.files.documents import read_jsonl_of_killed, write_jsonl
from d2rnet.files.torch_files import save_torch
from d2rnet.report.training_task import ReportTask
from d2rnet.runs.signals import EXIT_AFTER_SIGNAL, give_back_stop_signals, take_stop_signals
from d2rnet.training.collectives import process_rank, sum_over_processes

log = logging.getLogger(__name__)
LAST, BEST, HISTORY = "last.pt", "best.pt", "metrics.jsonl"
LOG_EVERY_SECONDS = 10.0


class StopRequest:
    """Set when SIGTERM or SIGUSR1 (a scheduler's warning) arrives."""

    def __init__(self) -> None:
        """Nothing asked for yet."""
        self.received = False

    def listen(self) -> dict[int, Any]:
        """Take over the signals; return their handlers until now."""
        return take_stop_signals(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGUSR1 into a request to stop after the current step; put the old handlers back at the end."""
    request = StopRequest()
    previous = request.listen()
    try:
        yield request
    finally:
        give_back_stop_signals(previous)


Validate = Callable[[], dict[str, float]]


class TrainingRecord(lightning.Callback):
    """Writes checkpoints and history, validates, keeps the best weights, reports progress and stops on request."""

    def __init__(self, folder: Path, *, settings: dict[str, Any], validate: Validate, stop: StopRequest) -> None:
        """Take the work folder, section ``cxr.report.training``, the validation and the request to stop."""
        self.folder, self.settings, self.validate, self.stop = folder, settings, validate, stop
        self.best: dict[str, float] = {}
        self._start_step = 0
        self._started = self._saved = self._logged = self._epoch_started = time.monotonic()

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: take over the best scores."""
        self.best = state["best"]

    def cut_history(self, finished_steps: int) -> None:
        """Remove history that is newer than the checkpoint of ``finished_steps``; all of it for 0."""
        history = self.folder / HISTORY
        if process_rank() == 0:
            write_jsonl(history, [row for row in read_jsonl_of_killed(history) if row["step"] <= finished_steps])

    def save(self, task: ReportTask) -> None:
        """Write the checkpoint."""
        if process_rank() == 0:
            save_torch(self.folder / LAST, {**task.state(), "best": self.best})
        self._saved = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clocks; take the signals from Lightning, whose handler would wait for other processes."""
        self.stop.listen()
        self._start_step = _task(pl_module).finished_steps
        self._started = self._saved = self._logged = self._epoch_started = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Count the step; save, report or stop where it is time to."""
        task = _task(pl_module)
        task.finished_steps += 1
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_SECONDS:
            self._logged = now
            self._report_progress(task, now)
        if self._told_to_stop(task):
            if task.finished_steps % task.steps_per_epoch == 0:
                self._finish_epoch(task, trainer)
            self.save(task)
            if process_rank() == 0:
                log.warning("told to stop: saved step %d of %d; run again to go on", task.finished_steps, task.total_steps)
            raise SystemExit(EXIT_AFTER_SIGNAL)
        if now - self._saved >= 60 * self.settings["checkpoint_minutes"] and task.finished_steps % task.steps_per_epoch:
            self.save(task)

    def _told_to_stop(self, task: ReportTask) -> bool:
        """Whether any process was; all of them have to stop after the same step."""
        return bool(sum_over_processes(torch.tensor(int(self.stop.received), device=task.device)))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate where due, write history, keep the best weights, save."""
        task = _task(pl_module)
        self._finish_epoch(task, trainer)
        self.save(task)

    def _finish_epoch(self, task: ReportTask, trainer: lightning.Trainer) -> None:
        epoch = task.finished_epochs
        row: dict[str, float] = {"epoch": epoch, "step": task.finished_steps, **task.mean_losses()}
        row["learning_rate"] = task.trainer.optimizers[0].param_groups[-1]["lr"]
        row["train_seconds"] = round(time.monotonic() - self._epoch_started, 2)
        if epoch % self.settings["validate_every_epochs"] == 0 or epoch == self.settings["epochs"]:
            row |= self.validate()
            self._keep_if_best(task, row)
        task.loss_sums.clear()
        for logger in trainer.loggers:
            logger.log_metrics(row, step=task.finished_steps)
        if process_rank() == 0:
            with (self.folder / HISTORY).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key not in ("epoch", "step"))
        log.info("epoch %d/%d: %s", epoch, self.settings["epochs"], shown)
        self._epoch_started = time.monotonic()

    def _keep_if_best(self, task: ReportTask, row: dict[str, float]) -> None:
        if is_better(row, self.best, selection=self.settings["selection"]):
            self.best = dict(row)
            if process_rank() == 0:
                save_torch(self.folder / BEST, {"model": task.model.state_dict(), "selected": self.best})

    def _report_progress(self, task: ReportTask, now: float) -> None:
        rate = (task.finished_steps - self._start_step) / (now - self._started)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in task.mean_losses().items())
        minutes = (task.total_steps - task.finished_steps) / rate / 60
        log.info(
            "train: step %d/%d, epoch %d/%d, %s, %.1f entries/s, ETA %.1f min",
            task.finished_steps, task.total_steps, min(task.finished_epochs + 1, self.settings["epochs"]),
            self.settings["epochs"], shown, rate * self.settings["batch_size"], minutes,
        )  # fmt: skip


def is_better(row: dict[str, float], best: dict[str, float], *, selection: str) -> bool:
    """Compare validation scores: higher BLEU-4, or lower loss; the loss decides between equal BLEU-4."""
    if not best:
        return True
    if selection == "loss" or row["val_bleu_4"] == best["val_bleu_4"]:
        return row["val_loss"] < best["val_loss"]
    return row["val_bleu_4"] > best["val_bleu_4"]


def _task(module: lightning.LightningModule) -> ReportTask:
    assert isinstance(module, ReportTask)
    return module
