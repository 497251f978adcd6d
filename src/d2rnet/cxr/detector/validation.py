"""Scores on the validation split amid a training: drawn by all processes together, with the settings of prediction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode

from d2rnet.cxr.boxes.coco_scores import coco_scores
from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.predict import detect, make_batches
from d2rnet.cxr.detector.settings import PredictionSettings
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.training.collectives import gather_objects, num_processes, process_rank


def score_on(
    records: Sequence[Record],
    cfg: CfgNode,
    prediction: PredictionSettings,
    runtime: LoaderRuntime,
    network: UnbiasedTeacherRCNN,
) -> dict[str, Any]:
    """Score a network as evaluate-detector would; each process draws the boxes of its share of the images.

    Args:
        records: images with boxes.
        cfg: the network's configuration; says on which device it is.
        prediction: ``cxr.detector.prediction``.
        runtime: how images are loaded.
        network: left in evaluation mode.

    Returns:
        Scores of :func:`d2rnet.cxr.boxes.coco_scores.coco_scores`, the same on every process.
    """
    network.eval()
    mine = make_batches(records, cfg, prediction.batch_images)[process_rank() :: num_processes()]
    with _score_floor(network, prediction.score_floor):
        results = [result for image in detect(network, cfg, mine, prediction, runtime) for result in image]
    return coco_scores(records, [result for part in gather_objects(results) for result in part])


@contextmanager
def _score_floor(network: UnbiasedTeacherRCNN, floor: float) -> Iterator[None]:
    """Draw no box of a lower score meanwhile; in training the floor is that of pseudo boxes if that is lower."""
    head = network.roi_heads.box_predictor
    before = head.test_score_thresh
    head.test_score_thresh = floor
    try:
        yield
    finally:
        head.test_score_thresh = before
