"""The detector on a pretend GPU: nothing is left behind on the CPU, and nothing waits that need not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import GPU, pretend_gpu

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector import evaluate, predict, trainer
from d2rnet.cxr.detector.config import STUDENT_NAME, TEACHER_NAME
from d2rnet.cxr.detector.engine import UnbiasedTeacherTrainer
from d2rnet.cxr.detector.settings import DetectorRuntime, PredictionSettings, TrainDetectorSettings
from d2rnet.files.torch_files import load_torch

ADAPTIVE = {"pseudo_threshold": "adaptive", "accumulation_steps": 2, "optimizer": "sgd", "empty_unlabelled": "background"}


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``cuda`` is the pretend one."""
    for module in (trainer, predict):
        monkeypatch.setattr(module, "resolve_device", lambda name: GPU if name == "cuda" else torch.device(name))


def train(splits: dict[str, Path], folder: Path, device: str, settings: TrainDetectorSettings) -> Path:
    runtime = DetectorRuntime().replaced(checkpoint_every_iters=1, log_every_iters=1, validate_every_iters=4)
    trainer.train_detector(
        **splits, work=folder / "work", output=folder / "model", device=device, settings=settings, runtime=runtime
    )
    return folder / "model"


def weights(model: Path) -> list[dict[str, torch.Tensor]]:
    return [load_torch(model / name)["model"] for name in (TEACHER_NAME, STUDENT_NAME)]


@pytest.mark.parametrize("changes", [{}, ADAPTIVE])
def test_a_run_on_a_gpu_resumed_from_its_file_is_that_on_the_cpu(
    changes: dict[str, Any],
    splits: dict[str, Path],
    settings: TrainDetectorSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings.replaced(training=changes)
    wanted = train(splits, tmp_path / "cpu", "cpu", settings)
    step = UnbiasedTeacherTrainer.run_step

    def killed(self: UnbiasedTeacherTrainer) -> None:
        if self.iter == 3:
            raise KeyboardInterrupt
        step(self)

    with pretend_gpu():
        with monkeypatch.context() as patch:
            patch.setattr(UnbiasedTeacherTrainer, "run_step", killed)
            with pytest.raises(KeyboardInterrupt):
                train(splits, tmp_path / "gpu", "cuda", settings)
        found = train(splits, tmp_path / "gpu", "cuda", settings)
    for own, other in zip(weights(found), weights(wanted), strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)
    rows = [[json.loads(line) for line in (model / "metrics.jsonl").open()] for model in (found, wanted)]
    assert [row.get("validation_ema_teacher_AP50") for row in rows[0]] == [
        row.get("validation_ema_teacher_AP50") for row in rows[1]
    ]
    assert json.loads((found / "run.json").read_text())["device"] == "cuda:0"


def test_boxes_drawn_on_a_gpu_are_those_of_the_cpu(
    splits: dict[str, Path], trained: Path, prediction: PredictionSettings
) -> None:
    records = load_records(splits["labelled_test"])
    wanted = evaluate.predict(records, trained, TEACHER_NAME, "cpu", prediction, DetectorRuntime())
    with pretend_gpu() as gpu:
        network, cfg = predict.load_detector(trained, TEACHER_NAME, "cuda", prediction)
        batches = predict.make_batches(records, cfg, prediction.batch_images)
        gpu.waits.clear()
        found = [result for image in predict.detect(network, cfg, batches, prediction) for result in image]
    assert found == wanted and found
    assert gpu.waits["copy to the CPU"] == 3 * len(records)  # boxes, scores, classes
    assert gpu.waits["tolist"] == 0  # of what is on the GPU
