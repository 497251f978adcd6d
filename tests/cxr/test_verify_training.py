"""verify_training: everything that would end a training is listed before one begins."""

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from r2gen_reference import random_weights

from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.settings import TrainingsSettings
from d2rnet.cxr.verify_training import check_loaders, training_problems, verify_training
from d2rnet.errors import ConfigError
from d2rnet.files.documents import read_json
from d2rnet.runs.settings import LoaderRuntime

SMALL = {
    "detector": {"model": {"backbone_width": 16, "fpn_channels": 16, "roi_fc_dim": 32}},
    "report": {"model": {"backbone_width": 16}},
}


def settings(**changes: Any) -> TrainingsSettings:
    return TrainingsSettings().replaced(**SMALL).replaced(**changes)


def problems(chosen: TrainingsSettings, processes: int = 1, device: str | None = "cpu") -> list[str]:
    return list(training_problems(chosen, LoaderRuntime(), device=device, processes=processes))


def test_what_can_be_trained_passes(tmp_path: Path) -> None:
    verify_training(output=tmp_path, device="cpu", processes=2, elsewhere=False, settings=settings(), runtime=LoaderRuntime())
    assert read_json(tmp_path / "run.json")["command"] == "verify-training"


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    chosen = settings(
        detector={"model": {"weights": str(tmp_path / "gone.pkl")}},
        report={"model": {"backbone_weights": str(tmp_path / "gone.pth")}},
    )
    with pytest.raises(ConfigError, match="3 problem") as refused:
        verify_training(
            output=tmp_path, device="cuda:99", processes=1, elsewhere=False, settings=chosen, runtime=LoaderRuntime()
        )
    lines = str(refused.value).splitlines()
    assert lines[1].startswith(f"  cxr.detector.model.weights: {tmp_path / 'gone.pkl'}")
    assert lines[2].startswith("  cxr.report.model.backbone_weights: ") and "device 'cuda:99'" in lines[3]
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("detector", {"training": {"labelled_batch": 9}}, "labelled_batch: 9 images are not divisible by 2"),
        ("detector", {"training": {"burn_in_iters": 370}}, "burn_in_iters 370 is not below total_iters 370"),
        ("report", {"training": {"batch_size": 1}}, "--processes 2: expected 1 to cxr.report.training.batch_size (1)"),
        ("report", {"model": {"d_model": 97}}, "d_model"),
        (
            "report",
            {"training": {"alignment": {"lab": "lesions", "text_encoder_weights": "gone"}}},
            "cxr.report.training.alignment.text_encoder_weights",
        ),
    ],
)
def test_settings_that_do_not_fit(section: str, change: dict[str, Any], words: str) -> None:
    (found,) = problems(settings(**{section: change}), processes=2)
    assert words in found


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    torch.save({"model": {"stem.conv1.weight": torch.zeros(64, 1, 7, 7)}}, tmp_path / "detector.pth")
    torch.save(random_weights(d_model=24, num_words=9), tmp_path / "r2gen.pth")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    chosen = settings(
        detector={"model": {"weights": str(tmp_path / "detector.pth")}},
        report={"model": {"backbone_weights": str(tmp_path / "resnet.pth")}},
    )
    first, second = problems(chosen)
    assert first.startswith("cxr.detector.model.weights: ") and "nothing in it fits" in first
    assert second.startswith("cxr.report.model.backbone_weights: ") and "resnet.pth" in second
    (found,) = problems(settings(report={"model": {"weights": str(tmp_path / "r2gen.pth"), "num_layers": 5}}))
    assert found.startswith("cxr.report.model.weights: ") and "does not fit cxr.report.model" in found


def test_another_machine_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert problems(settings(), device=None) == []
    assert len(problems(settings(), device="cuda")) == 1


def test_loaders_that_fill_the_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with its usual 64 MB: four workers keep sixteen batches of 16 images of 600 x 1333 px."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64e6))
    chosen = TrainDetectorSettings().replaced(
        model={"train_shortest_px": [400, 800], "longest_px": 1333},
        training={"labelled_batch": 4, "unlabelled_batch": 4, "labelled_views": "weak_and_strong"},
    )
    check_loaders(chosen, LoaderRuntime(), 1)
    with pytest.raises(ConfigError, match=r"loader_workers: 4 of each .* about 205 MB .*/dev/shm, which has 64 MB .*shm-size"):
        check_loaders(chosen, LoaderRuntime(loader_workers=4), 1)
    alone = chosen.replaced(training={"supervised_only": True, "labelled_views": "strong"})
    check_loaders(alone, LoaderRuntime(loader_workers=4), 1)  # a quarter of it


def test_loaders_that_open_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 1024))
    chosen = TrainDetectorSettings()  # 8 strong views, 8 pairs
    check_loaders(chosen, LoaderRuntime(loader_workers=2), 1)
    with pytest.raises(ConfigError, match=r"loader_workers: 4 of a process keep about 1152 tensors .* hard limit is 1024"):
        check_loaders(chosen, LoaderRuntime(loader_workers=4), 1)
    check_loaders(chosen, LoaderRuntime(loader_workers=4), 2)
