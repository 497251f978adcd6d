"""Makes the network known to detectron2 (backbone builder, meta-architecture, proposal generator and ROI heads) and builds it.

After ``import d2rnet.detector``, another name of this module, a stock ``DefaultPredictor`` can build a detector from the
``config.yaml`` that ``train-detector`` writes.
"""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from d2rnet.cxr.detector.backbone import build_radiograph_resnet_fpn_backbone
from d2rnet.cxr.detector.config import add_d2rnet_config
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.roi_heads import UncertaintyROIHeads
from d2rnet.cxr.detector.rpn import ScoreWeightedRPN

# detectron2 asks torch whether it is being traced, which newer torch answers with a line on the terminal.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

__all__ = [
    "ScoreWeightedRPN",
    "UnbiasedTeacherRCNN",
    "UncertaintyROIHeads",
    "add_d2rnet_config",
    "build_network",
    "build_radiograph_resnet_fpn_backbone",
]


def build_network(cfg: CfgNode) -> UnbiasedTeacherRCNN:
    """Build the network of a configuration on its device, with random weights."""
    return build_model(cfg)
