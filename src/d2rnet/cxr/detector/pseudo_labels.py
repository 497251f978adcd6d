"""From the EMA teacher's detections on the weak view to the student's targets on the strong view.

The two views share their geometry, so boxes pass over unchanged. Source: Unbiased Teacher v2, sec. 3.1.
"""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN


@torch.no_grad()
def teacher_detections(teacher: UnbiasedTeacherRCNN, weak_views: Sequence[dict]) -> list[Instances]:
    """Run the EMA teacher (evaluation mode, inference proposal counts) on weak views; boxes in the frame of the views."""
    return teacher.inference(list(weak_views), do_postprocess=False) if weak_views else []


def select_pseudo_boxes(detections: Instances, thresholds: Tensor) -> Instances:
    """Keep detections whose score exceeds the threshold of their class and turn them into a training target.

    Args:
        detections: after non-maximum suppression: ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_sigmas`` (K, 4), in the
            frame of the weak view.
        thresholds: (C,), 0 to 1; a score equal to it is not enough.

    Returns:
        ``gt_boxes``, ``gt_classes``, ``gt_scores``, ``gt_sigmas`` in the same frame; possibly without any box.
    """
    sure = detections.scores > thresholds[detections.pred_classes]
    chosen = detections[sure.nonzero()[:, 0]]  # one wait for a GPU instead of one per field
    target = Instances(detections.image_size)
    target.gt_boxes = Boxes(chosen.pred_boxes.tensor)
    target.gt_classes = chosen.pred_classes
    target.gt_scores = chosen.scores
    target.gt_sigmas = chosen.pred_sigmas
    return target


def images_to_train_on(box_counts: Sequence[int], empty_unlabelled: str, max_empty_share: float) -> list[bool]:
    """Decide which unlabelled images of a batch the student sees.

    Args:
        box_counts: pseudo boxes of each image of the whole batch, of all processes.
        empty_unlabelled: what becomes of an image without pseudo boxes: ``skip`` leaves it out; ``reference`` and
            ``background`` keep it (they differ in the weight of its anchors, a setting of the network).
        max_empty_share: greatest share of the batch that may be kept without a pseudo box, 0 to 1, rounded down; the first
            ones are, which are as random as the batch.

    Returns:
        One decision per image.
    """
    places = 0 if empty_unlabelled == "skip" else int(max_empty_share * len(box_counts) + 1e-9)  # 0.29 * 100 is 28.99...
    kept = []
    for count in box_counts:
        places -= count == 0
        kept.append(count > 0 or places >= 0)
    return kept


def attach_targets(strong_views: Sequence[dict], targets: Sequence[Instances], kept: Sequence[bool]) -> list[dict]:
    """Pair strong views with their pseudo targets.

    Args:
        strong_views: dictionaries with ``image``.
        targets: of :func:`select_pseudo_boxes`, in the same order.
        kept: of :func:`images_to_train_on`, for these views.

    Returns:
        New dictionaries with ``instances``.
    """
    triples = zip(strong_views, targets, kept, strict=True)
    return [{**view, "instances": target} for view, target, keep in triples if keep]
