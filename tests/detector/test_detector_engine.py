"""Schedules and single iterations."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from d2rnet.detector.config import build_cfg
from d2rnet.detector.data import ImageStore, load_records
from d2rnet.detector.dataset_mapper import Batch, IterationDataset
from d2rnet.detector.engine import DivergenceError, UnbiasedTeacherTrainer, learning_rate, unsupervised_weight
from d2rnet.settings import Settings, default_settings


def training(**changes: object) -> Settings:
    return {**default_settings("detector.training"), "base_lr": 1.0, "total_iters": 100, **changes}


@pytest.mark.parametrize(("iteration", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (29, 1.0), (30, 0.1), (60, 0.01)])
def test_warm_up_and_steps(iteration: int, expected: float) -> None:
    settings = training(warm_up_iters=10, lr_schedule="steps", lr_step_iters=[30, 60], lr_step_factor=0.1)
    assert learning_rate(iteration, settings) == pytest.approx(expected)


@pytest.mark.parametrize(("iteration", "expected"), [(0, 1.0), (50, 0.55), (100, 0.1)])
def test_cosine(iteration: int, expected: float) -> None:
    settings = training(warm_up_iters=0, lr_schedule="cosine", final_lr_factor=0.1)
    assert learning_rate(iteration, settings) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ramp", "iteration", "expected"), [(0, 20, 4.0), (10, 20, 0.4), (10, 24, 2.0), (10, 29, 4.0), (10, 90, 4.0)]
)
def test_weight_of_pseudo_labels_rises_after_burn_in(ramp: int, iteration: int, expected: float) -> None:
    settings = training(burn_in_iters=20, unsupervised_weight=4.0, unsupervised_ramp_iters=ramp)
    assert unsupervised_weight(iteration, settings) == pytest.approx(expected)


@pytest.fixture
def trainer(splits: dict[str, Path], settings: Settings) -> Iterator[UnbiasedTeacherTrainer]:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    dataset = IterationDataset(labelled, unlabelled, ImageStore([], 0), settings["model"], settings["training"])
    torch.manual_seed(0)
    student = build_model(build_cfg(settings))
    with EventStorage():
        yield UnbiasedTeacherTrainer(student, settings["training"], map(dataset.__getitem__, range(4)), torch.device("cpu"))


def step(trainer: UnbiasedTeacherTrainer, iteration: int) -> None:
    trainer.iter = iteration
    trainer.run_step()


def snapshot(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_burn_in_leaves_the_ema_teacher_alone(trainer: UnbiasedTeacherTrainer) -> None:
    student, teacher = snapshot(trainer.student), snapshot(trainer.ema_teacher.model)
    step(trainer, 0)
    step(trainer, 1)
    assert same(snapshot(trainer.ema_teacher.model), teacher)
    assert not same(snapshot(trainer.student), student)
    assert "pseudo_boxes_per_image" not in trainer.metrics


def test_teacher_starts_as_the_student_and_then_moves_half_way(trainer: UnbiasedTeacherTrainer) -> None:
    step(trainer, 0)
    step(trainer, 1)
    before = snapshot(trainer.student)
    step(trainer, 2)
    after, teacher = snapshot(trainer.student), snapshot(trainer.ema_teacher.model)
    name = "roi_heads.box_predictor.cls_score.weight"
    torch.testing.assert_close(teacher[name], (before[name] + after[name]) / 2)
    mean = "backbone.bottom_up.stem.conv1.norm.running_mean"
    torch.testing.assert_close(teacher[mean], (before[mean] + after[mean]) / 2)
    assert trainer.metrics["pseudo_boxes_per_image"] > 0
    assert {"loss_cls_pseudo", "loss_rpn_cls_pseudo", "loss_box_reg_pseudo"} <= trainer.metrics.keys()


def test_total_weighs_pseudo_class_and_objectness_only(trainer: UnbiasedTeacherTrainer) -> None:
    trainer.training["unsupervised_weight"] = 3.0
    trainer.iter = 2
    names = ["loss_cls", "loss_box_reg", "loss_cls_pseudo", "loss_rpn_cls_pseudo", "loss_box_reg_pseudo"]
    values = dict(zip(names, map(torch.tensor, (1.0, 10.0, 100.0, 1000.0, 10000.0)), strict=True))
    assert trainer._weighted_sum(values).item() == 1 + 10 + 300 + 3000 + 10000


def test_a_loss_that_is_not_finite_stops_with_advice(trainer: UnbiasedTeacherTrainer) -> None:
    with torch.no_grad():
        trainer.student.roi_heads.box_predictor.cls_score.weight.fill_(float("nan"))
    with pytest.raises(
        DivergenceError, match=r"iteration 0: a loss is not finite. Last figures: .*loss_cls nan.*Try a lower base_lr"
    ):
        step(trainer, 0)


def test_diverged_proposals_stop_with_the_same_advice(trainer: UnbiasedTeacherTrainer) -> None:
    with torch.no_grad():
        trainer.student.proposal_generator.rpn_head.anchor_deltas.bias.fill_(float("inf"))
    with pytest.raises(DivergenceError, match=r"Inf/NaN.*Try a lower base_lr"):
        step(trainer, 0)


def test_unlabelled_images_without_pseudo_boxes_are_skipped(trainer: UnbiasedTeacherTrainer) -> None:
    trainer.thresholds.values.fill_(0.9999)
    for iteration in range(3):
        step(trainer, iteration)
    assert trainer.metrics["pseudo_boxes_per_image"] == 0
    assert "loss_cls_pseudo" not in trainer.metrics


def test_labelled_images_without_boxes_train(trainer: UnbiasedTeacherTrainer) -> None:
    normal: list[dict] = []
    for batch in trainer.batches:
        normal += [view for view in batch.labelled if not len(view["instances"])]
    trainer.batches = iter([Batch(normal[:2] * 2, [], [])])
    assert len(normal) >= 2
    step(trainer, 0)
    assert trainer.metrics["loss_box_reg"] == 0
    assert trainer.metrics["labelled_boxes_per_image"] == 0


@pytest.mark.parametrize("amp", ["bf16"])
def test_mixed_precision_on_the_cpu(splits: dict[str, Path], trainer: UnbiasedTeacherTrainer, amp: str) -> None:
    trainer.training["amp"] = amp
    for iteration in range(3):
        step(trainer, iteration)
    assert 0 < trainer.metrics["total_loss"] < 100
