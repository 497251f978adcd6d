"""Selection of pseudo boxes."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from d2rnet.cxr.detector.pseudo_labels import attach_targets, images_to_train_on, select_pseudo_boxes, teacher_detections


def detections(scores: list[float]) -> Instances:
    count = len(scores)
    found = Instances((64, 80))
    found.pred_boxes = Boxes(torch.arange(4.0 * count).reshape(count, 4))
    found.pred_classes = torch.arange(count)
    found.scores = torch.tensor(scores)
    found.pred_sigmas = torch.full((count, 4), 0.25)
    return found


def at(threshold: float) -> torch.Tensor:
    return torch.full((5,), threshold)


def test_only_scores_above_the_threshold_are_kept() -> None:
    target = select_pseudo_boxes(detections([0.9, 0.75, 0.5]), at(0.75))
    assert target.gt_classes.tolist() == [0]
    assert target.gt_boxes.tensor.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert target.gt_scores.tolist() == [pytest.approx(0.9)]
    assert target.gt_sigmas.tolist() == [[0.25] * 4]
    assert target.image_size == (64, 80)


def test_no_detection_gives_an_empty_pseudo_target() -> None:
    target = select_pseudo_boxes(detections([]), at(0.7))
    assert len(target) == 0
    assert target.has("gt_scores")
    assert target.gt_boxes.tensor.shape == (0, 4)


def test_each_class_has_its_own_threshold() -> None:
    target = select_pseudo_boxes(detections([0.6, 0.6, 0.6]), torch.tensor([0.5, 0.7, 0.59]))
    assert target.gt_classes.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("policy", "share", "kept"),
    [
        ("skip", 1.0, [False, True, False, False]),
        ("reference", 1.0, [True, True, True, True]),
        ("background", 0.5, [True, True, True, False]),
        ("background", 0.49, [True, True, False, False]),
        ("background", 0.0, [False, True, False, False]),
    ],
)
def test_what_becomes_of_images_without_pseudo_boxes(policy: str, share: float, kept: list[bool]) -> None:
    assert images_to_train_on([0, 2, 0, 0], policy, share) == kept


def test_shares_of_a_batch_are_not_lost_to_rounding() -> None:
    assert sum(images_to_train_on([0] * 100, "background", 0.29)) == 29


def test_targets_go_to_their_own_views() -> None:
    views = [{"image_id": "a"}, {"image_id": "b"}]
    targets = [select_pseudo_boxes(detections([0.1]), at(0.7)), select_pseudo_boxes(detections([0.8]), at(0.7))]
    (attached,) = attach_targets(views, targets, [False, True])
    assert (attached["image_id"], len(attached["instances"])) == ("b", 1)
    assert "instances" not in views[1]


def test_detections_come_in_the_order_of_the_views() -> None:
    class Teacher:
        def inference(self, views: list[dict], do_postprocess: bool) -> list[Instances]:
            assert not do_postprocess  # the frame stays that of the weak view
            return [detections([view["score"]]) for view in views]

    found = teacher_detections(Teacher(), [{"score": 0.9}, {"score": 0.1}])  # type: ignore[arg-type]
    assert [image.scores.tolist() for image in found] == [[pytest.approx(0.9)], [pytest.approx(0.1)]]
    assert teacher_detections(Teacher(), []) == []  # type: ignore[arg-type]
