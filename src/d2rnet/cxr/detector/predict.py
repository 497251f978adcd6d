"""Boxes on images: the EMA teacher's pseudo boxes of the report source, in shards.

Images are taken in one fixed order, sorted by the size they have inside the network, and in batches of one such size only.
So no image is padded more than it would be alone, and boxes do not depend on what else is in the batch; a shard is a
contiguous run of whole batches, so n shards hold what 1 shard holds. Images of views that get no boxes (--view) are left out
before that, and counted. Coordinates are rounded to 0.01 px and scores to 1e-5,
which hides the last bits in which CPU kernels differ between batch sizes.

Reads: a COCO json and a folder of train-detector. Writes: COCO results as JSON lines, in the frame of the PNG;
run record.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from d2rnet.cxr.boxes.geometry import xyxy_to_xywh
from d2rnet.cxr.boxes.records import Record, load_records, read_image
from d2rnet.cxr.detector.augmentation import resize, resized_hw
from d2rnet.cxr.detector.checkpoint import load_weights
from d2rnet.cxr.detector.config import CONFIG_NAME, TEACHER_NAME, read_cfg
from d2rnet.cxr.detector.dataset_mapper import LOADER_START, as_is
from d2rnet.cxr.detector.engine import AMP_TYPES
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.results import Result, result_lines, write_results
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.cxr.detector.training_images import of_views
from d2rnet.cxr.images.views import other_views
from d2rnet.errors import ConfigError
from d2rnet.runs.device import resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.runs.shards import record_path, remove_record
from d2rnet.training.batches import start_loader_process

log = logging.getLogger(__name__)
PADDING_STRIDE = 32
BOX_DECIMALS = 2
SCORE_DECIMALS = 5


def predict_boxes(
    *,
    unlabelled: Path,
    model: Path,
    shard: int,
    shards: int,
    output: Path,
    device: str,
    settings: PredictionSettings,
    view: Sequence[str] = (),
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Draw boxes on one shard of the images of a COCO file.

    Args:
        unlabelled: COCO json; all of its splits are used.
        model: folder of train-detector.
        shard: which shard, 1 to ``shards``.
        shards: number of shards.
        output: JSON lines to write; ``<output stem>.run.json`` is written beside it.
        device: auto, cpu, cuda or cuda:N.
        settings: ``cxr.detector.prediction``.
        view: views that are looked at, see :func:`d2rnet.cxr.images.views.shows_view`; none for all images.
        runtime: how images are loaded.

    Raises:
        ConfigError: no such shard, or no such device.
        CheckpointError: the folder does not hold a detector of this version.
        DatasetError: bad COCO file or image, or no image shows a wanted view.
    """
    if not 1 <= shard <= shards:
        raise ConfigError(f"predict-boxes: shard {shard} of {shards}: expected 1 to {shards}.")
    network, cfg = load_detector(model, TEACHER_NAME, device, settings)
    records, others = _images_to_look_at(unlabelled, view)
    batches = make_batches(records, cfg, settings.batch_images)
    first, last = (len(batches) * place // shards for place in (shard - 1, shard))
    mine = batches[first:last]
    images = sum(map(len, mine))
    log.info("shard %d of %d: %d of %d images in %d batches", shard, shards, images, len(records), len(mine))
    images_with_boxes = boxes = 0

    def lines() -> Iterator[str]:
        nonlocal images_with_boxes, boxes
        for results in track(
            detect(network, cfg, mine, settings, runtime), total=images, what=f"predict boxes {shard}/{shards}"
        ):
            images_with_boxes += bool(results)
            boxes += len(results)
            yield result_lines(results)

    remove_record(output)
    write_results(output, lines())
    write_run_record(
        record_path(output),
        command="predict-boxes-shard",
        settings=settings,
        inputs={"unlabelled": unlabelled, "weights": model / TEACHER_NAME, "config": model / CONFIG_NAME},
        counts={"images": images, "images_with_boxes": images_with_boxes, "boxes": boxes, "shard": shard, "shards": shards}
        | ({"images_of_other_views": others} if view else {}),
        extra={"views": list(view)},
    )


def _images_to_look_at(unlabelled: Path, views: Sequence[str]) -> tuple[Sequence[Record], dict[str, int]]:
    """Return the images of a COCO file that show one of some views, and how many show another, by view."""
    records = load_records(unlabelled)
    others = other_views([record.view for record in records], views, source=unlabelled, asked_by="--view")
    if others:
        log.info("%d images of other views are not looked at: %s", sum(others.values()), others)
    return of_views(records, views), others


def load_detector(folder: Path, weights_name: str, device: str, settings: PredictionSettings) -> tuple[nn.Module, CfgNode]:
    """Build a trained detector in evaluation mode.

    Args:
        folder: output of train-detector.
        weights_name: ``model_final.pth`` (EMA teacher) or ``student_final.pth``.
        device: auto, cpu, cuda or cuda:N.
        settings: ``cxr.detector.prediction``; they replace those that the detector was trained with.

    Raises:
        CheckpointError: config.yaml or weights are missing or do not fit.
    """
    target = resolve_device(device)
    cfg = read_cfg(folder)
    cfg.MODEL.DEVICE = str(target)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(settings.score_floor)
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = float(settings.nms_iou)
    cfg.TEST.DETECTIONS_PER_IMAGE = settings.max_boxes_per_image
    network = build_network(cfg)
    load_weights(folder / weights_name, network)
    return network.eval(), cfg


def make_batches(records: Sequence[Record], cfg: CfgNode, batch_images: int) -> list[list[Record]]:
    """Group records into batches of one padded size, in one fixed order.

    Args:
        records: images.
        cfg: detectron2 configuration (input sizes).
        batch_images: most images of a batch.
    """

    def padded_hw(record: Record) -> tuple[int, int]:
        height, width = resized_hw(record.image_hw, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        return -(-height // PADDING_STRIDE), -(-width // PADDING_STRIDE)

    batches = []
    ordered = sorted(records, key=lambda record: (padded_hw(record), record.image_id))
    for _, group in groupby(ordered, key=padded_hw):
        same_size = list(group)
        batches += [same_size[start : start + batch_images] for start in range(0, len(same_size), batch_images)]
    return batches


class _InferenceBatches(Dataset):
    """Item i is batch i as the network's input."""

    def __init__(self, batches: Sequence[Sequence[Record]], cfg: CfgNode) -> None:
        self._batches = batches
        self._cfg = cfg

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        if index >= len(self):
            raise IndexError(index)
        return [network_input(read_image(record), record.image_id, self._cfg) for record in self._batches[index]]


def network_input(pixels: NDArray[np.uint8], image_id: int, cfg: CfgNode) -> dict[str, Any]:
    """Turn the pixels of a converted PNG, (H, W) uint8, into an item of the network's input."""
    height, width = pixels.shape
    resized = resize(pixels, resized_hw((height, width), cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST))
    image = torch.from_numpy(resized.copy())[None]  # (1, h, w)
    return {"image": image, "height": height, "width": width, "image_id": image_id}


def detect(
    network: nn.Module,
    cfg: CfgNode,
    batches: Sequence[Sequence[Record]],
    settings: PredictionSettings,
    runtime: LoaderRuntime = LoaderRuntime(),
) -> Iterator[list[Result]]:
    """Run a detector over batches of images.

    Args:
        network: in evaluation mode, on its device.
        cfg: its configuration.
        batches: of :func:`make_batches`.
        settings: ``cxr.detector.prediction``.
        runtime: how images are loaded.

    Yields:
        The COCO results of one image after the other, best score first, in the frame of its PNG.
    """
    loader: Iterable[list[dict[str, Any]]] = DataLoader(
        _InferenceBatches(batches, cfg),
        batch_size=None,
        num_workers=runtime.loader_workers,
        collate_fn=as_is,
        worker_init_fn=start_loader_process,
        multiprocessing_context=LOADER_START if runtime.loader_workers else None,
    )
    for inputs in loader:
        yield from detect_batch(network, cfg, inputs, settings)


@torch.no_grad()
def detect_batch(
    network: nn.Module, cfg: CfgNode, inputs: list[dict[str, Any]], settings: PredictionSettings
) -> list[list[Result]]:
    """Return the COCO results of each item of one batch of :func:`network_input`; the other arguments are detect's."""
    dtype = AMP_TYPES.get(settings.amp)
    with torch.autocast(torch.device(cfg.MODEL.DEVICE).type, dtype, enabled=dtype is not None):
        outputs = network(inputs)
    return [to_results(item["image_id"], result["instances"]) for item, result in zip(inputs, outputs, strict=True)]


@torch.no_grad()
def classify_boxes(
    network: Any, item: dict[str, Any], boxes_xyxy: NDArray[np.float64], settings: PredictionSettings
) -> list[tuple[int, float]]:
    """Say what a detector takes given boxes for.

    Args:
        network: a detector (an nn.Module that has a backbone and roi_heads) in evaluation mode, on its device.
        item: image, of :func:`network_input`.
        boxes_xyxy: (N, 4) in pixels of the PNG.
        settings: ``cxr.detector.prediction``.

    Returns:
        Class id, 1 to 22, the likeliest that is no background, and its probability, of each box.
    """
    images = network.preprocess_image([item])
    height, width = images.image_sizes[0]
    scale = np.array([width / item["width"], height / item["height"]] * 2)
    dtype = AMP_TYPES.get(settings.amp)
    with torch.autocast(images.tensor.device.type, dtype, enabled=dtype is not None):
        boxes = Boxes(torch.as_tensor(boxes_xyxy * scale, dtype=torch.float32, device=images.tensor.device))
        (probabilities,) = network.roi_heads.class_probabilities(network.backbone(images.tensor), [boxes])
    best = probabilities[:, :-1].float().max(dim=1)
    return [(int(category) + 1, round(float(score), SCORE_DECIMALS)) for score, category in zip(*best, strict=True)]


def to_results(image_id: int, instances: Any) -> list[Result]:
    """Turn the detections of one image into COCO results: ``bbox`` x, y, width, height in pixels of the PNG.

    A sliver that rounds to no width or height is left out: build-annotation takes a box without area for a damaged file.
    """
    boxes = xyxy_to_xywh(instances.pred_boxes.tensor.cpu().double().numpy())
    rows = zip(boxes.tolist(), instances.scores.cpu().tolist(), instances.pred_classes.cpu().tolist(), strict=True)
    results = [
        {
            "image_id": image_id,
            "category_id": category + 1,
            "bbox": [round(value, BOX_DECIMALS) for value in box],
            "score": round(score, SCORE_DECIMALS),
        }
        for box, score, category in rows
    ]
    return [result for result in results if min(result["bbox"][2:]) > 0]
