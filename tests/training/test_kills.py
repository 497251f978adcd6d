"""Both trainers on two processes: one killed, then resumed by two and stopped by a signal, then taken over by one."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from detector_samples import RUNTIME, TINY, draw_splits
from report_samples import small_settings, training_settings, write_cohort

from d2rnet.cxr.detector.trainer import train_detector
from d2rnet.cxr.report_model.trainer import train_report_model
from d2rnet.files.torch_files import load_torch
from d2rnet.report.text.vocabulary import build_vocabulary
from d2rnet.training.processes import ProcessError


@dataclass(frozen=True)
class Trainer:
    """A trainer, its checkpoint below the work folder, the step that it holds, and what the log says of it."""

    train: Callable[[Path, int], None]
    checkpoint: str
    clock: str
    resumes: str
    stops: str


def detector(folder: Path, processes: int) -> None:
    """Train the tiny detector for longer than any test waits; every step is saved."""
    if not (folder / "coco").exists():
        (folder / "coco").mkdir()
        draw_splits(folder / "coco")
    names = {"labelled_train": "train", "labelled_val": "val", "labelled_test": "test", "unlabelled": "unlabelled"}
    splits = {name: folder / "coco" / f"{split}.json" for name, split in names.items()}
    settings = TINY.replaced(
        model={"norm": "GN", "backbone_width": 32},
        training={"total_iters": 1000, "burn_in_iters": 999, "labelled_views": "strong"},
    )
    folders = {"work": folder / "work", "output": folder / "out"}
    train_detector(**splits, **folders, device="cpu", settings=settings, runtime=RUNTIME, processes=processes)


def report_model(folder: Path, processes: int) -> None:
    """Train the small report model for longer than any test waits; every epoch of three steps is saved."""
    cohort = folder / "cohort"
    settings = small_settings().replaced(training={"epochs": 400, "selection": "loss", "validate_every_epochs": 400})
    if not cohort.exists():
        write_cohort(cohort)
        build_vocabulary(annotation=cohort / "annotation.json", output=folder / "vocabulary", settings=settings.text)
    train_report_model(
        annotation=cohort / "annotation.json",
        vocabulary=folder / "vocabulary" / "vocabulary.json",
        image_root=cohort,
        work=folder / "work",
        output=folder / "out",
        device="cpu",
        settings=training_settings(settings),
        processes=processes,
    )


TRAINERS = {
    "detector": Trainer(
        detector,
        "checkpoint.pth",
        "iterations_done",
        "resuming after {} of 1000 iterations",
        "SIGTERM: checkpoint written after {} iterations, stopping",
    ),
    "report model": Trainer(
        report_model, "last.pt", "finished_steps", "resuming at step {} of 1200", "told to stop: saved step {} of 1200"
    ),
}


def when_it_runs(folder: Path, name: str, act: Callable[[], None]) -> None:
    """Do something in another thread as soon as the run below ``folder`` has written a checkpoint."""

    def times() -> list[int]:
        return [path.stat().st_mtime_ns for path in folder.glob(f"work/*/{name}")]

    def wait() -> None:
        while times() == before:
            time.sleep(0.05)
        act()

    before = times()
    threading.Thread(target=wait, daemon=True).start()


def kill_second_process() -> None:
    second = max(multiprocessing.active_children(), key=lambda child: child.pid or 0)
    os.kill(second.pid or 0, signal.SIGKILL)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_dead_process_ends_the_others_and_a_signal_stops_all_of_them(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = TRAINERS[name]
    when_it_runs(tmp_path, trainer.checkpoint, kill_second_process)
    with pytest.raises(ProcessError, match=r"process 1 \(of 0 to 1\) ended with SIGKILL.*The last checkpoint is kept"):
        trainer.train(tmp_path, 2)
    (checkpoint,) = tmp_path.glob(f"work/*/{trainer.checkpoint}")
    first = load_torch(checkpoint)[trainer.clock]
    when_it_runs(tmp_path, trainer.checkpoint, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with caplog.at_level(logging.INFO, logger="d2rnet"), pytest.raises(SystemExit) as stopped:
        trainer.train(tmp_path, 2)
    assert stopped.value.code == 143
    second = load_torch(checkpoint)[trainer.clock]
    assert trainer.resumes.format(first) in caplog.text
    assert trainer.stops.format(second) in caplog.text
    assert second > first
    when_it_runs(tmp_path, trainer.checkpoint, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(SystemExit):
        trainer.train(tmp_path, 1)
    assert load_torch(checkpoint)[trainer.clock] > second
