"""One training run of benchmarks/semisupervised_gain.py, scored along the way; may be stopped and gone on with.

At every hundredth iteration student and EMA teacher draw boxes on the validation split. The weights of the best of each are
kept, and at the end these alone see the test images, and the teacher of the last iteration too, for comparison. What is left
of a cell is a small JSON file: curve, chosen iterations, AP50 on the test images and on resamples of them.

Until burn-in is over no arm looks at an unlabelled image, so cells that differ in the arm alone share it: the first to come to
its end leaves a copy of its state, and later ones go on from there.
"""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from paired_bootstrap import ap50_with_resamples

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.checkpoint import save_weights
from d2rnet.cxr.detector.config import STUDENT_NAME, TEACHER_NAME, write_cfg
from d2rnet.cxr.detector.evaluate import predict
from d2rnet.cxr.detector.hooks import networks_to_score
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.settings import DetectorRuntime, DetectorSettings, PredictionSettings, TrainDetectorSettings
from d2rnet.cxr.detector.trainer import CHECKPOINT_NAME, Job, checked_cfg, run
from d2rnet.cxr.detector.training_images import load_images
from d2rnet.cxr.detector.validation import score_on
from d2rnet.errors import ConfigError
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import fingerprint, sha256_file
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.runs.settings import LoaderRuntime

