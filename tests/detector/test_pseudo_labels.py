"""Selection of pseudo boxes."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from d2rnet.detector.pseudo_labels import attach_targets, draw_pseudo_labels, select_pseudo_boxes


def detections(scores: list[float]) -> Instances:
    count = len(scores)
    found = Instances((64, 80))
    found.pred_boxes = Boxes(torch.arange(4.0 * count).reshape(count, 4))
    found.pred_classes = torch.arange(count)
    found.scores = torch.tensor(scores)
    found.pred_sigmas = torch.full((count, 4), 0.25)
    return found


def test_only_scores_above_the_threshold_are_kept() -> None:
    target = select_pseudo_boxes(detections([0.9, 0.75, 0.5]), 0.75)
    assert target.gt_classes.tolist() == [0]
    assert target.gt_boxes.tensor.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert target.gt_scores.tolist() == [pytest.approx(0.9)]
    assert target.gt_sigmas.tolist() == [[0.25] * 4]
    assert target.image_size == (64, 80)


def test_no_detection_gives_an_empty_pseudo_target() -> None:
    target = select_pseudo_boxes(detections([]), 0.7)
    assert len(target) == 0
    assert target.has("gt_scores")
    assert target.gt_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize(("policy", "kept"), [("skip", ["b"]), ("reference", ["a", "b"]), ("background", ["a", "b"])])
def test_what_becomes_of_an_image_without_pseudo_boxes(policy: str, kept: list[str]) -> None:
    views = [{"image_id": "a"}, {"image_id": "b"}]
    targets = [select_pseudo_boxes(detections([0.1]), 0.7), select_pseudo_boxes(detections([0.8]), 0.7)]
    attached = attach_targets(views, targets, policy)
    assert [view["image_id"] for view in attached] == kept
    assert len(attached[-1]["instances"]) == 1
    assert "instances" not in views[0]


def test_targets_come_in_the_order_of_the_views() -> None:
    class Teacher:
        def inference(self, views: list[dict], do_postprocess: bool) -> list[Instances]:
            assert not do_postprocess  # the frame stays that of the weak view
            return [detections([view["score"]]) for view in views]

    targets = draw_pseudo_labels(Teacher(), [{"score": 0.9}, {"score": 0.1}, {"score": 0.8}], 0.7)  # type: ignore[arg-type]
    assert [target.gt_scores.tolist() for target in targets] == [[pytest.approx(0.9)], [], [pytest.approx(0.8)]]
