"""Settings of the detector, Unbiased Teacher v2."""

from typing import Annotated, Literal

from pydantic import Field

from d2rnet.runs.settings import LoaderRuntime
from d2rnet.settings import Section, setting


class DetectorModelSettings(Section):
    """The network."""

    place = "cxr.detector.model"

    backbone_depth: Literal[18, 34, 50, 101] = setting(18)
    """Layers of the ResNet (UTv2: 50; D2R-Net: 101)."""
    backbone_width: int = setting(32, ge=16, le=256)
    """Channels of the stem and, without bottlenecks, of res2 (ResNet: 64; 32 is our choice for two CPU cores)."""
    norm: Literal["BN", "GN", "FrozenBN", "SyncBN"] = setting("BN")
    """Normalisation of the backbone. FrozenBN needs pretrained weights; GN for small batches (width a multiple of 32)."""
    freeze_at: int = setting(0, ge=0, le=5)
    """Backbone stages that are not trained, from the stem on (detectron2: 2 with pretrained weights; 0 from scratch)."""
    stride_in_1x1: bool = setting(False)
    """Where a bottleneck strides: true for Caffe2/MSRA weights, false for torchvision's."""
    weights: str | None = setting(None)
    """Pretrained weights: path of a detectron2 .pth/.pkl, Caffe2 .pkl or torchvision .pth; null trains from scratch."""
    pixel_mean: float = setting(127.5, ge=0, le=255)
    """Mean grey level taken from the image, in [0, 255]."""
    pixel_std: float = setting(64.0, le=255, gt=0)
    """Grey levels that become 1 in the network's input (57-64 with torchvision weights, 1 with Caffe2's)."""
    finest_level: Literal[2, 3] = setting(3)
    """Finest pyramid level, stride 2 ** level px (FPN: 2; 3 is our choice for two CPU cores)."""
    fpn_channels: int = setting(64, ge=16, multiple_of=8)
    """Channels of the feature pyramid (FPN: 256)."""
    roi_fc_dim: int = setting(256, ge=16)
    """Width of the two fully connected layers of the box head (FPN: 1024)."""
    roi_sampling_ratio: int = setting(1, ge=0)
    """Samples per ROIAlign bin and direction; 0 adapts to the box (detectron2: 0)."""
    anchor_sizes_px: tuple[Annotated[float, Field(gt=0)], ...] = setting((24, 48, 96, 192), min_length=4, max_length=5)
    """Anchor side of each pyramid level, finest first, pixels of the network's input (FPN: 32, 64, 128, 256, 512)."""
    anchor_ratios: tuple[Annotated[float, Field(gt=0)], ...] = setting((0.5, 1.0, 2.0), min_length=1)
    """Height / width of anchors."""
    train_shortest_px: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = setting((256, 256))
    """Shorter side of a training image, pixels, drawn from [least, greatest] (UTv2: 400-1200; D2R-Net: 400-800)."""
    test_shortest_px: int = setting(256, ge=32)
    """Shorter side of an image in prediction, pixels (detectron2: 800)."""
    longest_px: int = setting(256, ge=32)
    """Limit of the longer side, pixels, over the shorter side's (detectron2: 1333)."""
    rpn_pre_nms_train: int = setting(100, ge=1)
    """Proposals per level before non-maximum suppression in training (FPN: 2000)."""
    rpn_post_nms_train: int = setting(100, ge=1)
    """Proposals per image after it in training (FPN: 1000)."""
    rpn_pre_nms_test: int = setting(100, ge=1)
    """Proposals per level before it in prediction and in drawing pseudo boxes (FPN: 1000)."""
    rpn_post_nms_test: int = setting(100, ge=1)
    """Proposals per image after it in prediction and in drawing pseudo boxes (FPN: 1000)."""
    rpn_batch_per_image: int = setting(128, ge=2)
    """Anchors per image in the objectness loss (FPN: 256)."""
    roi_batch_per_image: int = setting(32, ge=2)
    """Proposals per image in the box head's losses (FPN: 512)."""


class StrongViewSettings(Section):
    """The strong view, on top of the weak one."""

    place = "cxr.detector.training.strong"

    jitter_probability: float = setting(0.8, ge=0, le=1)
    """Share of strong views with changed brightness and contrast (UTv2)."""
    brightness: float = setting(0.4, ge=0, le=1)
    """Greatest relative change of brightness (UTv2)."""
    contrast: float = setting(0.4, ge=0, le=1)
    """Greatest relative change of contrast (UTv2)."""
    blur_probability: float = setting(0.5, ge=0, le=1)
    """Share of strong views that are blurred (UTv2)."""
    blur_sigma_px: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = setting((0.1, 2.0))
    """Least and greatest sigma of the Gaussian blur, pixels of the network's input (UTv2)."""
    erasing: bool = setting(True)
    """Whether rectangles of 2 to 20 % of the image are filled with noise (UTv2: three tries with probabilities 0.7, 0.5,
    0.3)."""


