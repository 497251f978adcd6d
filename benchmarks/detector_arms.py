"""The two training loops that detector_step.py compares, on the same drawn images.

Ours: ``UnbiasedTeacherTrainer``. Stock: detectron2's ``SimpleTrainer`` (``AMPTrainer``) on ``GeneralizedRCNN``, ``RPN`` and
``StandardROIHeads`` with the same backbone, proposal counts, optimiser and clipping, fed by the same loader; after burn-in it
also runs inference on the weak views and trains on the strong ones, with its surest detections as boxes.

Weights are random and stay so, because learning rate and EMA step are next to nothing: every repetition does the same work. A
random network is sure of nothing, so score floor and pseudo-label threshold are set to let through as many boxes as a trained
one would (:func:`set_thresholds`).
"""

import copy
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import nn

from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset, View, batch_loader
from d2rnet.cxr.detector.engine import AMP_TYPES, UnbiasedTeacherTrainer, build_optimizer
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import DetectorSettings, DetectorTrainingSettings
from d2rnet.cxr.detector.streams import ImageStore

REPOSITORY = Path(__file__).resolve().parents[1]
OVERLAYS = {"demo": None, "paper": "workflow/presets/cxr/d2rnet.yaml", "tiny": "workflow/presets/cxr/tiny.yaml"}
STAGES = {"burn-in": 10**9, "mutual learning": 0}  # iteration at which burn-in ends
OURS, STOCK, STOCK_CHANNELS_LAST = "ours", "detectron2", "detectron2, channels-last"
BOXES_PER_IMAGE = 3  # VinDr-CXR has 3.4 on images with boxes
CANDIDATES_PER_IMAGE = 100  # (proposal, class) pairs above the score floor
SMALLEST_STEP = 1e-9
IMAGES = 24
CACHE_MB = 1024


def detector_settings(name: str, amp: str) -> DetectorSettings:
    """Settings of the demo, of D2R-Net's publication or of the tiny run, without weights to load and without learning.

    Args:
        name: demo, paper or tiny.
        amp: off, bf16 or fp16, in training and prediction.
    """
    overlay = OVERLAYS[name]
    preset = yaml.safe_load((REPOSITORY / overlay).read_text(encoding="utf-8"))["cxr"]["detector"] if overlay else {}
    still = {"base_lr": SMALLEST_STEP, "ema_keep_rate": 1.0 - SMALLEST_STEP}
    return DetectorSettings.read(preset).replaced(
        model={"weights": None, "pixel_mean": 127.5, "pixel_std": 64.0},
        # "reference" trains on every unlabelled image, as the stock loop does.
        training={**still, "empty_unlabelled": "reference", "amp": amp, "accumulation_steps": 1},
        prediction={"amp": amp},
    )


