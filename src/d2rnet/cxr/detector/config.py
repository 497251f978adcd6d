"""Settings of ``config.yaml`` -> detectron2 configuration, and back from a folder of train-detector.

Custom keys live under ``MODEL.D2RNET``. To use the written file in other detectron2 code::

    import d2rnet.detector  # registers the network
    cfg = get_cfg()
    d2rnet.detector.add_d2rnet_config(cfg)
    cfg.merge_from_file("results/cxr/train_detector/config.yaml")
    cfg.MODEL.WEIGHTS = "results/cxr/train_detector/model_final.pth"
    DefaultPredictor(cfg)
"""

from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

from d2rnet.cxr.detector.backbone import pyramid_levels
from d2rnet.cxr.detector.settings import DetectorModelSettings, PredictionSettings, TrainDetectorSettings
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.atomic import write_text
from d2rnet.files.parsing import parse_yaml
from d2rnet.findings.classes import CATEGORY_NAMES

CONFIG_NAME = "config.yaml"
TEACHER_NAME = "model_final.pth"
STUDENT_NAME = "student_final.pth"
BURN_IN_NAME = "burn_in.pth"
RPN_POSITIVE_FRACTION = 0.25  # the authors' configuration; detectron2: 0.5
EMPTY_PSEUDO_WEIGHTS = {"reference": 0.0, "skip": 0.0, "background": 1.0}


def add_d2rnet_config(cfg: CfgNode) -> None:
    """Add this package's keys to a stock detectron2 configuration."""
    cfg.MODEL.D2RNET = CfgNode(
        {
            "CLASS_NAMES": list(CATEGORY_NAMES),
            "BACKBONE_WIDTH": 64,
            "FINEST_LEVEL": 2,
            "FOCAL_GAMMA": 1.5,
            "NLL_WEIGHT": 0.05,
            "LISTEN_MARGIN": 0.1,
            "LISTEN_FLOOR": 0.5,
            "EMPTY_PSEUDO_WEIGHT": 0.0,
        }
    )


def build_cfg(settings: TrainDetectorSettings) -> CfgNode:
    """Make the detectron2 configuration of a detector.

    Args:
        settings: the network, its training, and how boxes are drawn, the EMA teacher's too: these down to the lowest score
            that a pseudo box may have.

    Raises:
        ConfigError: values that are valid one by one but do not fit each other.
    """
    model = settings.model
    training = settings.training
    prediction = settings.prediction
    levels = pyramid_levels(model.finest_level)
    _check(model, levels)
    cfg = get_cfg()
    add_d2rnet_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "UnbiasedTeacherRCNN"
    cfg.MODEL.WEIGHTS = TEACHER_NAME
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = [float(model.pixel_mean)]
    cfg.MODEL.PIXEL_STD = [float(model.pixel_std)]
    cfg.MODEL.BACKBONE.NAME = "build_radiograph_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = model.freeze_at
    cfg.MODEL.RESNETS.DEPTH = model.backbone_depth
    cfg.MODEL.RESNETS.NORM = model.norm
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = model.stride_in_1x1
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = model.backbone_width
    cfg.MODEL.FPN.OUT_CHANNELS = model.fpn_channels
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[float(size)] for size in model.anchor_sizes_px]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[float(ratio) for ratio in model.anchor_ratios]]
    _set_proposals(cfg, model, levels)
    _set_box_head(cfg, model, prediction, levels)
    floor = min(prediction.score_floor, training.pseudo_score_threshold, training.adaptive_threshold_range[0])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(floor)
    own = cfg.MODEL.D2RNET
    own.BACKBONE_WIDTH = model.backbone_width
    own.FINEST_LEVEL = model.finest_level
    own.FOCAL_GAMMA = float(training.focal_gamma)
    own.NLL_WEIGHT = float(training.nll_weight)
    own.LISTEN_MARGIN = float(training.listen_margin)
    own.LISTEN_FLOOR = float(training.listen_floor)
    own.EMPTY_PSEUDO_WEIGHT = EMPTY_PSEUDO_WEIGHTS[training.empty_unlabelled]
    cfg.INPUT.FORMAT = "BGR"
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(model.train_shortest_px)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MAX_SIZE_TRAIN = model.longest_px
    cfg.INPUT.MAX_SIZE_TEST = model.longest_px
    cfg.INPUT.MIN_SIZE_TEST = model.test_shortest_px
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    return cfg


def _set_proposals(cfg: CfgNode, model: DetectorModelSettings, levels: list[str]) -> None:
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "ScoreWeightedRPN"
    cfg.MODEL.RPN.IN_FEATURES = levels
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = model.rpn_pre_nms_train
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = model.rpn_post_nms_train
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = model.rpn_pre_nms_test
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = model.rpn_post_nms_test
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = model.rpn_batch_per_image
    cfg.MODEL.RPN.POSITIVE_FRACTION = RPN_POSITIVE_FRACTION


def _set_box_head(cfg: CfgNode, model: DetectorModelSettings, prediction: PredictionSettings, levels: list[str]) -> None:
    cfg.MODEL.ROI_HEADS.NAME = "UncertaintyROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = levels[:-1]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(CATEGORY_NAMES)
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = model.roi_batch_per_image
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = float(prediction.nms_iou)
    cfg.TEST.DETECTIONS_PER_IMAGE = prediction.max_boxes_per_image
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = model.roi_fc_dim
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    # 2 samples per bin: the adaptive grid (0) is slow on a CPU and takes at most 2 per bin at these sizes.
    cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = model.roi_sampling_ratio
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True


def _check(model: DetectorModelSettings, levels: list[str]) -> None:
    sizes = model.anchor_sizes_px
    low, high = model.train_shortest_px
    if len(sizes) != len(levels):
        raise ConfigError(
            f"cxr.detector.model.anchor_sizes_px: got {len(sizes)} sizes; expected {len(levels)}, one for each of "
            f"{', '.join(levels)} (finest_level {model.finest_level})."
        )
    if low > high:
        raise ConfigError(f"cxr.detector.model.train_shortest_px: got [{low}, {high}]; expected [least, greatest].")
    if model.norm == "GN" and model.backbone_width % 32:
        raise ConfigError("cxr.detector.model.backbone_width: expected a multiple of 32 with norm GN.")


def write_cfg(folder: Path, cfg: CfgNode) -> None:
    """Write ``config.yaml`` into an output folder."""
    write_text(folder / CONFIG_NAME, cfg.dump())


def read_cfg(folder: Path) -> CfgNode:
    """Read the ``config.yaml`` of a train-detector folder.

    Raises:
        CheckpointError: there is none, it is not this package's, or its classes are not ours.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected the folder that 'd2rnet train-detector' wrote.")
    cfg = get_cfg()
    add_d2rnet_config(cfg)
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))  # refuses what would fill the memory
        if not isinstance(content, dict) or "_BASE_" in content:
            raise ValueError("expected keys and values, and no _BASE_, which would fetch another file")
        cfg.merge_from_file(str(path), allow_unsafe=False)  # detectron2's default lets a YAML file run code
        names = list(cfg.MODEL.D2RNET.CLASS_NAMES)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: not a configuration of this detector ({error}).") from error
    if names != list(CATEGORY_NAMES):
        raise CheckpointError(f"{path}: MODEL.D2RNET.CLASS_NAMES differ from this version's 22 classes; train again.")
    return cfg