class DetectorTrainingSettings(Section):
    """Training; UTv2: Unbiased Teacher v2, D2R-Net: its released detector configuration."""

    place = "cxr.detector.training"

    seed: int = setting(1, ge=0)
    """Seed of weights, order, augmentation and sampling."""
    total_iters: int = setting(370, ge=2)
    """Iterations in all (UTv2: 180000; D2R-Net: 320000)."""
    burn_in_iters: int = setting(335, ge=1)
    """Supervised iterations before the EMA teacher starts (UTv2: 2000; D2R-Net: 8000)."""
    unlabelled_views: tuple[str, ...] = setting(())
    """Views of the unlabelled images that are trained on, such as PA and AP; unknown: images whose source names none; empty:
    all (D2R-Net). The labelled sources are frontal. Which images get boxes is for cxr.annotation.box_views to say."""
    supervised_only: bool = setting(False)
    """Leave the unlabelled images out, everything else as it is: the honest comparison."""
    labelled_percent: float = setting(100, le=100, gt=0)
    """Share of the labelled training images whose boxes are used; the others join the unlabelled ones."""
    labelled_split_seed: int = setting(1, ge=0)
    """Seed of the choice of labelled_percent."""
    labelled_batch: int = setting(8, ge=1)
    """Labelled images per iteration (UTv2: 32; D2R-Net: 4)."""
    unlabelled_batch: int = setting(8, ge=1)
    """Unlabelled images per iteration (UTv2: 32; D2R-Net: 4)."""
    accumulation_steps: int = setting(1, ge=1)
    """Micro-batches that a batch is cut into, one after the other, to save memory; the losses are the same (UTv2: 1)."""
    padding: Literal["pass", "iteration"] = setting("pass")
    """Size that images are padded to: the largest that goes through the network with them (detectron2), or the largest of the
    iteration: dearer, but the same, but for rounding, on any number of processes and micro-batches."""
    labelled_views: Literal["weak_and_strong", "strong"] = setting("strong")
    """Views of a labelled image that the student sees per iteration (UTv2: weak_and_strong; strong alone costs half, our
    choice for the demo)."""
    max_negative_share: float = setting(0.3, ge=0, le=1)
    """Greatest share of images without boxes among labelled ones drawn; 0 drops them (D2R-Net), 1 keeps all."""
    repeat_factor_threshold: float = setting(0.0, ge=0, le=1)
    """Images of classes in fewer than this share of the images with boxes are drawn more often (LVIS, arXiv 1908.03195); 0 is
    off."""
    optimizer: Literal["sgd", "adamw"] = setting("adamw")
    """Optimiser (UTv2: sgd; adamw learns from scratch in fewer iterations)."""
    base_lr: float = setting(0.0012, gt=0)
    """Learning rate after warm-up (UTv2: 0.01 with sgd)."""
    momentum: float = setting(0.9, ge=0, lt=1)
    """Momentum of sgd."""
    weight_decay: float = setting(0.01, ge=0)
    """Weight decay, none on normalisation layers (UTv2: 0.0001 with sgd)."""
    warm_up_iters: int = setting(50, ge=0)
    """Iterations of linear warm-up (UTv2: 1000)."""
    lr_schedule: Literal["steps", "cosine"] = setting("cosine")
    """How the learning rate falls (UTv2: steps)."""
    lr_step_iters: tuple[Annotated[int, Field(ge=1)], ...] = setting(())
    """steps: iterations at which it is multiplied by lr_step_factor (UTv2: never, v1: 179990, 179995; D2R-Net: 8000)."""
    lr_step_factor: float = setting(0.1, gt=0, lt=1)
    """steps: the factor."""
    final_lr_factor: float = setting(0.02, ge=0, le=1)
    """cosine: last learning rate over base_lr."""
    clip_gradient_norm: float = setting(5.0, ge=0)
    """Gradients are scaled down to this norm; 0 is off (UTv2: 0)."""
    amp: Literal["off", "bf16", "fp16"] = setting("off")
    """Mixed precision: fp16 for GPUs before Ampere, bf16 from Ampere on or on CPUs with AVX512-BF16."""
    ema_keep_rate: float = setting(0.98, gt=0, lt=1)
    """Share of the EMA teacher kept per iteration; it remembers about 1 / (1 - rate) iterations (UTv2: 0.9996)."""
    pseudo_score_threshold: float = setting(0.7, gt=0, lt=1)
    """Teacher's boxes with a higher score become pseudo boxes (UTv2: 0.7; D2R-Net: 0.89); adaptive thresholds start here."""
    pseudo_threshold: Literal["fixed", "adaptive"] = setting("fixed")
    """fixed: pseudo_score_threshold for all (UTv2); adaptive: one per class, such that unlabelled images get
    adaptive_box_share of the class's boxes per labelled image (after LabelMatch, reconstructed)."""
    adaptive_box_share: float = setting(0.5, le=2, gt=0)
    """adaptive: wanted pseudo boxes per image over boxes per labelled image, by class (LabelMatch calls the best 0.2 reliable;
    0.5 is our choice)."""
    adaptive_threshold_range: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = setting(
        (0.3, 0.95)
    )
    """adaptive: least and greatest threshold, scores (our choice)."""
    adaptive_keep_rate: float = setting(0.95, gt=0, lt=1)
    """adaptive: share of the teacher's score histograms kept per iteration; they remember about 1 / (1 - rate) iterations (our
    choice)."""
    unsupervised_weight: float = setting(1.0, ge=0)
    """Weight lambda_u of objectness and class losses on pseudo boxes (UTv2: 4 at 1 % labels, 2 at 5 %; D2R-Net: 1). 0 is a
    control: the unlabelled images go through the network as ever, but no loss on them counts, that of boxes neither."""
    unsupervised_ramp_iters: int = setting(0, ge=0)
    """Iterations after burn-in over which lambda_u rises to its value (UTv2: 0)."""
    empty_unlabelled: Literal["reference", "skip", "background"] = setting("skip")
    """Unlabelled image without any pseudo box: reference (objectness weight 0, box head learns background), skip, or
    background in both."""
    max_empty_unlabelled_share: float = setting(1.0, ge=0, le=1)
    """Greatest share of a batch's unlabelled images that train without any pseudo box, if empty_unlabelled lets them; the rest
    is left out (UTv2: 1)."""
    focal_gamma: float = setting(1.5, ge=0)
    """Exponent of the focal class loss (UTv2)."""
    nll_weight: float = setting(0.05, ge=0)
    """Weight of the uncertainty loss beside L1 (UTv2)."""
    listen_margin: float = setting(0.1, ge=0, le=1)
    """A boundary is learned from the teacher if it is more confident than the student by this (UTv2)."""
    listen_floor: float = setting(0.5, ge=0, le=1)
    """and more confident than this; confidence is 1 - sigma (UTv2)."""
    horizontal_flip: bool = setting(False)
    """Mirror half of the images (UTv2: true; it puts the heart on the right, so off here)."""
    strong: StrongViewSettings = StrongViewSettings()


