"""Box head with three outputs (class, boundary offsets, boundary uncertainty) and the losses of labelled and pseudo boxes.

A target is pseudo if it carries ``gt_scores``; then it also carries ``gt_sigmas``, the EMA teacher's uncertainty of each
boundary.

Source: Unbiased Teacher v2, sec. 3.3. Shapes: R proposals of a batch, C classes (background is class C).
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from d2rnet.cxr.detector.box_regression import BoundaryOffsetTransform
from d2rnet.cxr.detector.losses import focal_loss, l1_loss, listen2student_l1, listen_mask, uncertainty_nll
from d2rnet.cxr.detector.rpn import PSEUDO_SUFFIX, is_pseudo
from d2rnet.cxr.detector.sampling import PROPOSALS, seed_sampling

Predictions = tuple[Tensor, Tensor, Tensor]
UNCERTAINTY_INIT_STD = 0.0001  # the authors' value


class UncertaintyOutputLayers(FastRCNNOutputLayers):
    """Linear layers for C + 1 class logits, 4 class-agnostic boundary offsets and 4 boundary uncertainty logits."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        focal_gamma: float,
        nll_weight: float,
        listen_margin: float,
        listen_floor: float,
        **options: Any,
    ) -> None:
        """Add the uncertainty layer; it starts at 0, that is at sigma 0.5, so that no boundary is trusted at first."""
        super().__init__(input_shape, **options)
        self.focal_gamma = focal_gamma
        self.nll_weight = nll_weight
        self.listen_margin = listen_margin
        self.listen_floor = listen_floor
        self.uncertainty = nn.Linear(self.bbox_pred.in_features, 4)
        nn.init.normal_(self.uncertainty.weight, std=UNCERTAINTY_INIT_STD)
        nn.init.zeros_(self.uncertainty.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the arguments of the constructor from a configuration."""
        own = cfg.MODEL.D2RNET
        return {
            **super().from_config(cfg, input_shape),
            "box2box_transform": BoundaryOffsetTransform(),
            "focal_gamma": own.FOCAL_GAMMA,
            "nll_weight": own.NLL_WEIGHT,
            "listen_margin": own.LISTEN_MARGIN,
            "listen_floor": own.LISTEN_FLOOR,
        }

    def forward(self, x: Tensor) -> Predictions:
        """Map (R, D) box features to class logits (R, C + 1), deltas (R, 4) and uncertainty logits (R, 4)."""
        logits, deltas = super().forward(x)
        return logits, deltas, self.uncertainty(torch.flatten(x, start_dim=1))

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """Losses of one group of images, all labelled or all pseudo-labelled.

        Args:
            predictions: outputs of :meth:`forward` for the group's R proposals.
            proposals: sampled proposals with ``gt_classes``, and ``gt_boxes`` (``gt_sigmas``) where the image has boxes.

        Returns:
            Labelled: ``loss_cls``, ``loss_box_reg`` (L1), ``loss_box_nll``. Pseudo: ``loss_cls_pseudo``,
            ``loss_box_reg_pseudo``. Sums divided by R.
        """
        logits, deltas, uncertainty = predictions
        classes = torch.cat([proposal.gt_classes for proposal in proposals])
        foreground = (classes < self.num_classes).nonzero()[:, 0]
        count = max(len(classes), 1)
        classification = focal_loss(logits, classes, self.focal_gamma) / count
        deltas = deltas[foreground].float()
        uncertainty = uncertainty[foreground].float()
        sources = torch.cat([proposal.proposal_boxes.tensor for proposal in proposals])[foreground]
        targets = torch.cat([_boxes_of(proposal) for proposal in proposals])[foreground]
        wanted = self.box2box_transform.get_deltas(sources, targets)
        if is_pseudo(proposals[0]):
            teacher_sigma = torch.cat([_sigmas_of(proposal) for proposal in proposals])[foreground]
            mask = listen_mask(teacher_sigma, uncertainty.sigmoid(), self.listen_margin, self.listen_floor)
            return {
                "loss_cls" + PSEUDO_SUFFIX: classification,
                "loss_box_reg" + PSEUDO_SUFFIX: listen2student_l1(deltas, wanted, mask) / count,
            }
        decoded = self.box2box_transform.apply_deltas(deltas.detach(), sources)
        iou = matched_pairwise_iou(Boxes(decoded), Boxes(targets)).nan_to_num(nan=0.0)  # 0 / 0: an area of minus the other
        return {
            "loss_cls": classification,
            "loss_box_reg": l1_loss(deltas, wanted) / count,
            "loss_box_nll": self.nll_weight * uncertainty_nll(deltas, wanted, uncertainty, iou) / count,
        }

    def inference(self, predictions: Predictions, proposals: list[Instances]) -> tuple[list[Instances], list[Tensor]]:
        """Turn predictions into boxes: score floor, non-maximum suppression, best boxes first.

        Returns:
            For each image ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_sigmas`` (K, 4); and the indices of the
            proposals that they come from.
        """
        scores = self.predict_probs(predictions[:2], proposals)
        boxes = self.predict_boxes(predictions[:2], proposals)
        sizes = [proposal.image_size for proposal in proposals]
        usable = [_drop_unusable(*pair) for pair in zip(boxes, scores, sizes, strict=True)]
        results, kept = fast_rcnn_inference(
            [pair[0] for pair in usable],
            [pair[1] for pair in usable],
            sizes,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )
        sigmas = predictions[2].float().sigmoid().split([len(proposal) for proposal in proposals])
        for result, sigma, index in zip(results, sigmas, kept, strict=True):
            result.pred_sigmas = sigma[index]
        return results, kept


def _boxes_of(proposals: Instances) -> Tensor:
    """(R_i, 4) matched boxes of an image's proposals; zeros if it has no boxes: then all proposals are background."""
    boxes = proposals.proposal_boxes.tensor
    return proposals.gt_boxes.tensor if proposals.has("gt_boxes") else torch.zeros_like(boxes)


def _sigmas_of(proposals: Instances) -> Tensor:
    """(R_i, 4) uncertainties of the matched pseudo boxes; zeros if the image has none."""
    boxes = proposals.proposal_boxes.tensor
    return proposals.gt_sigmas if proposals.has("gt_sigmas") else torch.zeros_like(boxes)


def _drop_unusable(boxes_xyxy: Tensor, scores: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Set the scores of boxes without area inside the image, or not finite, to 0, keeping every row's index."""
    height, width = image_hw
    x = boxes_xyxy[:, 0::2].clamp(0, width)
    y = boxes_xyxy[:, 1::2].clamp(0, height)
    usable = (x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0]) & torch.isfinite(scores).all(dim=1)
    return torch.where(usable[:, None], boxes_xyxy, 0.0), torch.where(usable[:, None], scores.float(), 0.0)


@ROI_HEADS_REGISTRY.register()
class UncertaintyROIHeads(StandardROIHeads):
    """detectron2's standard box head with :class:`UncertaintyOutputLayers`; one pass for labelled and pseudo images."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        return {**parts, "box_predictor": UncertaintyOutputLayers(cfg, parts["box_head"].output_shape)}

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """Match and sample each image as detectron2 does, with the image's own seed.

        Proposals of a pseudo-labelled image without boxes are marked as pseudo too.
        """
        sampled = []
        for proposals_of_image, target in zip(proposals, targets, strict=True):
            seed_sampling(target, PROPOSALS)
            with EventStorage():  # detectron2 notes two metrics per call; nothing reads them, and the run's storage keeps 10^6
                (chosen,) = super().label_and_sample_proposals([proposals_of_image], [target])
            if is_pseudo(target) and not is_pseudo(chosen):
                chosen.gt_scores = target.gt_boxes.tensor.new_zeros(len(chosen))
            sampled.append(chosen)
        return sampled

    def class_probabilities(self, features: dict[str, Tensor], boxes: list[Boxes]) -> list[Tensor]:
        """Classify given boxes, which stay as they are.

        Args:
            features: of the backbone.
            boxes: R_i of each image, xyxy in pixels of the network's input.

        Returns:
            (R_i, C + 1) of each image.
        """
        logits, deltas, _ = self._predict(features, boxes)
        return list(self.box_predictor.predict_probs((logits, deltas), boxes))

    def _predict(self, features: dict[str, Tensor], boxes: list[Boxes]) -> Predictions:
        """Run the box head on given boxes.

        ROIAlign takes the boxes in the type of the features: bfloat16 would round them by up to 4 px at 1333 px.
        """
        levels = [features[name].float() for name in self.box_in_features]
        return self.box_predictor(self.box_head(self.box_pooler(levels, boxes)))  # pooled: (R, C, size, size)

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Losses of the sampled proposals in training, detections otherwise."""
        predictions = self._predict(features, [proposal.proposal_boxes for proposal in proposals])
        if not self.training:
            return self.box_predictor.inference(predictions, proposals)[0]
        sizes = [len(proposal) for proposal in proposals]
        by_image = list(zip(*(output.split(sizes) for output in predictions), strict=True))
        losses = {}
        for wants_pseudo in (False, True):
            chosen = [index for index, proposal in enumerate(proposals) if is_pseudo(proposal) == wants_pseudo]
            if chosen:
                logits, deltas, uncertainty = (torch.cat(part) for part in zip(*(by_image[i] for i in chosen), strict=True))
                group = [proposals[index] for index in chosen]
                losses.update(self.box_predictor.losses((logits, deltas, uncertainty), group))
        return losses
