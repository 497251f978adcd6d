"""A training run: inputs checked, state resumed or begun, iterations done, weights released.

Reads: COCO files of the convert rules. Writes: model_final.pth (EMA teacher), student_final.pth, burn_in.pth (the student when
the EMA teacher started), config.yaml, metrics.jsonl, labelled_split.json, run.json; checkpoint and TensorBoard events in the
work folder. With several processes all of them train and the first one writes.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from d2rnet.cxr.boxes.coco_scores import coco_scores
from d2rnet.cxr.boxes.records import Record, assert_disjoint, load_records
from d2rnet.cxr.detector.card import DETECTOR_CARD
from d2rnet.cxr.detector.checkpoint import load_pretrained, save_weights
from d2rnet.cxr.detector.config import BURN_IN_NAME, STUDENT_NAME, TEACHER_NAME, build_cfg, write_cfg
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset, batch_loader
from d2rnet.cxr.detector.engine import UnbiasedTeacherTrainer
from d2rnet.cxr.detector.hooks import BurnInHook, CheckpointHook, MetricsHook, ProgressHook, StopSignalHook, ValidationHook
from d2rnet.cxr.detector.predict import detect, make_batches
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import (
    DetectorModelSettings,
    DetectorRuntime,
    DetectorTrainingSettings,
    PredictionSettings,
    TrainDetectorSettings,
)
from d2rnet.cxr.detector.streams import ImageStore
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import ManyFiles
from d2rnet.files.torch_files import load_torch, resuming_from
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.runs.cards import write_card
from d2rnet.runs.code_parts import PARTS_KEY, code_parts, note_code
from d2rnet.runs.device import device_words, resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import open_work_dir
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.history import HISTORY_NAME
from d2rnet.training.processes import check_processes, device_of_process, run_processes

log = logging.getLogger(__name__)
CHECKPOINT_NAME = "checkpoint.pth"
SPLIT_NAME = "labelled_split.json"


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
        SystemExit: status 143 after SIGTERM or SIGUSR1; a checkpoint has been written.
    """
    target = resolve_device(device)
    training = settings.training
    cfg = checked_cfg(settings, target, processes)
    inputs = {
        "labelled_train": labelled_train,
        "labelled_val": labelled_val,
        "labelled_test": labelled_test,
        "unlabelled": unlabelled,
    }
    data = {name: load_records(path, split="train" if name == "unlabelled" else None) for name, path in inputs.items()}
    assert_disjoint(data)
    labelled, unlabelled_images = choose_labelled(data["labelled_train"], data["unlabelled"], training)
    if not unlabelled_images and not training.supervised_only:
        raise DatasetError(f"{unlabelled}: no image of split train; expected some, or training.supervised_only true.")
    deciding = {**inputs, **weights_and_images(settings.model, data)}
    with open_work_dir(work, settings=settings, inputs=deciding) as folder:
        write_split(folder / SPLIT_NAME, labelled, training)
        streams = (labelled, [] if training.supervised_only else unlabelled_images)
        job = Job(folder, output, streams, data["labelled_val"], cfg, settings, runtime, target)
        counts = run_processes(train_and_export, job, processes=processes, device=target)
        parts = code_parts(folder)
    write_run_record(
        output / "run.json",
        command="train-detector",
        settings=settings,
        inputs=deciding,
        counts={**counts, **{name: len(records) for name, records in data.items()}},
        seeds={"training": training.seed, "labelled_split": training.labelled_split_seed},
        extra={"iterations": training.total_iters, "device": str(target), "processes": processes, PARTS_KEY: parts},
    )
    write_card(DETECTOR_CARD, output)


def weights_and_images(model: DetectorModelSettings, data: Mapping[str, Sequence[Record]]) -> dict[str, Path | ManyFiles]:
    """Return what decides a run beside the json files, which stay the same where an image is exchanged for one of its size.

    Args:
        model: section ``cxr.detector.model``.
        data: records by argument of :func:`train_detector`.
    """
    trained_on = [record.path for name in ("labelled_train", "unlabelled") for record in data[name]]
    images = ManyFiles(trained_on[0].parent if trained_on else Path(), trained_on)
    return {"images": images} | ({"weights": Path(model.weights)} if model.weights else {})