class PredictionSettings(Section):
    """How boxes are drawn: in prediction and scoring, on the validation split during training, and, as to nms_iou and
    max_boxes_per_image, by the EMA teacher on unlabelled images."""

    place = "cxr.detector.prediction"

    batch_images: int = setting(8, ge=1)
    """Images of a batch."""
    score_floor: float = setting(0.05, ge=0, le=1)
    """Boxes with a lower score are not written (detectron2)."""
    nms_iou: float = setting(0.5, le=1, gt=0)
    """Of two boxes of one class that overlap by more than this IoU the weaker one is dropped (detectron2)."""
    max_boxes_per_image: int = setting(100, ge=1)
    """Most boxes per image (COCO)."""
    amp: Literal["off", "bf16", "fp16"] = setting("off")
    """Mixed precision in prediction."""


class DetectorEvaluationSettings(Section):
    """Scoring."""

    place = "cxr.detector.evaluation"

    bootstrap_samples: int = setting(1000, ge=1)
    """Resamples of the test images that the 95 % intervals rest on. Own choice 1000: the ends of an interval then move by
    about a hundredth of its width from seed to seed."""
    bootstrap_seed: int = setting(0, ge=0)
    """Seed of the resamples."""


class CalibrationSettings(Section):
    """Choice of thresholds."""

    place = "cxr.detector.calibration"

    wanted_precision: float = setting(0.7, le=1, gt=0)
    """Share of right boxes (IoU 0.5) among those at or above a threshold; the lowest such score is chosen. None is published.
    Own choice 0.7: a little above what the fixed threshold of 0.5 gives on the demo cohort."""
    min_boxes: int = setting(20, ge=1)
    """Classes with fewer validation boxes take the threshold of all classes together. Own choice 20: with fewer, a precision
    is uncertain by 0.2 and more."""


class TrainDetectorSettings(Section):
    """What train-detector reads."""

    place = "cxr.detector"

    model: DetectorModelSettings = DetectorModelSettings()
    training: DetectorTrainingSettings = DetectorTrainingSettings()
    prediction: PredictionSettings = PredictionSettings()


class EvaluateDetectorSettings(Section):
    """What evaluate-detector reads."""

    place = "cxr.detector"

    prediction: PredictionSettings = PredictionSettings()
    evaluation: DetectorEvaluationSettings = DetectorEvaluationSettings()


class CalibrateThresholdsSettings(Section):
    """What calibrate-thresholds reads."""

    place = "cxr.detector"

    prediction: PredictionSettings = PredictionSettings()
    calibration: CalibrationSettings = CalibrationSettings()


class DetectorSettings(TrainDetectorSettings, EvaluateDetectorSettings, CalibrateThresholdsSettings):
    """Unbiased Teacher v2."""

    place = "cxr.detector"


class DetectorRuntime(LoaderRuntime):
    """How a detector training runs on this machine; changes no result."""

    place = "runtime"

    cache_images_mb: int = setting(1024, ge=0)
    """Decoded images stay in memory if all of them need at most this, MiB of each training process."""
    log_every_iters: int = setting(50, ge=1)
    """Iterations that a line of metrics.jsonl averages."""
    checkpoint_every_iters: int = setting(100, ge=1)
    """Iterations between checkpoints."""
    validate_every_iters: int = setting(0, ge=0)
    """Iterations between scorings of the validation split; 0 is off."""
