"""One training iteration of Unbiased Teacher v2, on detectron2's ``TrainerBase``.

Burn-in: the student learns from labelled views. At its end the student is copied to the EMA teacher. Mutual learning: the
EMA teacher draws pseudo boxes on weak views of unlabelled images, the student learns from labelled views and from the strong
views of the same unlabelled images in one pass, and the EMA teacher follows the student.

All randomness of an iteration comes with its batch, from (seed, iteration, place), the learning rate from the iteration; so
the state of a run is weights, optimiser, loss scaler and iteration; there is no generator, scheduler or sampler to restore.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.solver.build import get_default_optimizer_params
from torch import Tensor, nn

from d2rnet.detector.dataset_mapper import Batch
from d2rnet.detector.ema import EmaTeacher
from d2rnet.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.detector.pseudo_labels import attach_targets, draw_pseudo_labels
from d2rnet.detector.rpn import PSEUDO_SUFFIX
from d2rnet.errors import D2RNetError
from d2rnet.settings import Settings

log = logging.getLogger(__name__)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DivergenceError(D2RNetError):
    """A loss is no longer finite; the last checkpoint is from before."""


def learning_rate(iteration: int, training: Settings) -> float:
    """Learning rate of an iteration: linear warm-up, then steps or a cosine.

    Args:
        iteration: counted from 0.
        training: ``detector.training`` settings.
    """
    warm_up = training["warm_up_iters"]
    rate = training["base_lr"] * min(1.0, (iteration + 1) / warm_up if warm_up else 1.0)
    if training["lr_schedule"] == "cosine":
        least = training["final_lr_factor"]
        return rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * iteration / training["total_iters"])))
    return rate * training["lr_step_factor"] ** sum(iteration >= step for step in training["lr_step_iters"])


def unsupervised_weight(iteration: int, training: Settings) -> float:
    """Weight lambda_u of the pseudo-label losses: a linear ramp after burn-in up to the full weight."""
    ramp = training["unsupervised_ramp_iters"]
    since_burn_in = iteration - training["burn_in_iters"]
    return training["unsupervised_weight"] * (min(1.0, (since_burn_in + 1) / ramp) if ramp else 1.0)


def build_optimizer(model: nn.Module, training: Settings) -> torch.optim.Optimizer:
    """Make the optimiser; normalisation layers have no weight decay, as in detectron2."""
    groups = get_default_optimizer_params(model, weight_decay=training["weight_decay"], weight_decay_norm=0.0)
    if training["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=training["base_lr"], foreach=True)
    return torch.optim.SGD(groups, lr=training["base_lr"], momentum=training["momentum"], foreach=True)


class UnbiasedTeacherTrainer(TrainerBase):
    """Student, EMA teacher, optimiser and the step that moves them."""

    def __init__(
        self, student: UnbiasedTeacherRCNN, training: Settings, batches: Iterator[Batch], device: torch.device
    ) -> None:
        """Take the student (already on its device) and the batches from the first iteration to be done."""
        super().__init__()
        self.student = student.train()
        self.ema_teacher = EmaTeacher(student)
        self.training = training
        self.batches = batches
        self.device = device
        self.optimizer = build_optimizer(student, training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training["amp"] == "fp16")
        self.metrics: dict[str, float] = {}
        self.class_counts: Counter[int] = Counter()

    def state(self, iterations_done: int) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "iterations_done": iterations_done,
            "student": self.student.state_dict(),
            "ema_teacher": self.ema_teacher.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> int:
        """Restore :meth:`state`; return the number of iterations done."""
        self.student.load_state_dict(state["student"])
        self.ema_teacher.model.load_state_dict(state["ema_teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return state["iterations_done"]

    def run_step(self) -> None:
        """Do iteration ``self.iter``."""
        training = self.training
        if self.iter == training["burn_in_iters"]:
            self.ema_teacher.update(0.0)
            log.info("iteration %d: burn-in is over, the EMA teacher starts as a copy of the student", self.iter)
        rate = learning_rate(self.iter, training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = next(self.batches)
        self.metrics = {"learning_rate": rate, **_boxes_per_image("labelled", batch.labelled)}
        losses = self._losses(batch)
        total = self._weighted_sum(losses)
        self._check_finite(total, losses)
        self._descend(total)
        if self.iter >= training["burn_in_iters"]:
            self.ema_teacher.update(training["ema_keep_rate"])

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted losses of the student on labelled and, after burn-in, pseudo-labelled views."""
        training = self.training
        dtype = AMP_TYPES.get(training["amp"])
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            pseudo_views: list[dict] = []
            if batch.unlabelled_weak:
                targets = draw_pseudo_labels(self.ema_teacher.model, batch.unlabelled_weak, training["pseudo_score_threshold"])
                pseudo_views = attach_targets(batch.unlabelled_strong, targets, training["empty_unlabelled"])
                self.metrics["pseudo_boxes_per_image"] = sum(map(len, targets)) / len(targets)
                self.metrics["unlabelled_with_pseudo_boxes"] = sum(len(target) > 0 for target in targets) / len(targets)
                for target in targets:
                    self.class_counts.update(target.gt_classes.tolist())
            try:
                return self.student([*batch.labelled, *pseudo_views])
            except FloatingPointError as error:
                raise self._divergence(str(error)) from error

    def _weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        """Total loss; lambda_u applies to the pseudo-label class and objectness losses, the box loss keeps weight 1."""
        factor = unsupervised_weight(self.iter, self.training)
        weights = {"loss_cls" + PSEUDO_SUFFIX: factor, "loss_rpn_cls" + PSEUDO_SUFFIX: factor}
        return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def _check_finite(self, total: Tensor, losses: dict[str, Tensor]) -> None:
        values = torch.stack([total.detach(), *(loss.detach() for loss in losses.values())]).tolist()
        self.metrics.update(zip(["total_loss", *losses], values, strict=True))
        if not all(map(math.isfinite, values)):
            raise self._divergence("a loss is not finite")

    def _divergence(self, reason: str) -> DivergenceError:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return DivergenceError(
            f"train-detector: iteration {self.iter}: {reason}. Last figures: {figures}. Try a lower base_lr or "
            "unsupervised_weight, a longer warm_up_iters or unsupervised_ramp_iters, clip_gradient_norm; look at "
            "pseudo_boxes_per_image beside labelled_boxes_per_image in metrics.jsonl. The last checkpoint is kept."
        )

    def _descend(self, total: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        if self.training["clip_gradient_norm"] > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), self.training["clip_gradient_norm"], foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _boxes_per_image(name: str, views: list[dict]) -> dict[str, float]:
    return {f"{name}_boxes_per_image": sum(len(view["instances"]) for view in views) / len(views)}
