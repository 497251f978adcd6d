"""Runs: what they write, how they resume, what they refuse."""

import json
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detector_samples import RUNTIME
from earlier_version import begun_with, lacking

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector import hooks, trainer
from d2rnet.cxr.detector.engine import DivergenceError
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.trainer import check_schedule, train_detector
from d2rnet.cxr.detector.training_images import choose_labelled
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.files.torch_files import load_torch
from d2rnet.runs import code_parts


def weights(folder: Path, name: str = "model_final.pth") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)["model"]


def run(
    splits: dict[str, Path],
    tmp_path: Path,
    settings: TrainDetectorSettings,
    runtime: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    arguments: dict[str, Any] = {**splits, "work": tmp_path / "work", "output": tmp_path / "out", "device": "cpu", **changes}
    arguments["runtime"] = RUNTIME.replaced(**runtime or {})
    train_detector(**arguments, settings=settings)
    return arguments["output"]


def assert_same_weights(first: Path, second: Path) -> None:
    for name in ("model_final.pth", "student_final.pth", "burn_in.pth"):
        ours, theirs = weights(first, name), weights(second, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_outputs(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "model_final.pth", "student_final.pth", "burn_in.pth", "config.yaml", "metrics.jsonl", "labelled_split.json",
        "run.json", "model_card.md",
    }  # fmt: skip
    teacher, student = weights(trained), weights(trained, "student_final.pth")
    assert "roi_heads.box_predictor.uncertainty.weight" in teacher
    assert not torch.equal(teacher["backbone.fpn_lateral3.weight"], student["backbone.fpn_lateral3.weight"])
    lines = list(read_jsonl(trained / "metrics.jsonl"))
    assert sorted({line["iterations_done"] for line in lines}) == [1, 2, 3, 4]
    assert lines[0]["labelled_boxes_per_image"] > 0
    means, by_class = lines[-2:]
    for stream in ("labelled", "pseudo"):
        total = sum(by_class[f"{stream}_boxes_per_image_by_class"].values())
        assert total == pytest.approx(means[f"{stream}_boxes_per_image"])
    record = json.loads((trained / "run.json").read_text())
    assert record["counts"]["labelled_used"] == 9
    assert record["counts"]["unlabelled_used"] == 8
    assert len(json.loads((trained / "labelled_split.json").read_text())["source_ids"]) == 9
    assert str(trained.parent) not in (trained / "config.yaml").read_text()


def history(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the time."""
    return [{k: v for k, v in line.items() if k != "seconds_per_iteration"} for line in read_jsonl(output / "metrics.jsonl")]


def assert_same_state(ours: Any, theirs: Any, place: str = "state") -> None:
    """Two checkpoints are equal to the last bit."""
    assert type(ours) is type(theirs), place
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), place
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key in ours:
            assert_same_state(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), place
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same_state(*pair, f"{place}[{index}]")
    else:
        assert ours == theirs, place


@contextmanager
def killed_at(iteration: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End a run without a word before this iteration is saved."""
    original = hooks.CheckpointHook.after_step

    def killed(hook: hooks.CheckpointHook) -> None:
        if hook.trainer.iter == iteration:
            raise KeyboardInterrupt
        original(hook)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hooks.CheckpointHook, "after_step", killed)
        yield


def test_a_run_that_other_code_resumed_names_both(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after git pull: run.json and the card named the last commit for all iterations."""
    begun = {"d2rnet": "0.0.1", "commit": "f" * 40, "dirty": False}
    with monkeypatch.context() as patch, killed_at(3, monkeypatch):
        patch.setattr(code_parts, "code_version", lambda: begun)
        run(splits, tmp_path, settings)
    output = run(splits, tmp_path, settings)
    first, second = read_json(output / "run.json")["code_parts"]
    assert first["code"] == begun and (first["from"], second["from"]) == (0, 3)
    assert second["code"] == read_json(output / "run.json")["code"]
    card = (output / "model_card.md").read_text()
    assert f"| code until iteration 3 | d2rnet 0.0.1, commit {'f' * 40} |" in card


@pytest.mark.parametrize(
    ("kill_at", "new"), [(2, ()), (4, ()), (4, ("training.padding", "training.strong.erasing", "model.roi_sampling_ratio"))]
)
def test_a_killed_run_resumes_to_the_same_bits(
    splits: dict[str, Path],
    tmp_path: Path,
    settings: TrainDetectorSettings,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int,
    new: tuple[str, ...],
) -> None:
    """A kill that no handler sees before iteration ``kill_at`` is saved: at the end of burn-in, amid a metrics interval.

    The version that was killed may have lacked the settings ``new``.
    """
    settings = settings.replaced(
        training={
            "total_iters": 6,
            "pseudo_threshold": "adaptive",
            "adaptive_threshold_range": [0.0, 1.0],
            "accumulation_steps": 2,
        }
    )
    runtime = {"checkpoint_every_iters": 2, "log_every_iters": 3}
    whole = run(splits, tmp_path, settings, runtime, work=tmp_path / "whole", output=tmp_path / "whole_out")
    with killed_at(kill_at, monkeypatch):
        run(splits, tmp_path, settings, runtime)
    assert not (tmp_path / "out" / "model_final.pth").exists()
    if new:
        begun_with(tmp_path / "work", lacking(*new))
    output = run(splits, tmp_path, settings, runtime | {"loader_workers": 1})  # must not matter, nor start another work folder
    assert_same_weights(output, whole)
    assert history(output) == history(whole)
    assert [line["iterations_done"] for line in history(output) if "total_loss" in line] == [3, 6]
    assert [part["from"] for part in read_json(output / "run.json")["code_parts"]] == [0]
    checkpoints = [load_torch(next(folder.glob("*/checkpoint.pth"))) for folder in (tmp_path / "work", tmp_path / "whole")]
    assert_same_state(*checkpoints)
    assert checkpoints[0]["thresholds"]["weight"] > 0


def test_a_checkpoint_of_another_version_is_named(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint is of settings and inputs; after an update the same work folder may hold another state."""
    with killed_at(3, monkeypatch):
        run(splits, tmp_path, settings)
    (checkpoint,) = tmp_path.glob("work/*/checkpoint.pth")
    whole = load_torch(checkpoint)
    for lost in ("iterations_done", "scaler", "metrics"):
        torch.save({key: value for key, value in whole.items() if key != lost}, checkpoint)
        with pytest.raises(CheckpointError, match=rf"checkpoint\.pth: does not fit this version .*KeyError: '{lost}'"):
            run(splits, tmp_path, settings)


def test_the_student_at_the_end_of_burn_in_is_kept(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(2, monkeypatch):
        run(splits, tmp_path, settings)
    (checkpoint,) = tmp_path.glob("work/*/checkpoint.pth")
    state = load_torch(checkpoint)
    assert state["iterations_done"] == 2
    kept = weights(trained, "burn_in.pth")
    assert kept.keys() == weights(trained).keys()
    assert all(torch.equal(value, state["student"][name]) for name, value in kept.items())


def test_a_weight_that_is_not_finite_never_reaches_the_checkpoint(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.UnbiasedTeacherTrainer.run_step

    def spoiled(self: trainer.UnbiasedTeacherTrainer) -> None:
        original(self)
        if self.iter == 1:
            with torch.no_grad():
                self.student.roi_heads.box_predictor.cls_score.bias[3] = float("nan")

    monkeypatch.setattr(trainer.UnbiasedTeacherTrainer, "run_step", spoiled)
    with pytest.raises(DivergenceError, match="iteration 1: a weight is not finite after the step"):
        run(splits, tmp_path, settings)
    (checkpoint,) = tmp_path.glob("work/*/checkpoint.pth")
    state = load_torch(checkpoint)
    assert state["iterations_done"] == 1
    assert all(tensor.isfinite().all() for tensor in state["student"].values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_143(
    splits: dict[str, Path],
    tmp_path: Path,
    settings: TrainDetectorSettings,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    before = signal.getsignal(number)
    original = trainer.UnbiasedTeacherTrainer.run_step

    def interrupted(self: trainer.UnbiasedTeacherTrainer) -> None:
        original(self)
        if self.iter == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(trainer.UnbiasedTeacherTrainer, "run_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run(splits, tmp_path, settings, {"checkpoint_every_iters": 100})
    assert stopped.value.code == 143
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    assert_same_weights(run(splits, tmp_path, settings), trained)


@pytest.mark.parametrize("place", ["load_images", "export", "write_run_record"])
def test_a_signal_before_or_after_the_iterations_is_told_too(
    splits: dict[str, Path],
    tmp_path: Path,
    settings: TrainDetectorSettings,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    """It ended without a word, and left what was half written."""
    before = signal.getsignal(signal.SIGTERM)
    shutil.copytree(trained.parent / "work", tmp_path / "work")

    def interrupted(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(trainer, place, interrupted)
        run(splits, tmp_path, settings)
    assert stopped.value.code == 143
    assert caplog.messages[-1] == "SIGTERM: stopping; give the same command again to go on"
    assert signal.getsignal(signal.SIGTERM) == before
    assert_same_weights(run(splits, tmp_path, settings), trained)


def test_supervised_only_never_looks_at_unlabelled_images(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings
) -> None:
    settings = settings.replaced(training={"supervised_only": True})
    output = run(splits, tmp_path, settings)
    assert not any("pseudo_boxes_per_image" in line for line in read_jsonl(output / "metrics.jsonl"))
    assert not torch.equal(weights(output)["backbone.fpn_lateral3.weight"],
                           weights(output, "student_final.pth")["backbone.fpn_lateral3.weight"])  # fmt: skip


def test_validation_is_written_and_changes_nothing(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, trained: Path
) -> None:
    output = run(splits, tmp_path, settings, {"validate_every_iters": 2})
    scored = [line for line in read_jsonl(output / "metrics.jsonl") if "validation_student_AP50" in line]
    assert [line["iterations_done"] for line in scored] == [2, 4]
    assert "validation_ema_teacher_AP50" not in scored[0]
    assert 0 <= scored[1]["validation_ema_teacher_AP50"] <= 1
    assert_same_weights(output, trained)


def test_settings_of_prediction_are_those_of_the_teacher_and_of_the_validation(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one pseudo box an image, and of a validation in which no box is sure enough."""
    seen = []
    original = trainer.UnbiasedTeacherTrainer.run_step

    def noted(self: trainer.UnbiasedTeacherTrainer) -> None:
        original(self)
        heads = [network.roi_heads.box_predictor for network in (self.student, self.ema_teacher.model)]
        seen.extend((head.test_nms_thresh, head.test_topk_per_image, head.test_score_thresh) for head in heads)

    monkeypatch.setattr(trainer.UnbiasedTeacherTrainer, "run_step", noted)
    prediction = {"nms_iou": 0.3, "max_boxes_per_image": 1, "score_floor": 0.99}
    settings = settings.replaced(prediction=prediction)
    output = run(splits, tmp_path, settings, {"validate_every_iters": 2, "loader_workers": 1})
    assert set(seen) == {(0.3, 1, settings.training.pseudo_score_threshold)}
    lines = list(read_jsonl(output / "metrics.jsonl"))
    assert max(line.get("pseudo_boxes_per_image", 0) for line in lines) == 1
    assert [line["validation_student_AP50"] for line in lines if "validation_student_AP50" in line] == [0, 0]


def test_settings_of_prediction_that_change_no_weight_resume_the_finished_run(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake plans the training for them; it must not cost GPU days."""
    shutil.copytree(trained.parent / "work", tmp_path / "work")

    class BegunError(Exception):
        pass

    def begin(*_: Any) -> None:
        raise BegunError

    monkeypatch.setattr(trainer.UnbiasedTeacherTrainer, "run_step", begin)
    other = settings.replaced(prediction={"batch_images": 3, "score_floor": 0.2, "amp": "bf16"})
    output = run(splits, tmp_path, other)
    assert_same_weights(output, trained)
    assert json.loads((output / "run.json").read_text())["settings"]["prediction"]["score_floor"] == 0.2
    for changes in ({"nms_iou": 0.4}, {"max_boxes_per_image": 50}):
        with pytest.raises(BegunError):
            run(splits, tmp_path, settings.replaced(prediction=changes))


@pytest.mark.parametrize("other", ["labelled_val", "labelled_test"])
def test_an_image_in_two_splits_is_refused(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, other: str
) -> None:
    with pytest.raises(DatasetError, match=rf"labelled_train and {other}: 9 \(train-1, "):
        run({**splits, other: splits["labelled_train"]}, tmp_path, settings)
    assert not (tmp_path / "work").exists()


def test_unlabelled_images_of_other_splits_are_not_trained_on(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, draw: Any
) -> None:
    path = draw(tmp_path, "reports", 4, seed=9, boxes=False, split="test")
    with pytest.raises(DatasetError, match=r"reports.json: no image of split train"):
        run({**splits, "unlabelled": path}, tmp_path, settings)


def test_a_gpu_where_there_is_none(splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=r"device 'cuda': this job shows torch 0 GPU"):
        run(splits, tmp_path, settings, device="cuda")


def test_the_log_begins_with_the_device(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="d2rnet"), pytest.raises(ConfigError, match="not divisible"):
        run(splits, tmp_path, settings, processes=7)
    assert caplog.messages[0] == "training on cpu, 7 process(es)"


def test_normalisation_over_gpus_on_a_cpu(splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings) -> None:
    settings = settings.replaced(model={"norm": "SyncBN"})
    with pytest.raises(ConfigError, match="SyncBN works on GPUs only"):
        run(splits, tmp_path, settings)


def test_burn_in_that_takes_all_iterations_is_refused(settings: TrainDetectorSettings) -> None:
    with pytest.raises(ConfigError, match="burn_in_iters 4 is not below total_iters 4"):
        check_schedule(settings.training.replaced(burn_in_iters=4))


@pytest.mark.parametrize(("steps", "warns"), [([2], True), ([3], False)])
def test_learning_rate_step_at_the_end_of_burn_in_warns(
    settings: TrainDetectorSettings, caplog: pytest.LogCaptureFixture, steps: list[int], warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        check_schedule(settings.training.replaced(lr_schedule="steps", lr_step_iters=steps))
    assert ("steps down at iteration 2" in caplog.text) == warns


def test_divergence_keeps_the_last_checkpoint(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings
) -> None:
    settings = settings.replaced(training={"base_lr": 1e30, "optimizer": "sgd", "clip_gradient_norm": 0})
    with pytest.raises(DivergenceError, match="The last checkpoint is kept"):
        run(splits, tmp_path, settings)


def test_percent_of_labels_is_seeded_and_the_rest_becomes_unlabelled(
    splits: dict[str, Path], settings: TrainDetectorSettings
) -> None:
    labelled, unlabelled = load_records(splits["labelled_train"]), load_records(splits["unlabelled"])
    training = settings.training.replaced(labelled_percent=34)
    kept, pool = choose_labelled(labelled, unlabelled, training)
    assert (len(kept), len(pool)) == (3, 14)
    assert {record.source_id for record in kept} | {record.source_id for record in pool} == {
        record.source_id for record in [*labelled, *unlabelled]
    }
    assert choose_labelled(labelled, unlabelled, training)[0] == kept
    assert choose_labelled(labelled, unlabelled, training.replaced(labelled_split_seed=2))[0] != kept


def test_other_pixels_start_afresh(
    splits: dict[str, Path], tmp_path: Path, settings: TrainDetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The json files are the same; the finished detector of the old images was handed out again."""

    class BegunError(Exception):
        pass

    def begin(*_: Any, **__: Any) -> None:
        raise BegunError

    monkeypatch.setattr(trainer, "run_processes", begin)
    copied = shutil.copytree(splits["unlabelled"].parent, tmp_path / "coco")
    splits = {name: copied / path.name for name, path in splits.items()}

    def folders() -> int:
        with pytest.raises(BegunError):
            run(splits, tmp_path, settings)
        return len(list((tmp_path / "work").glob("*/fingerprint.json")))

    assert [folders(), folders()] == [1, 1]
    for number, name in enumerate(("labelled_train", "unlabelled"), start=2):
        record = load_records(splits[name], split="train" if name == "unlabelled" else None)[0]
        noise = np.random.default_rng(number).integers(0, 255, record.image_hw, np.uint8)
        assert cv2.imwrite(str(record.path), noise)
        assert folders() == number
