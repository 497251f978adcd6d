"""A training run: inputs checked, state resumed or begun, iterations done, weights released.

Reads: COCO files of the convert rules. Writes: model_final.pth (EMA teacher), student_final.pth, burn_in.pth (the student when
the EMA teacher started), config.yaml, metrics.jsonl, labelled_split.json, run.json; checkpoint and TensorBoard events in the
work folder. With several processes all of them train and the first one writes.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from d2rnet.cxr.detector.card import DETECTOR_CARD
from d2rnet.cxr.detector.checkpoint import load_pretrained, save_weights
from d2rnet.cxr.detector.config import BURN_IN_NAME, STUDENT_NAME, TEACHER_NAME, build_cfg, write_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset, batch_loader
from d2rnet.cxr.detector.engine import UnbiasedTeacherTrainer
from d2rnet.cxr.detector.hooks import BurnInHook, CheckpointHook, MetricsHook, ProgressHook, StopSignalHook, ValidationHook
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import (
    DetectorRuntime,
    DetectorTrainingSettings,
    PredictionSettings,
    TrainDetectorSettings,
)
from d2rnet.cxr.detector.streams import ImageStore
from d2rnet.cxr.detector.training_images import TrainingImages, boxes_per_image, load_images, write_split
from d2rnet.cxr.detector.validation import score_on
from d2rnet.errors import ConfigError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.hashes import ManyFiles
from d2rnet.files.torch_files import load_torch, resuming_from
from d2rnet.runs.cards import write_card
from d2rnet.runs.code_parts import PARTS_KEY, code_parts, note_code
from d2rnet.runs.device import device_words, resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.signals import leaving_at_stop_signals
from d2rnet.runs.workdir import WORK_KEY, open_work_dir
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.history import HISTORY_NAME
from d2rnet.training.processes import check_processes, device_of_process, run_processes

log = logging.getLogger(__name__)
CHECKPOINT_NAME = "checkpoint.pth"
SPLIT_NAME = "labelled_split.json"


@leaving_at_stop_signals()
def train_detector(
    *,
    labelled_train: Path,
    labelled_val: Path,
    labelled_test: Path,
    unlabelled: Path,
    work: Path,
    output: Path,
    device: str,
    settings: TrainDetectorSettings,
    runtime: DetectorRuntime = DetectorRuntime(),
    processes: int = 1,
) -> None:
    """Train student and EMA teacher; resumes from the last checkpoint of the same settings and inputs.

    Args:
        labelled_train: COCO json to train on.
        labelled_val: COCO json of the validation split; scored now and then, never trained on.
        labelled_test: COCO json of the test split; only its ids are read, to prove that none is trained on.
        unlabelled: COCO json of images without boxes; only those of split ``train`` are used.
        work: folder of the stage's work folders.
        output: folder for the results.
        device: auto, cpu, cuda or cuda:N.
        settings: the network and its training.
        runtime: how often to log, save and score, and how images are loaded; a run may be resumed with another.
        processes: how many share each batch; on GPUs each has its own. Any number may resume what another began.

    Raises:
        ConfigError: settings that do not fit each other or the number of processes, or no such device.
        DatasetError: bad COCO files or images, or an image in two splits.
        CheckpointError: pretrained weights that do not fit.
        DivergenceError: a loss is no longer finite.
        ProcessError: one of several processes died.
        SystemExit: status 143 after SIGTERM or SIGUSR1; a checkpoint of the iterations done has been written.
    """
    training = settings.training
    target, cfg = checked_cfg(settings, device, processes)
    coco = {
        "labelled_train": labelled_train,
        "labelled_val": labelled_val,
        "labelled_test": labelled_test,
        "unlabelled": unlabelled,
    }
    images, numbers, files = load_images(coco, training)
    inputs: dict[str, Path | ManyFiles] = {**coco, "images": files}
    if settings.model.weights:
        inputs["weights"] = Path(settings.model.weights)
    with open_work_dir(work, settings=what_decides(settings), inputs=inputs) as folder:
        write_split(folder / SPLIT_NAME, images.labelled, training)
        job = Job(folder, output, images, cfg, settings, runtime, target)
        counts = run_processes(train_and_export, job, processes=processes, device=target)
    facts = {"iterations": training.total_iters, "device": str(target), "processes": processes}
    write_run_record(
        output / "run.json",
        command="train-detector",
        settings=settings,
        inputs=inputs,
        counts={**counts, **numbers},
        seeds={"training": training.seed, "labelled_split": training.labelled_split_seed},
        extra=facts | {PARTS_KEY: code_parts(folder), WORK_KEY: folder.name},
    )
    write_card(DETECTOR_CARD, output)


def what_decides(settings: TrainDetectorSettings) -> TrainDetectorSettings:
    """Settings with those of prediction that change no weight set to their defaults: another of them resumes the same run.

    Non-maximum suppression and the greatest number of boxes are the EMA teacher's too, when it draws pseudo boxes. A box below
    the score floor would be no pseudo box, nor suppress one; batch and precision are those of the validation.
    """
    plain = PredictionSettings()
    neutral = {name: getattr(plain, name) for name in ("batch_images", "score_floor", "amp")}
    return settings.replaced(prediction=neutral)


def checked_cfg(settings: TrainDetectorSettings, name: str, processes: int) -> tuple[torch.device, CfgNode]:
    """Return the device of that name, and the detectron2 configuration of a run that can be done with these settings on it.

    Raises:
        ConfigError: settings that do not fit each other, the device or the number of processes.
    """
    device = resolve_device(name)
    check_processes(processes, device)
    log.info("training on %s", device_words(device, processes))
    cfg = build_cfg(settings)
    cfg.MODEL.DEVICE = str(device)
    check_schedule(settings.training)
    check_batches(processes, settings.training)
    if settings.model.norm == "SyncBN" and device.type == "cpu":
        raise ConfigError("cxr.detector.model.norm: SyncBN works on GPUs only; expected BN or GN on a CPU.")
    return device, cfg


def check_batches(processes: int, training: DetectorTrainingSettings) -> None:
    """Refuse batches that cannot be shared equally by the processes and their micro-batches.

    Raises:
        ConfigError: names the setting.
    """
    parts = processes * training.accumulation_steps
    batches = {"labelled_batch": training.labelled_batch}
    if not training.supervised_only:
        batches["unlabelled_batch"] = training.unlabelled_batch
    for name, size in batches.items():
        if size % parts:
            raise ConfigError(
                f"cxr.detector.training.{name}: {size} images are not divisible by {parts} ({processes} process(es) x "
                f"accumulation_steps {training.accumulation_steps}); expected a multiple, the same for every process."
            )


@dataclass(frozen=True)
class Job:
    """What every process of a run needs to know.

    Attributes:
        folder: work folder.
        output: folder for the results.
        images: labelled, unlabelled and validation records.
        cfg: detectron2 configuration.
        settings: the network and its training.
        runtime: how often to log, save and score, and how images are loaded.
        device: where to compute.
    """

    folder: Path
    output: Path
    images: TrainingImages
    cfg: CfgNode
    settings: TrainDetectorSettings
    runtime: DetectorRuntime
    device: torch.device


def train_and_export(job: Job) -> dict[str, Any]:
    """Do one process's part of a run; the first process writes the results.

    Returns:
        Counts for run.json.
    """
    trainer, counts = run(job)
    if process_rank() == 0:
        export(job, trainer)
    return counts


def export(job: Job, trainer: UnbiasedTeacherTrainer) -> None:
    """Write the weights, the configuration (device cpu, so that it loads anywhere) and the history of a finished run."""
    save_weights(job.output / TEACHER_NAME, trainer.ema_teacher.model)
    save_weights(job.output / STUDENT_NAME, trainer.student)
    for name in (BURN_IN_NAME, HISTORY_NAME, SPLIT_NAME):
        with atomic_path(job.output / name) as temporary:
            shutil.copyfile(job.folder / name, temporary)
    cfg = job.cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    write_cfg(job.output, cfg)


def check_schedule(training: DetectorTrainingSettings) -> None:
    """Refuse a schedule that leaves a stage out and warn about a doubtful one.

    Raises:
        ConfigError: burn-in takes all iterations.
    """
    burn_in = training.burn_in_iters
    total = training.total_iters
    if burn_in >= total:
        raise ConfigError(
            f"cxr.detector.training: burn_in_iters {burn_in} is not below total_iters {total}; there would be no EMA teacher."
        )
    if training.lr_schedule == "steps" and burn_in in training.lr_step_iters:
        log.warning(
            "cxr.detector.training.lr_step_iters: the learning rate steps down at iteration %d, just where the unlabelled "
            "loss starts (as in D2R-Net's released configuration); the student then learns slowly from pseudo boxes.",
            burn_in,
        )


def run(job: Job, observers: Sequence[HookBase] = ()) -> tuple[UnbiasedTeacherTrainer, dict[str, Any]]:
    """Do all iterations that the work folder's checkpoint has not done yet.

    Args:
        job: what to do.
        observers: further hooks, which act before the others.

    Returns:
        The trainer after the last iteration, and counts for run.json.
    """
    model_settings = job.settings.model
    training = job.settings.training
    cv2.setNumThreads(0)
    torch.manual_seed(training.seed)
    device = device_of_process(job.device)
    cfg = job.cfg.clone()
    cfg.MODEL.DEVICE = str(device)
    student = build_network(cfg)
    streams = (job.images.labelled, job.images.unlabelled)
    counts: dict[str, Any] = {"labelled_used": len(streams[0]), "unlabelled_used": len(streams[1])}
    checkpoint = job.folder / CHECKPOINT_NAME
    state = load_torch(checkpoint) if checkpoint.is_file() else None
    if model_settings.weights:
        counts["pretrained"] = load_pretrained(Path(model_settings.weights), student).counts()
    with resuming_from(checkpoint):
        start = int(state["iterations_done"]) if state else 0
    if process_rank() == 0:
        note_code(job.folder, start, "iteration")
    store = ImageStore(streams, job.runtime.cache_images_mb)
    dataset = IterationDataset(*streams, store, model_settings, training, rank=process_rank(), processes=num_processes())
    loader = batch_loader(dataset, start, training.total_iters, job.runtime.loader_workers)
    batches: Iterator[Batch] = iter(loader)
    trainer = UnbiasedTeacherTrainer(student, training, batches, device, boxes_per_image(streams[0]))
    if state:
        with resuming_from(checkpoint):
            trainer.load_state(state)
        log.info("resuming after %d of %d iterations", start, training.total_iters)
    trainer.register_hooks([*observers, *hooks_of(job, cfg, state)])
    # It logs every exception with its traceback; the command line says what the user needs to know.
    logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL + 1)
    trainer.train(start, training.total_iters)
    return trainer, counts


def hooks_of(job: Job, cfg: CfgNode, state: dict[str, Any] | None) -> list[HookBase]:
    """Hooks of this process in the order in which they act (only the first writes); ``state``: what the run resumes from."""
    metrics = MetricsHook(job.folder, job.runtime.log_every_iters)
    if state:
        with resuming_from(job.folder / CHECKPOINT_NAME):
            metrics.load_state(state["metrics"])
    checkpoints = CheckpointHook(job.folder / CHECKPOINT_NAME, job.runtime.checkpoint_every_iters, metrics)
    validation: list[HookBase] = []
    if job.runtime.validate_every_iters and job.images.validation:
        score = partial(score_on, job.images.validation, cfg, job.settings.prediction, job.runtime)
        validation = [ValidationHook(score, metrics, job.runtime.validate_every_iters)]
    if process_rank() > 0:
        return [*validation, StopSignalHook(None)]
    burn_in = BurnInHook(job.folder / BURN_IN_NAME)
    return [burn_in, ProgressHook(), metrics, *validation, checkpoints, StopSignalHook(checkpoints)]
