"""Region proposal network whose objectness loss trusts a pseudo box as much as its score says.

One forward pass serves labelled and pseudo-labelled images together; a target is pseudo if it carries ``gt_scores``. On
pseudo-labelled images every sampled anchor, background too, is weighted by the score of its best-matching pseudo box, and
there is no box loss (Unbiased Teacher v2, sec. 3.1).

Shapes: N images, A anchors of an image over all levels.
"""

from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from torch import Tensor

from d2rnet.cxr.detector.losses import weighted_objectness
from d2rnet.cxr.detector.sampling import ANCHORS, seed_sampling

PSEUDO_SUFFIX = "_pseudo"


def is_pseudo(target: Instances) -> bool:
    """Whether a target's boxes were drawn by the EMA teacher; holds for an image without boxes too."""
    return target.has("gt_scores")


@PROPOSAL_GENERATOR_REGISTRY.register()
class ScoreWeightedRPN(RPN):
    """detectron2's RPN with score-weighted objectness on pseudo-labelled images."""

    @configurable
    def __init__(self, *, empty_pseudo_weight: float, **options: Any) -> None:
        """Keep the weight of anchors on pseudo-labelled images without any pseudo box (0: as the authors do)."""
        super().__init__(**options)
        self.empty_pseudo_weight = empty_pseudo_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read the arguments of the constructor from a configuration."""
        return {
            **super().from_config(cfg, input_shape),
            "empty_pseudo_weight": cfg.MODEL.D2RNET.EMPTY_PSEUDO_WEIGHT,
        }

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes; in training also return the losses.

        Args:
            images: padded batch; only the sizes are used.
            features: pyramid level -> (N, C, H, W).
            gt_instances: N targets with ``gt_boxes``; pseudo ones also with ``gt_scores``.

        Returns:
            N proposals (``proposal_boxes``, ``objectness_logits``) and the losses ``loss_rpn_cls``, ``loss_rpn_loc`` and
            ``loss_rpn_cls_pseudo``, each only if there are such images.
        """
        levels = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(levels)
        logits, deltas = self.rpn_head(levels)
        logits = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]  # (N, H * W * anchors a cell)
        deltas = [level.permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in deltas]  # (N, H * W * anchors a cell, 4)
        losses: dict[str, Tensor] = {}
        if self.training:
            assert gt_instances is not None
            losses = self._losses(anchors, torch.cat(logits, dim=1), torch.cat(deltas, dim=1), gt_instances)
        detached = [level.detach().float() for level in logits]
        proposals = self.predict_proposals(anchors, detached, [level.detach().float() for level in deltas], images.image_sizes)
        return proposals, losses

    def _losses(self, anchors: list[Boxes], logits: Tensor, deltas: Tensor, targets: list[Instances]) -> dict[str, Tensor]:
        """Losses over logits (N, A) and deltas (N, A, 4), labelled and pseudo-labelled images apart."""
        all_anchors = Boxes.cat(anchors)
        matched = [self.match_anchors(all_anchors, target) for target in targets]
        logits_of = logits.unbind()
        deltas_of = deltas.unbind()
        losses = {}
        for wants_pseudo in (False, True):
            chosen = [index for index, target in enumerate(targets) if is_pseudo(target) == wants_pseudo]
            if not chosen:
                continue
            labels, weights, index = (torch.stack([matched[image][part] for image in chosen]) for part in range(3))
            normaliser = self.batch_size_per_image * len(chosen)
            own_logits = torch.stack([logits_of[image] for image in chosen])  # (n, A)
            objectness = weighted_objectness(own_logits.flatten(), labels.flatten(), weights.flatten()) / normaliser
            if wants_pseudo:
                losses["loss_rpn_cls" + PSEUDO_SUFFIX] = objectness
                continue
            losses["loss_rpn_cls"] = objectness
            own_deltas = torch.stack([deltas_of[image] for image in chosen])  # (n, A, 4)
            boxes = [targets[image].gt_boxes for image in chosen]
            losses["loss_rpn_loc"] = self._box_loss(all_anchors, own_deltas, labels, index, boxes) / normaliser
        return losses

    @torch.no_grad()
    def match_anchors(self, anchors: Boxes, target: Instances) -> tuple[Tensor, Tensor, Tensor]:
        """Label and sample the anchors of one image.

        Args:
            anchors: A anchors of all levels.
            target: ``gt_boxes`` and, for a pseudo-labelled image, ``gt_scores``.

        Returns:
            labels (A,) in {-1 not sampled, 0, 1}; weights (A,) float32; index (A,) of the best-matching box, 0 without boxes.
        """
        index, labels = self.anchor_matcher(pairwise_iou(target.gt_boxes, anchors))
        seed_sampling(target, ANCHORS)
        labels = self._subsample_labels(labels)
        weights = torch.ones(len(anchors), device=labels.device)
        if is_pseudo(target):
            weights = target.gt_scores[index] if len(target) else weights * self.empty_pseudo_weight
        return labels, weights, index

    def _box_loss(self, anchors: Boxes, deltas: Tensor, labels: Tensor, index: Tensor, boxes: list[Boxes]) -> Tensor:
        """Sum of smooth L1 losses over the positive anchors of n images; 0 without any.

        Args:
            anchors: A anchors of all levels.
            deltas: (n, A, 4) predictions.
            labels: (n, A), 1 where positive.
            index: (n, A), each anchor's best-matching box among its image's.
            boxes: the boxes of each image.
        """
        row, anchor = (labels == 1).nonzero(as_tuple=True)  # the only wait for a GPU, for all images at once
        firsts = accumulate(map(len, boxes[:-1]), initial=0)
        index = torch.stack([own + first for own, first in zip(index, firsts, strict=True)])  # among the boxes of all images
        goals = Boxes.cat(boxes).tensor[index[row, anchor]]
        wanted = self.box2box_transform.get_deltas(anchors.tensor[anchor], goals)
        return F.smooth_l1_loss(deltas[row, anchor].float(), wanted, beta=self.smooth_l1_beta, reduction="sum")
