"""From the EMA teacher's detections on the weak view to the student's targets on the strong view.

The two views share their geometry, so boxes pass over unchanged. Source: Unbiased Teacher v2, sec. 3.1.
"""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances

from d2rnet.detector.meta_arch import UnbiasedTeacherRCNN


def select_pseudo_boxes(detections: Instances, score_threshold: float) -> Instances:
    """Keep detections whose score exceeds the threshold and turn them into a training target.

    Args:
        detections: after non-maximum suppression: ``pred_boxes``, ``pred_classes``, ``scores``, ``pred_sigmas`` (K, 4), in the
            frame of the weak view.
        score_threshold: 0 to 1; a score equal to it is not enough.

    Returns:
        ``gt_boxes``, ``gt_classes``, ``gt_scores``, ``gt_sigmas`` in the same frame; possibly without any box.
    """
    chosen = detections[detections.scores > score_threshold]
    target = Instances(detections.image_size)
    target.gt_boxes = Boxes(chosen.pred_boxes.tensor)
    target.gt_classes = chosen.pred_classes
    target.gt_scores = chosen.scores
    target.gt_sigmas = chosen.pred_sigmas
    return target


@torch.no_grad()
def draw_pseudo_labels(teacher: UnbiasedTeacherRCNN, weak_views: Sequence[dict], score_threshold: float) -> list[Instances]:
    """Run the EMA teacher (evaluation mode, inference proposal counts) on weak views and keep its sure boxes.

    Args:
        teacher: the EMA teacher's network.
        weak_views: dictionaries with ``image``.
        score_threshold: see :func:`select_pseudo_boxes`.
    """
    detections = teacher.inference(list(weak_views), do_postprocess=False)
    return [select_pseudo_boxes(image, score_threshold) for image in detections]


def attach_targets(strong_views: Sequence[dict], targets: Sequence[Instances], empty_unlabelled: str) -> list[dict]:
    """Pair strong views with their pseudo targets.

    Args:
        strong_views: dictionaries with ``image``.
        targets: of :func:`draw_pseudo_labels`, in the same order.
        empty_unlabelled: what becomes of an image without pseudo boxes: ``skip`` leaves it out; ``reference`` and
            ``background`` keep it (they differ in the weight of its anchors, a setting of the network).

    Returns:
        New dictionaries with ``instances``.
    """
    pairs = zip(strong_views, targets, strict=True)
    return [{**view, "instances": target} for view, target in pairs if len(target) or empty_unlabelled != "skip"]
