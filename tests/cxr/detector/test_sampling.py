"""Losses of an image are the same whichever images go through the network with it."""

from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.sampling import ANCHORS, PROPOSALS, seed_sampling, seeded
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore


@pytest.fixture
def settings(settings: TrainDetectorSettings) -> TrainDetectorSettings:
    return settings.replaced(
        model={"norm": "GN", "backbone_width": 32, "train_shortest_px": [40, 140], "longest_px": 160},
        training={"labelled_batch": 4, "unlabelled_batch": 2, "padding": "iteration"},
    )


@pytest.fixture
def network(settings: TrainDetectorSettings) -> UnbiasedTeacherRCNN:
    """Without batch statistics."""
    torch.manual_seed(0)
    return build_network(build_cfg(settings)).train()


@pytest.fixture
def batch(network: UnbiasedTeacherRCNN, splits: dict[str, Path], settings: TrainDetectorSettings) -> Batch:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    return IterationDataset(labelled, unlabelled, ImageStore([], 0), settings.model, settings.training)[3]


def losses(network: UnbiasedTeacherRCNN, views: list[dict]) -> dict[str, float]:
    with EventStorage():
        return {name: loss.item() for name, loss in network(views).items()}


def largest(view: dict) -> int:
    """Its longer side in pixels."""
    return max(view["image"].shape)


def as_pseudo(view: dict) -> dict:
    """The view with one sure pseudo box in its middle."""
    height, width = view["image"].shape[1:]
    target = Instances((height, width))
    target.gt_boxes = Boxes(torch.tensor([[width * 0.3, height * 0.3, width * 0.7, height * 0.7]]))
    target.gt_classes, target.gt_scores = torch.tensor([3]), torch.tensor([0.9])
    target.gt_sigmas = torch.full((1, 4), 0.1)
    return {**view, "instances": target}


def test_two_halves_give_the_losses_of_the_whole(network: UnbiasedTeacherRCNN, batch: Batch) -> None:
    views = sorted(batch.labelled, key=largest)
    assert largest(views[3]) <= 128 < largest(views[4])  # alone they would be padded to other sizes
    whole = losses(network, views)
    halves = [losses(network, views[:4]), losses(network, views[4:])]
    assert halves[0]["loss_rpn_loc"] != pytest.approx(halves[1]["loss_rpn_loc"], rel=1e-2)
    for name, value in whole.items():  # each half has as many images and sampled proposals
        assert (halves[0][name] + halves[1][name]) / 2 == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_labelled_losses_do_not_notice_pseudo_labelled_views(network: UnbiasedTeacherRCNN, batch: Batch) -> None:
    alone = losses(network, batch.labelled)
    pseudo = [as_pseudo(view) for view in batch.unlabelled_strong]
    together = losses(network, [*pseudo, *batch.labelled])
    assert {name: together[name] for name in alone} == pytest.approx(alone, rel=1e-5)
    assert {"loss_cls_pseudo", "loss_rpn_cls_pseudo"} <= together.keys()


def test_views_of_an_image_are_sampled_apart(batch: Batch) -> None:
    seeds = [view["sampling_seed"] for views in batch for view in views]
    assert len(set(seeds)) == len(seeds) == 12
    assert {view["batch_hw"] for views in batch for view in views} == {
        tuple(max(view["image"].shape[side] for views in batch for view in views) for side in (1, 2))
    }


def test_a_seed_decides_and_anchors_differ_from_proposals() -> None:
    def draws(seed: int | None, step: int) -> list[int]:
        seed_sampling(seeded(Instances((4, 4), gt_boxes=Boxes(torch.zeros(0, 4))), seed), step)
        return torch.randperm(1000)[:8].tolist()

    assert draws(7, ANCHORS) == draws(7, ANCHORS)
    assert draws(7, ANCHORS) != draws(7, PROPOSALS)
    assert draws(8, ANCHORS) != draws(7, ANCHORS)
    assert draws(None, ANCHORS) != draws(None, ANCHORS)
    assert draws(2**62 - 1, PROPOSALS) == draws(2**62 - 1, PROPOSALS)
