"""One training iteration of Unbiased Teacher v2, on detectron2's ``TrainerBase``.

Burn-in: the student learns from labelled views. At its end the student is copied to the EMA teacher. Mutual learning: the
EMA teacher draws pseudo boxes on weak views of unlabelled images, the student learns from labelled views and from the strong
views of the same unlabelled images in one pass, and the EMA teacher follows the student.

A batch may be cut over processes and, in each, over micro-batches (gradient accumulation). A loss of the whole batch is a sum
divided by the number of anchors or proposals that its images may be sampled for, ``rpn_batch_per_image`` and
``roi_batch_per_image`` times the images; both are known before the first part is computed, so the parts add up exactly.
(detectron2 divides the box losses by the proposals found, the same wherever there are enough: always, at the published sizes.)

All randomness of an iteration comes with its batch, from (seed, iteration, place), the learning rate from the iteration; so
the state of a run is weights, optimiser, loss scaler, thresholds and iteration; there is no generator, scheduler or sampler to
restore.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from detectron2.engine import TrainerBase, create_ddp_model
from detectron2.solver.build import get_default_optimizer_params
from detectron2.structures import Instances
from fvcore.nn.precise_bn import get_bn_modules
from torch import Tensor, nn

from d2rnet.cxr.detector.dataset_mapper import Batch, View
from d2rnet.cxr.detector.ema import EmaTeacher
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.pseudo_label_rule import AdaptiveRule, FixedRule
from d2rnet.cxr.detector.pseudo_labels import attach_targets, images_to_train_on, select_pseudo_boxes, teacher_detections
from d2rnet.cxr.detector.rpn import PSEUDO_SUFFIX
from d2rnet.cxr.detector.schedules import learning_rate, unsupervised_weight
from d2rnet.cxr.detector.settings import DetectorTrainingSettings
from d2rnet.errors import D2RNetError
from d2rnet.training.collectives import (
    average_over_processes,
    gather_objects,
    num_processes,
    sum_over_processes,
)

log = logging.getLogger(__name__)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LABELLED_LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_box_nll")
PSEUDO_LOSSES = tuple(name + PSEUDO_SUFFIX for name in ("loss_rpn_cls", "loss_cls", "loss_box_reg"))
# lambda_u applies to the class and objectness losses on pseudo boxes, the box loss keeps weight 1.
UNSUPERVISED = ("loss_cls" + PSEUDO_SUFFIX, "loss_rpn_cls" + PSEUDO_SUFFIX)
SMALLEST_LOSS_SCALE = 1.0


class DivergenceError(D2RNetError):
    """A loss, a gradient or a weight is no longer finite; the last checkpoint is from before."""


def build_optimizer(model: nn.Module, training: DetectorTrainingSettings) -> torch.optim.Optimizer:
    """Make the optimiser; normalisation layers have no weight decay, as in detectron2."""
    groups = get_default_optimizer_params(model, weight_decay=training.weight_decay, weight_decay_norm=0.0)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.base_lr, fused=True)
    return torch.optim.SGD(groups, lr=training.base_lr, momentum=training.momentum, fused=True)


@dataclass(frozen=True)
class Part:
    """A micro-batch of one process, with its shares in the whole batch; keys: False labelled, True pseudo-labelled.

    Attributes:
        views: with targets, labelled ones first.
        share: of the batch's images of that kind, those in this part.
    """

    views: list[View]
    share: dict[bool, float]


class UnbiasedTeacherTrainer(TrainerBase):
    """Student, EMA teacher, optimiser and the step that moves them.

    Attributes:
        metrics: figures of the last iteration.
        box_counts: boxes by class on its ``labelled`` and ``pseudo`` labelled images, of all processes.
        image_counts: how many images these are.
        skipped_steps: fp16 steps left out so far because gradients overflowed.
    """

    def __init__(
        self,
        student: UnbiasedTeacherRCNN,
        training: DetectorTrainingSettings,
        batches: Iterator[Batch],
        device: torch.device,
        boxes_per_image: Sequence[float] = (),
    ) -> None:
        """Set up an untrained run.

        Args:
            student: on its device.
            training: ``cxr.detector.training`` settings.
            batches: this process's, from the first iteration to be done.
            device: where to compute.
            boxes_per_image: (C,) boxes of each class on a labelled image, for adaptive thresholds.
        """
        super().__init__()
        self.student = student.train()
        self.ema_teacher = EmaTeacher(student)
        self.training = training
        self.batches = batches
        self.device = device
        own_gpu = [device] if device.type == "cuda" else None
        self.model = create_ddp_model(student, device_ids=own_gpu, broadcast_buffers=False)
        self.optimizer = build_optimizer(student, training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.amp == "fp16")
        self.pseudo_label_rule = (
            AdaptiveRule(training, boxes_per_image, device)
            if training.pseudo_threshold == "adaptive"
            else FixedRule(training, student.roi_heads.num_classes, device)
        )
        norms = get_bn_modules(student)  # those that are trained; frozen ones are of another class
        for norm in norms:  # an iteration moves the running statistics as far as one pass over the whole batch would
            norm.momentum = 1 - (1 - norm.momentum) ** (1 / training.accumulation_steps)
        self._statistics = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
        self.metrics: dict[str, float] = {}
        self.box_counts: dict[str, Counter[int]] = {}
        self.image_counts: dict[str, int] = {}
        self.skipped_steps = 0

    def state(self, iterations_done: int) -> dict[str, Any]:
        """Everything that the rest of the run depends on; the same on every process."""
        return {
            "iterations_done": iterations_done,
            "student": self.student.state_dict(),
            "ema_teacher": self.ema_teacher.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_steps": self.skipped_steps,
            "thresholds": self.pseudo_label_rule.state(),
        }

    def load_state(self, state: dict[str, Any]) -> int:
        """Restore :meth:`state`; return the number of iterations done."""
        self.student.load_state_dict(state["student"])
        self.ema_teacher.model.load_state_dict(state["ema_teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped_steps = state["skipped_steps"]
        self.pseudo_label_rule.load_state(state["thresholds"])
        return state["iterations_done"]

    def run_step(self) -> None:
        """Do iteration ``self.iter``.

        Raises:
            DivergenceError: a loss is not finite, or a gradient without fp16; the weights have not been touched.
        """
        burn_in = self.training.burn_in_iters
        if self.iter == burn_in:
            self.ema_teacher.update(0.0)
            log.info("iteration %d: burn-in is over, the EMA teacher starts as a copy of the student", self.iter)
        rate = learning_rate(self.iter, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.metrics = {"learning_rate": rate}
        self._descend(self._backward(self._parts(next(self.batches))))
        if self.iter >= burn_in:
            self.ema_teacher.update(self.training.ema_keep_rate)

    def _parts(self, batch: Batch) -> list[Part]:
        """Cut this process's share into micro-batches, with pseudo boxes on the unlabelled images after burn-in."""
        steps = self.training.accumulation_steps
        cut = batch.cut(steps)
        targets = self._pseudo_targets([part.unlabelled_weak for part in cut])
        labelled_classes = [view["instances"].gt_classes.tolist() for view in batch.labelled]
        pseudo_classes = _class_lists([target for part in targets for target in part])
        places = [view["place"] for view in batch.unlabelled_weak]
        everyone = gather_objects((labelled_classes, dict(zip(places, pseudo_classes, strict=True))))
        self._count("labelled", [classes for labelled, _ in everyone for classes in labelled])
        by_place = sorted((place, classes) for _, pseudo in everyone for place, classes in pseudo.items())
        of_all = [classes for _, classes in by_place]
        kept = images_to_train_on(
            [len(classes) for classes in of_all],
            self.training.empty_unlabelled,
            self.training.max_empty_unlabelled_share,
        )
        keeps = {place: keep for (place, _), keep in zip(by_place, kept, strict=True)}
        if of_all:
            self._count("pseudo", of_all)
            self.metrics["unlabelled_with_pseudo_boxes"] = sum(map(bool, of_all)) / len(of_all)
            self.metrics["unlabelled_trained_on"] = sum(kept) / len(of_all)
        total = max(1, sum(kept))
        parts = []
        for part, targets_of_part in zip(cut, targets, strict=True):
            chosen = [keeps[view["place"]] for view in part.unlabelled_strong]
            pseudo_views = attach_targets(part.unlabelled_strong, targets_of_part, chosen)
            share = {False: 1 / (steps * num_processes()), True: len(pseudo_views) / total}
            parts.append(Part([*part.labelled, *pseudo_views], share))
        return parts

    def _pseudo_targets(self, weak_views: list[list[View]]) -> list[list[Instances]]:
        """Pseudo boxes by micro-batch; the thresholds learn from the detections afterwards."""
        with self._precision():
            detections = [teacher_detections(self.ema_teacher.model, views) for views in weak_views]
        targets = [[select_pseudo_boxes(image, self.pseudo_label_rule.thresholds) for image in part] for part in detections]
        if any(detections):
            self.pseudo_label_rule.observe([image for part in detections for image in part], self.training.unlabelled_batch)
        return targets

    def _count(self, stream: str, classes: list[list[int]]) -> None:
        self.box_counts[stream] = Counter(index for image in classes for index in image)
        self.image_counts[stream] = len(classes)
        self.metrics[f"{stream}_boxes_per_image"] = sum(map(len, classes)) / len(classes)

    def _precision(self) -> AbstractContextManager[Any]:
        dtype = AMP_TYPES.get(self.training.amp)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def _backward(self, parts: list[Part]) -> Tensor:
        """Accumulate the gradients of all parts; return this process's addends to the losses, in the order of their names."""
        self.optimizer.zero_grad(set_to_none=True)
        names = LABELLED_LOSSES + PSEUDO_LOSSES
        sums = torch.zeros(len(names), device=self.device)
        for index, part in enumerate(parts):
            waits = num_processes() > 1 and index + 1 < len(parts)
            with self.model.no_sync() if waits else nullcontext():
                losses = self._losses(part)
                # The processes' gradients are averaged, the losses are their addends to a sum.
                self.scaler.scale(self._weighted_sum(losses) * num_processes()).backward()
            zero = sums.new_zeros(())
            sums += torch.stack([losses[name].detach().float() if name in losses else zero for name in names])
        return sums

    def _losses(self, part: Part) -> dict[str, Tensor]:
        """Unweighted losses of the student on a part, as addends to those of the whole batch."""
        try:
            with self._precision():
                losses = self.model(part.views)
        except FloatingPointError as error:
            raise self.divergence(str(error)) from error
        addends = {}
        for name, loss in losses.items():
            pseudo = name.endswith(PSEUDO_SUFFIX)
            filled = 1.0 if name.startswith("loss_rpn") else self.student.sampled_share[pseudo]
            addends[name] = loss * (part.share[pseudo] * filled)
        return addends

    def _weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        """Total loss."""
        return torch.stack([loss * self._weight(name) for name, loss in losses.items()]).sum()

    def _weight(self, name: str) -> float:
        """Weight of a loss in the total; with lambda_u 0 that of the box loss on pseudo boxes is 0 too: nothing is learnt."""
        factor = unsupervised_weight(self.iter, self.training)
        if name in UNSUPERVISED:
            return factor
        return 0.0 if name in PSEUDO_LOSSES and factor == 0 else 1.0

    def _descend(self, addends: Tensor) -> None:
        """Check losses and gradients, then move the weights; one wait for the device."""
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for parameter in self.student.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters], foreach=True)
        *losses, norm_value = torch.cat([sum_over_processes(addends), norm.reshape(1)]).tolist()
        self._check(losses, norm_value)
        if self.training.clip_gradient_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, self.training.clip_gradient_norm, norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        average_over_processes(self._statistics)

    def _check(self, losses: list[float], norm: float) -> None:
        """Note the figures; stop, or with fp16 count a step that will be left out, if they are not finite."""
        figures = dict(zip(LABELLED_LOSSES + PSEUDO_LOSSES, losses, strict=True))
        self.metrics["total_loss"] = sum(value * self._weight(name) for name, value in figures.items())
        trained = self.metrics.get("unlabelled_trained_on", 0) > 0
        self.metrics.update((name, value) for name, value in figures.items() if trained or name in LABELLED_LOSSES)
        if not math.isfinite(self.metrics["total_loss"]):
            raise self.divergence("a loss is not finite")
        if math.isfinite(norm):
            self.metrics["gradient_norm"] = norm
            return
        if not self.scaler.is_enabled():
            raise self.divergence("the losses are finite, but the gradient is not")
        self.skipped_steps += 1
        scale = self.scaler.get_scale()
        log.info(
            "iteration %d: gradients overflow at loss scale %g; %d steps left out so far", self.iter, scale, self.skipped_steps
        )
        if scale <= SMALLEST_LOSS_SCALE:
            raise self.divergence(f"the gradient is not finite even at loss scale {scale:g}")

    def divergence(self, reason: str) -> DivergenceError:
        """The error that stops a run, with the last figures and advice."""
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return DivergenceError(
            f"train-detector: iteration {self.iter}: {reason}. Last figures: {figures}. Try a lower base_lr or "
            "unsupervised_weight, a longer warm_up_iters or unsupervised_ramp_iters, clip_gradient_norm; look at "
            "pseudo_boxes_per_image beside labelled_boxes_per_image in metrics.jsonl. The last checkpoint is kept."
        )


def _class_lists(targets: list[Instances]) -> list[list[int]]:
    """Classes of each target's boxes, with one wait for the device."""
    if not targets:
        return []
    classes = iter(torch.cat([target.gt_classes for target in targets]).tolist())
    return [list(islice(classes, len(target))) for target in targets]
