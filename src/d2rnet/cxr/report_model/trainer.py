"""train_report_model: from annotation.json and a vocabulary to a model folder; resumes by itself.

Reads: annotation.json (training and validation split; the test split is never looked at), vocabulary.json, radiographs.
Writes: model folder (model_files.py), metrics.jsonl, run.json; checkpoints in the work folder (training_record.py).
"""

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.card import REPORT_CARD
from d2rnet.cxr.report_model.dataset import Entry, ReportDataset, crop_arguments, image_sources
from d2rnet.cxr.report_model.image_cache import ImageCache
from d2rnet.cxr.report_model.model import ReportModel
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.hashes import ManyFiles
from d2rnet.files.torch_files import load_torch, resuming_from
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import load_annotation
from d2rnet.report.model_files import save_model
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.report.text_encoder import encoder_files
from d2rnet.report.training_task import ReportTask, make_loader
from d2rnet.report.validation import validate_model
from d2rnet.runs.cards import write_card
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import open_work_dir
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.processes import check_processes, run_processes
from d2rnet.training.record import BEST, HISTORY, LAST, TrainingRecord, stop_requests

log = logging.getLogger(__name__)
SECTIONS = ("text", "model", "training")
MACHINE_KEYS = ("workers", "checkpoint_minutes")  # settings that do not change the result


def train_report_model(
    *,
    annotation: Path,
    vocabulary: Path,
    image_root: Path,
    work: Path,
    output: Path,
    device: str,
    settings: dict[str, Any],
    processes: int = 1,
) -> None:
    """Train D2R-Net.

    Args:
        annotation: annotation.json.
        vocabulary: vocabulary.json of build_vocabulary.
        image_root: folder that ``image_path`` is relative to.
        work: folder of checkpoints and decoded images; the same settings and inputs resume there.
        output: model folder to write.
        device: auto, cpu, cuda or cuda:N.
        settings: section ``report``; its part ``generation`` is not used.
        processes: how many share each step; on GPUs each takes one.

    Raises:
        DatasetError: an empty split, unreadable images, boxes of an unknown class.
        ConfigError: no such device; vocabulary of another protocol; settings that do not go together.
        CheckpointError: weights that do not fit, or a damaged checkpoint.
        SystemExit: 143 after SIGTERM, once the state is saved.
    """
    torch_device = resolve_device(device)
    settings = {section: settings[section] for section in SECTIONS}
    check_processes(processes, torch_device)
    batch_size = settings["training"]["batch_size"]
    if processes > batch_size:
        raise ConfigError(f"--processes {processes}: expected 1 to cxr.report.training.batch_size ({batch_size}).")
    tokens = load_vocabulary(vocabulary)
    check_protocol(tokens, settings["text"], source=vocabulary)
    splits, counts = _read_splits(annotation, tokens.protocol)
    training = {key: value for key, value in settings["training"].items() if key not in MACHINE_KEYS}
    # annotation.json stays the same where a radiograph, or the root of all, is exchanged.
    sources = [source for entries in splits.values() for source in image_sources(entries, image_root)]
    images = ManyFiles(image_root, [path for path, _ in sources])
    inputs: dict[str, str | Path | ManyFiles] = {"annotation": annotation, "vocabulary": vocabulary, "images": images}
    if settings["model"]["backbone_weights"]:
        inputs["backbone_weights"] = settings["model"]["backbone_weights"]
    inputs |= encoder_files(settings["training"]["alignment"])
    with open_work_dir(work, settings={**settings, "training": training}, inputs=inputs) as folder:
        datasets = _make_datasets(splits, image_root, work / "images", tokens, settings)
        del splits  # the datasets hold what training needs of them, in a fifth of the memory
        run_processes(_fit, folder, datasets, tokens, settings, torch_device, processes=processes, device=torch_device)
        selected = _export(folder, output, tokens, settings)
    write_run_record(
        output / "run.json",
        command="train-report-model",
        settings=settings,
        inputs=inputs,
        counts=counts,
        seeds={"training": settings["training"]["seed"]},
        extra={"device": str(torch_device), "processes": processes, "selected": selected},
    )
    write_card(REPORT_CARD, output)


def check_protocol(vocabulary: Vocabulary, text: dict[str, Any], *, source: Path) -> None:
    """Compare a vocabulary with section ``cxr.report.text``.

    Raises:
        ConfigError: they differ in protocol, section or least count.
    """
    for key in ("protocol", "section", "min_token_count"):
        if getattr(vocabulary, key) != text[key]:
            raise ConfigError(
                f"{source}: built with {key} {getattr(vocabulary, key)!r}, but cxr.report.text.{key} is {text[key]!r}. "
                "Build the vocabulary again, or set cxr.report.text as it was."
            )


def _read_splits(annotation: Path, protocol: str) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """Read training and validation split without reports that hold no word; count those."""
    content = load_annotation(annotation)
    splits: dict[str, list[Entry]] = {}
    counts = {}
    for split in ("train", "val"):
        splits[split] = [entry for entry in content[split] if clean_report(entry["report"], protocol)]
        counts[split], counts[f"{split}_without_words"] = len(splits[split]), len(content[split]) - len(splits[split])
        if not splits[split]:
            raise DatasetError(f"{annotation}: no report with words in split '{split}'; expected at least one entry.")
        if counts[f"{split}_without_words"]:
            log.warning("%d %s reports hold no word and are left out", counts[f"{split}_without_words"], split)
    return splits, counts


