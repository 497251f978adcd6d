"""The network that student and EMA teacher share: detectron2's two-stage detector for one-channel radiographs.

Accepts one-channel images, or three equal channels as a stock ``DefaultPredictor`` passes them, and keeps its weights in
channels-last order, which made iterations on one AVX-512 core 12-16 % cheaper.
"""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from detectron2.structures import ImageList
from torch import Tensor, nn

from d2rnet.cxr.detector.rpn import is_pseudo
from d2rnet.cxr.detector.sampling import seeded


@META_ARCH_REGISTRY.register()
class UnbiasedTeacherRCNN(GeneralizedRCNN):
    """Faster R-CNN whose losses tell labelled from pseudo-labelled images (targets with ``gt_scores``).

    Attributes:
        sampled_share: of the proposals that the labelled (False) and the pseudo-labelled images (True) of the last training
            pass may give, ``roi_batch_per_image`` each, those that they gave. Times it, a box loss is divided by a number that
            is known before any image is looked at, so that a batch may be cut into parts.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        """See detectron2's ``GeneralizedRCNN``."""
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.sampled_share = {False: 0.0, True: 0.0}
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read the arguments of the constructor from a configuration."""
        return super().from_config(cfg)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, detections otherwise.

        Args:
            batched_inputs: dictionaries with ``image`` (1 or 3, H, W) in [0, 255]; in training also ``instances`` with
                ``gt_boxes``, ``gt_classes`` and, on pseudo-labelled images, ``gt_scores`` and ``gt_sigmas``, and optionally
                ``sampling_seed``, which decides the sampling of the image's anchors and proposals, and ``batch_hw``.

        Returns:
            Training: losses, each named ``loss_...``; those of pseudo-labelled images end in ``_pseudo`` and are not yet
            weighted. Otherwise one ``{"instances": Instances}`` an image, in the frame of its ``height`` and ``width``.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        # Only now: copying to a GPU waits for what it is doing, and it should be busy with the backbone by then.
        targets = [seeded(item["instances"].to(self.device), item.get("sampling_seed")) for item in batched_inputs]
        proposals, losses = self.proposal_generator(images, features, targets)
        sampled, box_losses = self.roi_heads(images, features, proposals, targets)
        for kind in (False, True):
            counts = [len(chosen) for target, chosen in zip(targets, sampled, strict=True) if is_pseudo(target) == kind]
            self.sampled_share[kind] = sum(counts) / max(1, len(counts) * self.roi_heads.batch_size_per_image)
        return {**losses, **box_losses}

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad and batch; (N, 1, H, W), padding is the mean grey.

        Padded to the largest image, and to the largest ``batch_hw`` if given, rounded up to the coarsest stride.
        """
        images = [item["image"].to(self.device, non_blocking=True)[: len(self.pixel_mean)] for item in batched_inputs]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        batch = ImageList.from_tensors(normalised, self.backbone.size_divisibility)
        stride = max(self.backbone.size_divisibility, 1)
        height, width = (max(item.get("batch_hw", (0, 0))[side] for item in batched_inputs) for side in (0, 1))
        rows = -(-height // stride) * stride
        columns = -(-width // stride) * stride
        missing = (max(0, columns - batch.tensor.shape[3]), max(0, rows - batch.tensor.shape[2]))
        if any(missing):
            batch.tensor = F.pad(batch.tensor, (0, missing[0], 0, missing[1]))
        batch.tensor = batch.tensor.contiguous(memory_format=torch.channels_last)
        return batch
