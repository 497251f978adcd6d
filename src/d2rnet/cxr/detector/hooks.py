"""What happens around an iteration: progress, metrics, checkpoints, validation, and stopping on a signal.

All are detectron2 hooks of :class:`d2rnet.cxr.detector.engine.UnbiasedTeacherTrainer`.
"""

import logging
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from detectron2.engine import HookBase

from d2rnet.cxr.detector.checkpoint import save_weights
from d2rnet.files.torch_files import save_torch
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.runs.progress import track
from d2rnet.runs.signals import EXIT_AFTER_SIGNAL, give_back_stop_signals, take_stop_signals
from d2rnet.training.collectives import gather_objects
from d2rnet.training.history import History

log = logging.getLogger(__name__)
CLOCK = "iterations_done"  # of the history


class ProgressHook(HookBase):
    """Shows iterations per second and the remaining time."""

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
        self._history = History(folder, CLOCK)
        self._every = every
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._boxes: dict[str, Counter[int]] = defaultdict(Counter)
        self._images: Counter[str] = Counter()
        self._iterations = 0
        self._since = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """What the present interval has added up so far."""
        boxes = {stream: dict(counts) for stream, counts in self._boxes.items()}
        return {"sums": dict(self._sums), "counts": dict(self._counts), "boxes": boxes, "images": dict(self._images)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the interval of :meth:`state`."""
        self._sums.update(state["sums"])
        self._counts.update(state["counts"])
        self._images.update(state["images"])
        for stream, counts in state["boxes"].items():
            self._boxes[stream].update(counts)

    def before_train(self) -> None:
        """Open the history at the last checkpoint."""
        self._history.cut(self.trainer.start_iter)
        self._since = time.perf_counter()

    def after_step(self) -> None:
        """Add this iteration's figures; write the means when an interval ends."""
        for name, value in self.trainer.metrics.items():
            self._sums[name] += value
            self._counts[name] += 1
        for stream, counts in self.trainer.box_counts.items():
            self._boxes[stream].update(counts)
            self._images[stream] += self.trainer.image_counts[stream]
        self._iterations += 1
        done = self.trainer.iter + 1
        if done % self._every == 0 or done == self.trainer.max_iter:
            self._flush(done)

    def after_train(self) -> None:
        """Close the history."""
        self._history.close()

    def _flush(self, done: int) -> None:
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        means["seconds_per_iteration"] = (time.perf_counter() - self._since) / self._iterations
        self.write(done, means)
        self.write(done, self._by_class())
        shown = ("total_loss", "labelled_boxes_per_image", "pseudo_boxes_per_image", "seconds_per_iteration")
        figures = ", ".join(f"{name} {means[name]:.3f}" for name in shown if name in means)
        log.info("iteration %d: %s", done, figures)
        self._reset()

    def _by_class(self) -> dict[str, dict[str, float]]:
        """Boxes per image of the interval and present thresholds, by class; classes without a box are left out."""
        figures = {}
        for stream, counts in self._boxes.items():
            shares = {CATEGORY_NAMES[index]: count / self._images[stream] for index, count in sorted(counts.items())}
            figures[f"{stream}_boxes_per_image_by_class"] = shares
        if self.trainer.training.pseudo_threshold == "adaptive" and "pseudo" in self._boxes:
            thresholds = self.trainer.pseudo_label_rule.thresholds.tolist()
            figures["pseudo_thresholds_by_class"] = dict(zip(CATEGORY_NAMES, thresholds, strict=True))
        return figures

    def write(self, done: int, figures: dict[str, Any]) -> None:
        """Append one row to the history."""
        self._history.write({CLOCK: done, **figures})


class CheckpointHook(HookBase):
    """Saves the state of the run every ``every`` iterations and at the end."""

    def __init__(self, path: Path, every: int, metrics: MetricsHook) -> None:
        """Write to ``path``; the interval of ``metrics`` is part of the state."""
        self._path = path
        self._every = every
        self._metrics = metrics

    def after_step(self) -> None:
        """Save if it is time."""
        done = self.trainer.iter + 1
        if done % self._every == 0 or done == self.trainer.max_iter:
            self.save()

    def save(self) -> None:
        """Save the state after the present iteration.

        Raises:
            DivergenceError: a weight is not finite; the checkpoint before stays.
        """
        if not all_finite(self.trainer.student):
            raise self.trainer.divergence("a weight is not finite after the step")
        state = self.trainer.state(self.trainer.iter + 1)
        save_torch(self._path, {**state, "metrics": self._metrics.state()})


def all_finite(network: torch.nn.Module) -> bool:
    """Whether all floating-point weights and statistics of a network are finite numbers."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    greatest = torch._foreach_norm(tensors, ord=float("inf"))
    return bool(torch.stack([value.float() for value in greatest]).isfinite().all())


class BurnInHook(HookBase):
    """Keeps the student's weights at the end of burn-in, where mutual learning starts from."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self._path = path

    def before_step(self) -> None:
        """Save before the first iteration of mutual learning; a run resumed there writes the same again."""
        if self.trainer.iter == self.trainer.training.burn_in_iters:
            save_weights(self._path, self.trainer.student)


class StopSignalHook(HookBase):
    """On SIGTERM or SIGUSR1 saves a checkpoint after the iteration in flight and ends the process with status 143.

    Schedulers send these before they take a node away; a status other than 0 makes them try again. A signal to one process
    stops all of them after the same iteration.
    """

    def __init__(self, checkpoints: CheckpointHook | None) -> None:
        """Save through ``checkpoints``; None in processes that do not write."""
        self._checkpoints = checkpoints
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Listen; only the main thread of a process may."""
        self._previous = take_stop_signals(self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number

    def after_step(self) -> None:
        """Stop if this or another process was told to."""
        received = max(gather_objects(self._received or 0))
        if not received:
            return
        if self._checkpoints is not None:
            self._checkpoints.save()
            done = self.trainer.iter + 1
            log.warning("%s: checkpoint written after %d iterations, stopping", signal.Signals(received).name, done)
        raise SystemExit(EXIT_AFTER_SIGNAL)

    def after_train(self) -> None:
        """Give the signals back."""
        give_back_stop_signals(self._previous)


def networks_to_score(trainer: Any, every: int) -> dict[str, Any]:
    """Return the student and, after burn-in, the EMA teacher where this iteration is to be scored, else nothing.

    Args:
        trainer: the trainer of a hook, after a step.
        every: iterations between two scorings; the last iteration is always scored.
    """
    done = trainer.iter + 1
    if done % every and done != trainer.max_iter:
        return {}
    networks = {"student": trainer.student}
    if done > trainer.training.burn_in_iters:
        networks["ema_teacher"] = trainer.ema_teacher.model
    return networks


class ValidationHook(HookBase):
    """Scores student and, after burn-in, EMA teacher on the validation split every ``every`` iterations; changes nothing.

    All processes score together, so that each of them has this hook.
    """

    def __init__(self, score: Callable[[Any], dict[str, Any]], metrics: MetricsHook, every: int) -> None:
        """Score networks with ``score`` and write through ``metrics``."""
        self._score = score
        self._metrics = metrics
        self._every = every

    def after_step(self) -> None:
        """Score if it is time."""
        trainer = self.trainer
        done = trainer.iter + 1
        networks = networks_to_score(trainer, self._every)
        if not networks:
            return
        figures: dict[str, Any] = {}
        for name, network in networks.items():
            scores = self._score(network)
            figures |= {f"validation_{name}_{key}": scores[key] for key in ("AP", "AP50")}
        trainer.student.train()
        self._metrics.write(done, figures)
        log.info("iteration %d: %s", done, ", ".join(f"{name} {value}" for name, value in figures.items()))