def _make_datasets(
    splits: dict[str, list[Entry]], image_root: Path, cache: Path, vocabulary: Vocabulary, settings: dict[str, Any]
) -> dict[str, ReportDataset]:
    size_px, training = settings["model"]["input_size_px"], settings["training"]
    sources = {split: image_sources(entries, image_root) for split, entries in splits.items()}
    images = ImageCache(cache, [*sources["train"], *sources["val"]], size_px=size_px, workers=training["workers"])
    crops = crop_arguments(
        [*splits["train"], *splits["val"]], image_root, settings["model"], cache=cache, workers=training["workers"]
    )
    return {
        split: ReportDataset(
            splits[split],
            images,
            vocabulary=vocabulary,
            categories=CATEGORY_NAMES,
            size_px=size_px,
            max_tokens=training["max_report_tokens"],
            first_row=0 if split == "train" else len(sources["train"]),
            mirrored_reports=split == "train" and training["augmentation"]["horizontal_flip"],
            **crops,
        )
        for split in ("train", "val")
    }


def _fit(
    folder: Path, datasets: dict[str, ReportDataset], vocabulary: Vocabulary, settings: dict[str, Any], device: torch.device
) -> None:
    """Train from the beginning or from the last checkpoint to the end; runs in each training process."""
    training = settings["training"]
    torch.manual_seed(training["seed"])
    model = ReportModel(settings["model"], num_tokens=len(vocabulary), num_categories=len(CATEGORY_NAMES))
    if settings["model"]["backbone_weights"]:
        model.extractor.load_backbone(settings["model"]["backbone_weights"])
    aligned = not training["alignment"]["local"] == training["alignment"]["global"] == "none"
    alignment = Alignment(training["alignment"], settings["model"], vocabulary) if aligned else None
    task = ReportTask(model, datasets["train"], training, alignment)
    order = list(range(len(datasets["val"])))
    batches = [order[start : start + training["batch_size"]] for start in order[:: training["batch_size"]]]

    def validate() -> dict[str, float]:
        own = batches[process_rank() :: num_processes()]
        loader = make_loader(datasets["val"], own, workers=training["workers"])
        return validate_model(
            model,
            (batch.to(task.device) for batch in loader),
            vocabulary=vocabulary,
            max_tokens=training["max_report_tokens"],
            write_reports=training["selection"] == "bleu_4",
        )

    with stop_requests() as stop:
        record = TrainingRecord(folder, settings=training, validate=validate, stop=stop)
        if (folder / LAST).is_file():
            state = load_torch(folder / LAST)
            with resuming_from(folder / LAST):
                task.resume(state)
                record.resume(state)
            log.info("resuming at step %d of %d", task.finished_steps, task.total_steps)
        record.cut_history(task.finished_steps)  # a run may have been killed before its checkpoint
        if task.finished_steps < task.total_steps:
            _make_trainer(folder, task, record, device).fit(task)


def _make_trainer(folder: Path, task: ReportTask, record: TrainingRecord, device: torch.device) -> lightning.Trainer:
    start, processes = task.finished_steps, num_processes()
    loggers = [
        CSVLogger(folder, name="csv", version=f"from_step_{start}"),
        TensorBoardLogger(folder, name="tensorboard", version=""),
    ]
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and processes == 1 else processes,
        # A batch without a box leaves the lesion branch without a gradient.
        strategy=DDPStrategy(find_unused_parameters=True) if processes > 1 else "auto",
        use_distributed_sampler=False,
        precision=task.settings["precision"],
        max_epochs=task.settings["epochs"] - task.finished_epochs,
        gradient_clip_val=task.settings["gradient_clip"],
        gradient_clip_algorithm=task.settings["gradient_clip_kind"],
        reload_dataloaders_every_n_epochs=1,
        callbacks=[record],
        logger=loggers,
        log_every_n_steps=1,
        # Checkpoints, progress and validation are TrainingRecord's; SLURM's own requeueing would fight with Snakemake's.
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
    )


def _export(folder: Path, output: Path, vocabulary: Vocabulary, settings: dict[str, Any]) -> dict[str, Any]:
    """Write the results; return the line of the history whose weights they are."""
    best = load_torch(folder / BEST)
    save_model(
        output,
        best["model"],
        settings=settings,
        vocabulary=vocabulary,
        categories=CATEGORY_NAMES,
        selected=best["selected"],
    )
    with atomic_path(output / HISTORY) as temporary:
        shutil.copyfile(folder / HISTORY, temporary)
    chosen: Sequence[str] = [f"{key} {value:.4g}" for key, value in best["selected"].items() if key.startswith("val")]
    log.info("selected epoch %d (%s): %s", best["selected"]["epoch"], ", ".join(chosen), output)
    return dict(best["selected"])
