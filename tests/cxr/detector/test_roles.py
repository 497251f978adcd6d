"""Who sees which view, and who learns: EMA teacher and student in one iteration of mutual learning."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset
from d2rnet.cxr.detector.engine import UnbiasedTeacherTrainer
from d2rnet.cxr.detector.pseudo_labels import teacher_detections
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore

FIRST_OF_MUTUAL_LEARNING = 2


@pytest.fixture
def batch(splits: dict[str, Path], settings: TrainDetectorSettings) -> Batch:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    dataset = IterationDataset(labelled, unlabelled, ImageStore([], 0), settings.model, settings.training)
    return dataset[FIRST_OF_MUTUAL_LEARNING]


@pytest.fixture
def trainer(batch: Batch, settings: TrainDetectorSettings) -> Iterator[UnbiasedTeacherTrainer]:
    """Ready for the first iteration after burn-in."""
    torch.manual_seed(0)
    with EventStorage():
        made = UnbiasedTeacherTrainer(
            build_network(build_cfg(settings)), settings.training, iter([batch]), torch.device("cpu")
        )
        made.iter = FIRST_OF_MUTUAL_LEARNING
        yield made


def images(views: list[dict]) -> list[int]:
    """Tensors are told apart by where their pixels are."""
    return [view["image"].data_ptr() for view in views]


def test_teacher_looks_at_weak_views_and_the_student_learns_from_strong_ones(
    trainer: UnbiasedTeacherTrainer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {"teacher": [], "student": []}
    teacher, inference = trainer.ema_teacher.model, trainer.ema_teacher.model.inference

    def noted(views: list[dict], **options: bool) -> list:
        seen["teacher"] += images(views)
        assert not teacher.training
        return inference(views, **options)

    monkeypatch.setattr(teacher, "inference", noted)
    trainer.student.register_forward_pre_hook(lambda _, arguments: seen["student"].extend(images(arguments[0])))
    trainer.run_step()
    assert seen["teacher"] == images(batch.unlabelled_weak)
    assert seen["student"] == [*images(batch.labelled), *images(batch.unlabelled_strong)]


def test_pseudo_boxes_are_the_teachers_own(trainer: UnbiasedTeacherTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that finds nothing gives no pseudo box, whatever the student would find."""
    teacher = trainer.ema_teacher.model
    inference = teacher.inference
    monkeypatch.setattr(teacher, "inference", lambda views, **options: [found[:0] for found in inference(views, **options)])
    trainer.run_step()
    assert trainer.metrics["pseudo_boxes_per_image"] == 0


def test_the_teacher_is_not_trained(trainer: UnbiasedTeacherTrainer) -> None:
    trainer.training = trainer.training.model_copy(update={"ema_keep_rate": 1.0})  # refused in a run
    before = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    trainer.run_step()
    after = trainer.ema_teacher.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in trainer.ema_teacher.model.parameters())


def test_pseudo_boxes_carry_no_gradient(trainer: UnbiasedTeacherTrainer, batch: Batch) -> None:
    """Not even if the teacher's parameters could be trained."""
    teacher = trainer.ema_teacher.model.requires_grad_(True)
    for image in teacher_detections(teacher, batch.unlabelled_weak):
        assert len(image) > 0
        parts = (image.pred_boxes.tensor, image.scores, image.pred_sigmas)
        assert [part.requires_grad for part in parts] == [False] * 3
