"""Schedules and single iterations."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage, get_event_storage

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset
from d2rnet.cxr.detector.engine import DivergenceError, UnbiasedTeacherTrainer
from d2rnet.cxr.detector.pseudo_labels import teacher_detections
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.schedules import learning_rate, unsupervised_weight
from d2rnet.cxr.detector.settings import DetectorTrainingSettings, TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore


def training(**changes: object) -> DetectorTrainingSettings:
    return DetectorTrainingSettings().replaced(base_lr=1.0, total_iters=100, **changes)


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


def make_dataset(splits: dict[str, Path], settings: TrainDetectorSettings) -> IterationDataset:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    return IterationDataset(labelled, unlabelled, ImageStore([], 0), settings.model, settings.training)


def make_trainer(splits: dict[str, Path], settings: TrainDetectorSettings) -> UnbiasedTeacherTrainer:
    """A new trainer of these settings, always with the same weights."""
    torch.manual_seed(0)
    student = build_network(build_cfg(settings))
    batches = map(make_dataset(splits, settings).__getitem__, range(4))
    return UnbiasedTeacherTrainer(student, settings.training, batches, torch.device("cpu"), [0.1] * 22)


@pytest.fixture
def trainer(splits: dict[str, Path], settings: TrainDetectorSettings) -> Iterator[UnbiasedTeacherTrainer]:
    with EventStorage():
        yield make_trainer(splits, settings)


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


def test_iterations_leave_nothing_behind_in_the_storage_of_the_run(trainer: UnbiasedTeacherTrainer) -> None:
    """detectron2 would add two figures an image, for the whole run."""
    step(trainer, 0)
    assert not get_event_storage().histories()


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
    trainer.training = trainer.training.replaced(unsupervised_weight=3.0)
    trainer.iter = 2
    names = ["loss_cls", "loss_box_reg", "loss_cls_pseudo", "loss_rpn_cls_pseudo", "loss_box_reg_pseudo"]
    values = dict(zip(names, map(torch.tensor, (1.0, 10.0, 100.0, 1000.0, 10000.0)), strict=True))
    assert trainer._weighted_sum(values).item() == 1 + 10 + 300 + 3000 + 10000
    trainer.training = trainer.training.replaced(unsupervised_weight=0.0)
    assert trainer._weighted_sum(values).item() == 1 + 10


def test_with_weight_0_no_pseudo_box_moves_the_student(splits: dict[str, Path], settings: TrainDetectorSettings) -> None:
    """The unlabelled images still pass through it: with batch norm that changes the student, and is what the control shows."""
    after = []
    for most in (100, 50):
        changed = settings.replaced(training={"unsupervised_weight": 0.0}, prediction={"max_boxes_per_image": most})
        trainer = make_trainer(splits, changed)
        with EventStorage():
            for iteration in range(3):
                step(trainer, iteration)
        after.append((trainer.metrics["pseudo_boxes_per_image"], snapshot(trainer.student)))
    assert [boxes for boxes, _ in after] == [100, 50]
    for name, tensor in after[0][1].items():
        torch.testing.assert_close(tensor, after[1][1][name], rtol=0, atol=1e-6)


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
    trainer.pseudo_label_rule.thresholds.fill_(0.9999)
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
    trainer.training = trainer.training.replaced(amp=amp)
    for iteration in range(3):
        step(trainer, iteration)
    assert 0 < trainer.metrics["total_loss"] < 100


@pytest.fixture
def alike(settings: TrainDetectorSettings) -> TrainDetectorSettings:
    """Without batch statistics; SGD, since Adam turns rounding of tiny gradients into steps."""
    settings = settings.replaced(model={"norm": "GN", "backbone_width": 32, "train_shortest_px": [40, 72]})
    return settings.replaced(
        training={"optimizer": "sgd", "base_lr": 0.01, "burn_in_iters": 1, "padding": "iteration", "labelled_batch": 4}
    )


def threshold_between_images(trainer: UnbiasedTeacherTrainer, weak_views: list[dict]) -> float:
    """A score that one of two images alone exceeds."""
    best = [image.scores.max().item() for image in teacher_detections(trainer.ema_teacher.model, weak_views)]
    assert abs(best[0] - best[1]) > 1e-5
    return sum(best) / 2


@pytest.mark.parametrize("proposals", [30, 6])
def test_micro_batches_give_the_losses_and_weights_of_the_batch(
    splits: dict[str, Path], alike: TrainDetectorSettings, proposals: int
) -> None:
    """Burn-in, and mutual learning with pseudo boxes in one of the two micro-batches only.

    Of 30 proposals an image every one gives the 16 that are wanted; of 6, and of its boxes, the images give different numbers.
    """
    alike = alike.replaced(model={"rpn_post_nms_train": proposals})
    weak_views = make_dataset(splits, alike)[1].unlabelled_weak
    results, threshold = [], 0.0
    for steps in (1, 2):
        trainer = make_trainer(splits, alike.replaced(training={"accumulation_steps": steps}))
        before = snapshot(trainer.student)
        with EventStorage():
            step(trainer, 0)
            figures = [dict(trainer.metrics)]
            weights = [before, snapshot(trainer.student)]
            trainer.ema_teacher.update(0.0)
            threshold = threshold or threshold_between_images(trainer, weak_views)
            trainer.pseudo_label_rule.thresholds.fill_(threshold)
            step(trainer, 1)
            figures.append(dict(trainer.metrics))
            assert (trainer.student.sampled_share[False] == 1) == (proposals == 30)
        results.append((figures, [*weights, snapshot(trainer.student)]))
    (whole, whole_weights), (cut, cut_weights) = results
    assert whole[1]["unlabelled_trained_on"] == 0.5
    assert whole[1]["loss_cls_pseudo"] > 0.1
    for ours, theirs in zip(cut, whole, strict=True):
        # Kinks of the network turn rounding of the weights into more than rounding of the gradient, here and there into 1.4 %.
        assert ours.pop("gradient_norm") == pytest.approx(theirs.pop("gradient_norm"), rel=1e-2)
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    before, first, second = whole_weights
    for name, value in first.items():
        torch.testing.assert_close(cut_weights[1][name], value, rtol=1e-4, atol=1e-5)
    way, apart = (
        torch.cat([(value - other[name]).float().flatten() for name, value in second.items()]).norm()
        for other in (before, cut_weights[2])
    )
    assert apart < 0.03 * way


def test_running_statistics_move_as_far_in_many_micro_batches_as_in_one(
    splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    """Of equal micro-batches; each would move them by a tenth, four of them by a third."""
    moved = []
    for steps in (1, 4):
        batch = {"accumulation_steps": steps, "labelled_batch": 4, "unlabelled_batch": 4}
        trainer = make_trainer(splits, settings.replaced(training=batch))
        views = next(trainer.batches).labelled[:1]
        trainer.batches = iter([Batch(views * steps, [], [])])
        with EventStorage():
            step(trainer, 0)
        moved.append(trainer.student.backbone.bottom_up.stem.conv1.norm.running_var)
    torch.testing.assert_close(*moved)


def test_only_statistics_that_are_trained_are_averaged_over_processes(
    splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    """Means of three equal numbers are not always that number: frozen ones, anchors and grey levels would drift."""
    trained = make_trainer(splits, settings.replaced(model={"freeze_at": 2}))
    names = {id(buffer): name for name, buffer in trained.student.named_buffers()}
    found = [names[id(statistic)] for statistic in trained._statistics]
    assert len(found) == len(set(found)) > 10
    assert all(name.endswith(("running_mean", "running_var")) and "res2" not in name and "stem" not in name for name in found)
    assert make_trainer(splits, settings.replaced(model={"norm": "FrozenBN"}))._statistics == []


@pytest.mark.parametrize(("share", "trained_on"), [(1.0, 1.0), (0.5, 0.5), (0.4, 0.0)])
def test_share_of_unlabelled_images_without_pseudo_boxes(
    splits: dict[str, Path], settings: TrainDetectorSettings, share: float, trained_on: float
) -> None:
    settings = settings.replaced(training={"empty_unlabelled": "background", "max_empty_unlabelled_share": share})
    trainer = make_trainer(splits, settings)
    trainer.pseudo_label_rule.thresholds.fill_(0.9999)
    with EventStorage():
        for iteration in range(3):
            step(trainer, iteration)
    assert trainer.metrics["unlabelled_with_pseudo_boxes"] == 0
    assert trainer.metrics["unlabelled_trained_on"] == trained_on
    assert ("loss_cls_pseudo" in trainer.metrics) == (trained_on > 0)


def spoil_gradients(trainer: UnbiasedTeacherTrainer) -> torch.utils.hooks.RemovableHandle:
    """Let the loss stay finite and one gradient overflow."""
    return trainer.student.roi_heads.box_predictor.cls_score.bias.register_hook(lambda gradient: gradient * float("inf"))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(trainer: UnbiasedTeacherTrainer) -> None:
    before = snapshot(trainer.student)
    spoil_gradients(trainer)
    with pytest.raises(DivergenceError, match=r"iteration 0: the losses are finite, but the gradient is not.*Try a lower"):
        step(trainer, 0)
    trained = {name for name, _ in trainer.student.named_parameters()}
    assert same({name: before[name] for name in trained}, snapshot(trainer.student))
    assert "gradient_norm" not in trainer.metrics


def test_half_precision_leaves_out_and_counts_steps_that_overflow(
    splits: dict[str, Path], settings: TrainDetectorSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.replaced(training={"amp": "fp16"})
    trainer = make_trainer(splits, settings)
    handle = spoil_gradients(trainer)
    before, scale = snapshot(trainer.student), trainer.scaler.get_scale()
    trained = {name for name, _ in trainer.student.named_parameters()}
    with EventStorage(), caplog.at_level(logging.INFO):
        step(trainer, 0)
        assert same({name: before[name] for name in trained}, snapshot(trainer.student))
        assert trainer.skipped_steps == trainer.state(1)["skipped_steps"] == 1
        assert trainer.scaler.get_scale() == scale / 2
        assert "iteration 0: gradients overflow at loss scale 65536; 1 steps left out so far" in caplog.text
        handle.remove()
        trainer.scaler.update(1024.0)
        step(trainer, 1)
        assert not same({name: before[name] for name in trained}, snapshot(trainer.student))
        assert math.isfinite(trainer.metrics["gradient_norm"])
        spoil_gradients(trainer)
        trainer.scaler.update(1.0)
        with pytest.raises(DivergenceError, match="the gradient is not finite even at loss scale 1"):
            step(trainer, 2)


def test_gradient_norm_is_that_before_clipping(splits: dict[str, Path], alike: TrainDetectorSettings) -> None:
    moved = []
    for limit in (0.0, 1e-3):
        plain = {"clip_gradient_norm": limit, "momentum": 0.0, "weight_decay": 0.0, "base_lr": 1.0}
        trainer = make_trainer(splits, alike.replaced(training=plain))
        before = snapshot(trainer.student)
        with EventStorage():
            step(trainer, 0)
        change = [snapshot(trainer.student)[name] - before[name] for name, _ in trainer.student.named_parameters()]
        moved.append((trainer.metrics["gradient_norm"], torch.cat([part.flatten() for part in change]).norm().item()))
    assert moved[0][0] == pytest.approx(moved[1][0])
    assert moved[0][1] == pytest.approx(moved[0][0], rel=1e-4)
    assert moved[1][1] == pytest.approx(1e-3, rel=1e-2)
