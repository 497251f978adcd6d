"""The pseudo-label rule: which score makes a detection of the EMA teacher a pseudo box, in training.

One threshold for all, or one per class that follows the teacher. Not to be mixed up with the confidence filter,
which decides what annotation.json holds, nor with the calibration of that filter on the validation split.

The adaptive rule is the idea of LabelMatch's label-distribution-aware thresholds (Chen et al., CVPR 2022, arXiv 2206.06608):
unlabelled images should get as many pseudo boxes of a class as labelled images have. Reconstructed, and differing in the
bookkeeping: an exponential moving average of score histograms instead of queues of scores.

Shapes: C classes, B score bins.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from d2rnet.cxr.detector.settings import DetectorTrainingSettings
from d2rnet.training.collectives import sum_over_processes

SCORE_BINS = 100
ROUNDING = 1e-9  # boxes per image; averages of whole numbers are not quite whole


class FixedRule:
    """The same threshold for every class, for ever.

    Attributes:
        thresholds: (C,) float32; a detection must score higher than its class's.
    """

    def __init__(self, training: DetectorTrainingSettings, classes: int, device: torch.device) -> None:
        """Read ``cxr.detector.training`` settings."""
        self.thresholds = torch.full((classes,), training.pseudo_score_threshold, device=device)

    def observe(self, detections: Sequence[Instances], images: int) -> None:
        """Learn nothing from the detections of an iteration."""

    def state(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class AdaptiveRule(FixedRule):
    """A threshold per class, so that unlabelled images get a wanted number of its pseudo boxes."""

    def __init__(self, training: DetectorTrainingSettings, boxes_per_image: Sequence[float], device: torch.device) -> None:
        """Start at the fixed threshold.

        Args:
            training: ``cxr.detector.training`` settings.
            boxes_per_image: (C,) boxes of each class on a labelled image, images without boxes included.
            device: where the detections are.
        """
        super().__init__(training, len(boxes_per_image), device)
        self._start = self.thresholds.double()
        self._keep_rate = training.adaptive_keep_rate
        self._range = training.adaptive_threshold_range
        wanted = torch.tensor(boxes_per_image, dtype=torch.float64) * training.adaptive_box_share
        self._wanted = wanted.to(device)[:, None]  # (C, 1)
        self._histogram = torch.zeros(len(boxes_per_image), SCORE_BINS, dtype=torch.float64, device=device)
        self._weight = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def observe(self, detections: Sequence[Instances], images: int) -> None:
        """Move the thresholds after an iteration; the same on every process.

        Args:
            detections: this process's, before any threshold: ``scores``, ``pred_classes``.
            images: unlabelled images of the whole batch, of all processes.
        """
        counts = sum_over_processes(self._counts(detections))
        self._histogram.lerp_(counts / images, 1.0 - self._keep_rate)
        self._weight.lerp_(torch.ones_like(self._weight), 1.0 - self._keep_rate)
        self._set_thresholds()

    def _counts(self, detections: Sequence[Instances]) -> Tensor:
        """(C, B) float64 detections by class and score bin."""
        scores = torch.cat([image.scores for image in detections]).double()
        classes = torch.cat([image.pred_classes for image in detections])
        bins = (scores * SCORE_BINS).long().clamp(0, SCORE_BINS - 1)
        flat = torch.bincount(classes * SCORE_BINS + bins, minlength=self._histogram.numel())
        return flat.view_as(self._histogram).double()

    def _set_thresholds(self) -> None:
        """The lowest score that leaves no more boxes per image than wanted, mixed with the start while little is known."""
        boxes_above = (self._histogram / self._weight).flip(1).cumsum(1).flip(1)  # (C, B): at or above each bin's lower edge
        lowest_bin = (boxes_above > self._wanted + ROUNDING).sum(1)  # boxes_above falls with the bin
        found = (lowest_bin / SCORE_BINS).clamp(*self._range)
        self.thresholds = torch.lerp(self._start, found.double(), self._weight).float()

    def state(self) -> dict[str, Any]:
        """What the thresholds depend on."""
        return {"histogram": self._histogram, "weight": self._weight}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        self._histogram.copy_(state["histogram"])
        self._weight.copy_(state["weight"])
        if self._weight > 0:
            self._set_thresholds()
