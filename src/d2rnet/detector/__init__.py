"""Unbiased Teacher v2 as a detectron2 extension.

Importing this package registers the backbone builder, meta-architecture, proposal generator and ROI heads with detectron2, so
that a stock ``DefaultPredictor`` can build a detector from the ``config.yaml`` that ``train-detector`` writes.

Order of reading, after the paper: ``dataset_mapper`` and ``augmentation`` (views), ``backbone``, ``box_regression``, ``rpn``,
``roi_heads``, ``losses`` (network), ``pseudo_labels`` and ``ema`` (teacher), ``engine`` (one iteration), ``trainer`` (a run),
``predict``.

Source: Liu, Ma and Kira, Unbiased Teacher v2, CVPR 2022, arXiv 2206.09500.
"""

import logging

from d2rnet.detector.backbone import build_radiograph_resnet_fpn_backbone
from d2rnet.detector.config import add_d2rnet_config
from d2rnet.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.detector.roi_heads import UncertaintyROIHeads
from d2rnet.detector.rpn import ScoreWeightedRPN

# detectron2 asks torch whether it is being traced, which newer torch answers with a line on the terminal.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

__all__ = [
    "ScoreWeightedRPN",
    "UnbiasedTeacherRCNN",
    "UncertaintyROIHeads",
    "add_d2rnet_config",
    "build_radiograph_resnet_fpn_backbone",
]