def draw_images(folder: Path, longest_px: int) -> Path:
    """Write a COCO file of smooth, noisy grey images with ``BOXES_PER_IMAGE`` boxes each.

    Args:
        folder: empty folder.
        longest_px: longer side; the shorter one is 0.8 to 1 of it.
    """
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, IMAGES + 1):
        height, width = longest_px, round(longest_px * rng.uniform(0.8, 1.0))
        smooth = cv2.resize(rng.random((12, 10), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        pixels = (40 + 180 * smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        name = f"{image_id}.png"
        cv2.imwrite(str(folder / name), pixels)
        own = {"id": image_id, "file_name": name, "height": height, "width": width}
        images.append({**own, "source_id": f"image-{image_id}", "split": "train"})
        for _ in range(BOXES_PER_IMAGE):
            w, h = (round(float(rng.uniform(0.08, 0.4)) * longest_px) for _ in range(2))
            box = [int(rng.integers(width - w)), int(rng.integers(height - h)), w, h]
            own = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.integers(1, 23))}
            annotations.append({**own, "bbox": box, "area": w * h, "iscrowd": 0})
    path = folder / "images.json"
    write_coco(path, images, annotations)
    return path


class Arm:
    """One training loop; :meth:`step` does one iteration."""

    def __init__(
        self, name: str, stage: str, settings: DetectorSettings, coco: Path, device: torch.device, steps: int, workers: int = 0
    ) -> None:
        """Build the network and the loader of ``steps`` iterations.

        Args:
            name: ``OURS``, ``STOCK`` or ``STOCK_CHANNELS_LAST``.
            stage: one of ``STAGES``.
            settings: of :func:`detector_settings`.
            coco: of :func:`draw_images`; both streams show these images.
            device: where to compute.
            steps: most iterations that :meth:`step` will be asked for.
            workers: processes that prepare batches.
        """
        settings = burned_in_after(settings, STAGES[stage])
        self.device = device
        training = settings.training
        dataset = two_streams(settings, coco)
        weak = dataset[0].unlabelled_weak
        batches: Iterator[Batch] = iter(batch_loader(dataset, 0, steps, workers))
        cfg = build_cfg(settings)
        cfg.MODEL.DEVICE = str(device)
        torch.manual_seed(0)
        if name == OURS:
            student = build_network(cfg)
            if weak:
                threshold = set_thresholds(student.eval(), weak)
                training = training.model_copy(update={"pseudo_score_threshold": threshold})
            self.trainer = UnbiasedTeacherTrainer(student, training, batches, device)
        else:
            model = build_network(stock_cfg(cfg))
            if name == STOCK_CHANNELS_LAST:
                model.to(memory_format=torch.channels_last)
            self.trainer = stock_trainer(model, training, batches, weak)
        self.trainer.iter = 0
        self.storage = EventStorage()

    def step(self) -> tuple[float, float]:
        """Do one iteration; return wall-clock and processor seconds (of this process, all threads)."""
        self.synchronise()
        wall, processor = time.perf_counter(), time.process_time()
        with self.storage:
            self.trainer.run_step()
        self.trainer.iter += 1
        self.synchronise()
        return time.perf_counter() - wall, time.process_time() - processor

    def synchronise(self) -> None:
        """Wait until a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def burned_in_after(settings: DetectorSettings, iterations: int) -> DetectorSettings:
    """Let burn-in end after so many iterations; 0, which no run may have, starts with mutual learning."""
    return settings.model_copy(update={"training": settings.training.model_copy(update={"burn_in_iters": iterations})})


def two_streams(settings: DetectorSettings, coco: Path) -> IterationDataset:
    """The package's own data set, with the same images in the labelled and the unlabelled stream."""
    records = load_records(coco)
    return IterationDataset(records, records, ImageStore([records], CACHE_MB), settings.model, settings.training)


def stock_cfg(cfg: CfgNode) -> CfgNode:
    """Replace this package's parts by detectron2's; the backbone, which detectron2 cannot build at half width, stays."""
    stock = cfg.clone()
    stock.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    stock.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    stock.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    return stock


def stock_trainer(
    model: nn.Module, training: DetectorTrainingSettings, batches: Iterator[Batch], weak: list[View]
) -> SimpleTrainer:
    """detectron2's training loop, with our optimiser and clipping.

    Args:
        model: student; a copy of it runs inference.
        training: ``cxr.detector.training`` settings.
        batches: of the package's loader.
        weak: views to set the thresholds with; empty before burn-in.
    """
    teacher = copy.deepcopy(model).eval()
    if weak:
        set_thresholds(teacher, weak)
    optimizer = build_optimizer(model, training)
    dtype = AMP_TYPES.get(training.amp)
    data = stock_batches(batches, teacher, dtype)
    if dtype is None:
        trainer = SimpleTrainer(model, data, optimizer)
    else:
        scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
        trainer = AMPTrainer(model, data, optimizer, grad_scaler=scaler, precision=dtype)

    def clip() -> None:
        if dtype is not None:
            trainer.grad_scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), training.clip_gradient_norm, foreach=True)

    if training.clip_gradient_norm > 0:
        trainer.after_backward = clip  # detectron2's place for what comes between backward pass and optimiser step
    return trainer


def stock_batches(batches: Iterator[Batch], teacher: nn.Module, dtype: torch.dtype | None) -> Iterator[list[View]]:
    """Turn batches into views with boxes: labelled ones, and strong views with the surest detections on the weak ones."""
    for batch in batches:
        views = list(batch.labelled)
        if batch.unlabelled_weak:
            with torch.no_grad(), torch.autocast(teacher.device.type, dtype, enabled=dtype is not None):
                found = teacher.inference(batch.unlabelled_weak, do_postprocess=False)
            strong = zip(batch.unlabelled_strong, found, strict=True)
            views += [{**view, "instances": _as_target(instances[:BOXES_PER_IMAGE])} for view, instances in strong]
        yield views


def _as_target(detections: Instances) -> Instances:
    boxes, classes = detections.pred_boxes, detections.pred_classes
    return Instances(detections.image_size, gt_boxes=boxes, gt_classes=classes)


@torch.no_grad()
def set_thresholds(network: nn.Module, views: list[View]) -> float:
    """Set the score floor so that ``CANDIDATES_PER_IMAGE`` pairs of proposal and class pass it.

    Args:
        network: in evaluation mode, ours or detectron2's.
        views: images to set it on.

    Returns:
        The score that ``BOXES_PER_IMAGE`` detections an image exceed, to be the pseudo-label threshold.
    """
    predictor = network.roi_heads.box_predictor
    kept = []
    handle = predictor.register_forward_hook(lambda _module, _inputs, outputs: kept.append(outputs[0].float().softmax(dim=1)))
    predictor.test_score_thresh = 1.0
    network.inference(views, do_postprocess=False)
    handle.remove()
    scores = torch.cat(kept)[:, :-1].flatten()
    predictor.test_score_thresh = float(scores.sort(descending=True).values[CANDIDATES_PER_IMAGE * len(views)])
    found = torch.cat([image.scores for image in network.inference(views, do_postprocess=False)])
    return float(found.sort(descending=True).values[min(BOXES_PER_IMAGE * len(views), len(found) - 1)])