SUPERVISED, CONTROL, SEMI = "supervised_only", "weight_0", "unbiased_teacher"
ARMS = (SUPERVISED, CONTROL, SEMI)
NETWORKS = {"student": STUDENT_NAME, "ema_teacher": TEACHER_NAME}
LAST = "ema_teacher_at_the_end"
EVERY = 100
RESAMPLES, RESAMPLE_SEED = 200, 0
PROGRESS_NAME = "progress.json"
CPU = torch.device("cpu")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes:
        arm: one of ``ARMS``; ``weight_0`` sends the unlabelled images through the network, but no loss on them counts.
        percent: share of the labelled training images whose boxes are used.
        seed: of split, weights, order and augmentation.
        cohort: seed of the synthetic cohort.
        base_lr: learning rate after warm-up.
        iters: iterations.
    """

    arm: str
    percent: float
    seed: int
    cohort: int
    base_lr: float
    iters: int

    @property
    def name(self) -> str:
        """Name of its folder and file."""
        rate = f"{self.base_lr:g}".replace(".", "p")
        return f"{self.arm}_{self.percent:g}_percent_seed_{self.seed}_cohort_{self.cohort}_lr_{rate}_iters_{self.iters}"

    @property
    def burn_in_name(self) -> str:
        """Name of the folder with its state at the end of burn-in, which is that of the same cell of every arm."""
        return f"burn_in_of_{replace(self, arm='any').name}"

    def settings(self, detector: DetectorSettings) -> TrainDetectorSettings:
        """Return what train-detector reads for this cell."""
        changed: dict[str, Any] = {
            "seed": self.seed,
            "labelled_split_seed": self.seed,
            "labelled_percent": self.percent,
            "supervised_only": self.arm == SUPERVISED,
            "base_lr": self.base_lr,
            "total_iters": self.iters,
        }
        if self.arm == CONTROL:
            changed["unsupervised_weight"] = 0.0
        training = detector.training.replaced(**changed)
        return TrainDetectorSettings(model=detector.model, training=training, prediction=detector.prediction)


class ScoringHook(HookBase):
    """Scores student and, after burn-in, EMA teacher on validation images; keeps the weights of the best of each.

    It acts before the checkpoint of the same iteration is written: what a killed run scored later is scored again, the same.
    """

    def __init__(self, score: Callable[[UnbiasedTeacherRCNN], float], folder: Path, every: int = EVERY) -> None:
        """Keep weights and ``progress.json`` in ``folder``; ``score`` gives the AP50 of a network."""
        self._score = score
        self._folder = folder
        self._every = every
        self._curve: list[dict[str, Any]] = []
        self._seconds = 0.0
        self._since = 0.0

    def before_train(self) -> None:
        """Take up the curve of a stopped run as far as its checkpoint."""
        path = self._folder / PROGRESS_NAME
        if path.is_file():
            self._curve = [point for point in read_json(path)["curve"] if point["iteration"] <= self.trainer.start_iter]
        self._seconds = self._curve[-1]["cpu_seconds"] if self._curve else 0.0
        self._since = time.process_time()

    def after_step(self) -> None:
        """Score if it is time."""
        trainer = self.trainer
        done = trainer.iter + 1
        networks = networks_to_score(trainer, self._every)
        if not networks:
            return
        scores = {name: self._score(network) for name, network in networks.items()}
        trainer.student.train()
        for name, value in scores.items():
            if value > max((point[name] for point in self._curve if name in point), default=-1.0):
                save_weights(self._folder / NETWORKS[name], networks[name])
        rounded = {name: round(value, 6) for name, value in scores.items()}
        seconds = round(self._seconds + time.process_time() - self._since, 1)
        self._curve.append({"iteration": done, **rounded, "cpu_seconds": seconds})
        write_json(self._folder / PROGRESS_NAME, {"curve": self._curve})
        log.info("iteration %d: validation AP50 %s, %.0f s", done, rounded, seconds)


class BurnInCopyHook(HookBase):
    """Leaves a copy of a cell's files as they are at the end of burn-in."""

    def __init__(self, folder: Path, target: Path) -> None:
        """Copy the files of ``folder`` to ``target``, which appears whole or not at all."""
        self._folder = folder
        self._target = target

    def before_step(self) -> None:
        """Copy before the first iteration behind burn-in, once its checkpoint is written."""
        if self.trainer.iter != self.trainer.training.burn_in_iters or self._target.is_dir():
            return
        unfinished = self._target.with_name(f"{self._target.name}.{self._folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(self._folder, unfinished)
        try:
            unfinished.rename(self._target)
        except OSError:  # a cell of another arm was faster
            shutil.rmtree(unfinished)


def chosen(curve: list[dict[str, Any]], network: str) -> dict[str, Any]:
    """Point of the curve where a network is best on the validation images, the first of equals."""
    return max((point for point in curve if network in point), key=lambda point: point[network])


def train_cell(cell: Cell, data: Path, detector: DetectorSettings, kept: Path) -> dict[str, Any]:
    """Train and score a cell, or what is left of it; return what its file holds.

    Args:
        cell: which one.
        data: folder of its cohort, with ``resources``; the cell's own folder is made in it.
        detector: settings of all cells.
        kept: folder of the finished cells' files.

    Raises:
        ConfigError: the cell's file was made with other settings.
    """
    settings = cell.settings(detector)
    identity = fingerprint(settings.to_json())
    target = kept / f"{cell.name}.json"
    if target.is_file():
        done = read_json(target)
        if done["settings"] != identity:
            raise ConfigError(f"{target}: made with other settings than those of today; remove it, or give another --results.")
        return done
    folder = data / "cells" / cell.name
    burnt_in = data / "cells" / cell.burn_in_name
    folder.mkdir(parents=True, exist_ok=True)
    if burnt_in.is_dir() and not (folder / CHECKPOINT_NAME).is_file():
        shutil.copytree(burnt_in, folder, dirs_exist_ok=True)
    labelled = data / "resources" / "cxr" / "labelled"
    coco = {f"labelled_{split}": labelled / f"{split}.json" for split in ("train", "val", "test")}
    coco["unlabelled"] = data / "resources" / "cxr" / "unlabelled.json"
    images, numbers, _ = load_images(coco, settings.training)
    _, cfg = checked_cfg(settings, CPU.type, 1)
    runtime = DetectorRuntime(log_every_iters=EVERY, checkpoint_every_iters=EVERY)

    def score(network: UnbiasedTeacherRCNN) -> float:
        return float(score_on(images.validation, cfg, detector.prediction, runtime, network)["AP50"])

    trainer, counts = run(
        Job(folder, folder, images, cfg, settings, runtime, CPU),
        [ScoringHook(score, folder), BurnInCopyHook(folder, burnt_in)],
    )
    write_cfg(folder, cfg)
    save_weights(folder / f"{LAST}.pth", trainer.ema_teacher.model)
    curve = read_json(folder / PROGRESS_NAME)["curve"]
    result = {
        **asdict(cell),
        "settings": identity,
        "commit": code_version()["commit"],
        "machine": hardware()["processor"],
        "data": {name: sha256_file(path) for name, path in coco.items()},
        "images": {**numbers, "labelled_used": counts["labelled_used"], "unlabelled_used": counts["unlabelled_used"]},
        "curve": curve,
        "test": test_scores(folder, coco["labelled_test"], curve, detector.prediction),
    }
    write_json(target, result, indent=None)
    return result


def test_scores(folder: Path, test: Path, curve: list[dict[str, Any]], prediction: PredictionSettings) -> dict[str, Any]:
    """Network -> iteration, AP50 on the test images, and on resamples of them that are the same for all cells."""
    records = load_records(test)
    iterations = {name: chosen(curve, name)["iteration"] for name in NETWORKS} | {LAST: curve[-1]["iteration"]}
    scores = {}
    for name, iteration in iterations.items():
        weights = NETWORKS.get(name, f"{LAST}.pth")
        results = predict(records, folder, weights, "cpu", prediction, LoaderRuntime())
        value, drawn = ap50_with_resamples(records, results, samples=RESAMPLES, seed=RESAMPLE_SEED)
        scores[name] = {"iteration": iteration, "ap50": round(value, 6), "resamples": [round(x, 4) for x in drawn.tolist()]}
    return scores