def checked_cfg(settings: TrainDetectorSettings, device: torch.device, processes: int) -> CfgNode:
    """Make the detectron2 configuration of a run that can be done with these settings on this device.

    Raises:
        ConfigError: settings that do not fit each other, the device or the number of processes.
    """
    check_processes(processes, device)
    log.info("training on %s", device_words(device, processes))
    cfg = build_cfg(settings)
    cfg.MODEL.DEVICE = str(device)
    check_schedule(settings.training)
    check_batches(processes, settings.training)
    if settings.model.norm == "SyncBN" and device.type == "cpu":
        raise ConfigError("cxr.detector.model.norm: SyncBN works on GPUs only; expected BN or GN on a CPU.")
    return cfg


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
        streams: labelled and unlabelled records.
        validation: records to score on.
        cfg: detectron2 configuration.
        settings: the network and its training.
        runtime: how often to log, save and score, and how images are loaded.
        device: where to compute.
    """

    folder: Path
    output: Path
    streams: tuple[Sequence[Record], Sequence[Record]]
    validation: Sequence[Record]
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


def choose_labelled(
    labelled: Sequence[Record], unlabelled: Sequence[Record], training: DetectorTrainingSettings
) -> tuple[list[Record], list[Record]]:
    """Keep the labels of ``labelled_percent`` of the images; the others join the unlabelled ones, without their boxes.

    Returns:
        Labelled and unlabelled records. The choice is a function of the image ids and ``labelled_split_seed``.
    """
    keep = max(1, round(len(labelled) * training.labelled_percent / 100))
    order = np.random.default_rng(training.labelled_split_seed).permutation(len(labelled))
    chosen = set(order[:keep].tolist())
    rest = [record for index, record in enumerate(labelled) if index not in chosen]
    return [record for index, record in enumerate(labelled) if index in chosen], [*rest, *unlabelled]


def write_split(path: Path, labelled: Sequence[Record], training: DetectorTrainingSettings) -> None:
    """Write which images were trained on with their boxes."""
    write_json(
        path,
        {
            "labelled_percent": training.labelled_percent,
            "labelled_split_seed": training.labelled_split_seed,
            "source_ids": [record.source_id for record in labelled],
        },
    )


def run(job: Job) -> tuple[UnbiasedTeacherTrainer, dict[str, Any]]:
    """Do all iterations that the work folder's checkpoint has not done yet.

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
    counts: dict[str, Any] = {"labelled_used": len(job.streams[0]), "unlabelled_used": len(job.streams[1])}
    checkpoint = job.folder / CHECKPOINT_NAME
    state = load_torch(checkpoint) if checkpoint.is_file() else None
    if model_settings.weights:
        counts["pretrained"] = load_pretrained(Path(model_settings.weights), student).counts()
    with resuming_from(checkpoint):
        start = int(state["iterations_done"]) if state else 0
    if process_rank() == 0:
        note_code(job.folder, start, "iteration")
    store = ImageStore([record for records in job.streams for record in records], job.runtime.cache_images_mb)
    dataset = IterationDataset(*job.streams, store, model_settings, training, rank=process_rank(), processes=num_processes())
    loader = batch_loader(dataset, start, training.total_iters, job.runtime.loader_workers)
    batches: Iterator[Batch] = iter(loader)
    trainer = UnbiasedTeacherTrainer(student, training, batches, device, boxes_per_image(job.streams[0]))
    if state:
        with resuming_from(checkpoint):
            trainer.load_state(state)
        log.info("resuming after %d of %d iterations", start, training.total_iters)
    trainer.register_hooks(hooks_of(job, cfg, state) if process_rank() == 0 else [StopSignalHook(None)])
    # It logs every exception with its traceback; the command line says what the user needs to know.
    logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL + 1)
    trainer.train(start, training.total_iters)
    return trainer, counts


def hooks_of(job: Job, cfg: CfgNode, state: dict[str, Any] | None) -> list[HookBase]:
    """Hooks of the process that writes, in the order in which they act; ``state`` is what the run resumes from."""
    metrics = MetricsHook(job.folder, job.runtime.log_every_iters)
    if state:
        with resuming_from(job.folder / CHECKPOINT_NAME):
            metrics.load_state(state["metrics"])
    checkpoints = CheckpointHook(job.folder / CHECKPOINT_NAME, job.runtime.checkpoint_every_iters, metrics)
    hooks = [BurnInHook(job.folder / BURN_IN_NAME), ProgressHook(), metrics, checkpoints, StopSignalHook(checkpoints)]
    if job.runtime.validate_every_iters and job.validation:
        score = partial(score_on, job.validation, cfg)
        hooks.insert(3, ValidationHook(score, metrics, job.runtime.validate_every_iters))
    return hooks


def boxes_per_image(records: Sequence[Record]) -> list[float]:
    """(C,) mean number of boxes of each class on an image, images without boxes included."""
    counts = Counter(category for record in records for category in record.classes.tolist())
    return [counts[index] / len(records) for index in range(len(CATEGORY_NAMES))]


def score_on(records: Sequence[Record], cfg: CfgNode, network: nn.Module) -> dict[str, Any]:
    """Score a network, put into evaluation mode, on records; see :func:`d2rnet.cxr.boxes.coco_scores.coco_scores`."""
    network.eval()
    prediction = PredictionSettings()
    batches = make_batches(records, cfg, prediction.batch_images)
    return coco_scores(records, [result for image in detect(network, cfg, batches, prediction) for result in image])
