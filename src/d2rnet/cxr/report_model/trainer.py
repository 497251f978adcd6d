"""train_report_model: from annotation.json and a vocabulary to a model folder; resumes by itself.

Reads: annotation.json (training and validation split; the test split is never looked at), vocabulary.json, radiographs.
Writes: model folder (report/model_files.py), metrics.jsonl, run.json; checkpoints in the work folder
(training/record.py).
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d2rnet.cxr.report_model.alignment import Alignment, pretrained_files
from d2rnet.cxr.report_model.backbone_weights import backbone_facts, backbone_inputs, start_backbone
from d2rnet.cxr.report_model.card import REPORT_CARD
from d2rnet.cxr.report_model.context import EntryContexts, check_context
from d2rnet.cxr.report_model.dataset import Entry, ReportDataset, crop_arguments, image_sources
from d2rnet.cxr.report_model.front_end import facts_of
from d2rnet.cxr.report_model.image_cache import ImageCache
from d2rnet.cxr.report_model.lesion_loss import LesionLoss, classes_of_reports
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.pointer import Pointer
from d2rnet.cxr.report_model.settings import (
    AlignmentSettings,
    D2RNetModelSettings,
    D2RNetTrainingSettings,
    TrainReportModelSettings,
)
from d2rnet.cxr.report_model.side_words import SideWords
from d2rnet.evaluation.labeller import Named
from d2rnet.files.hashes import ManyFiles
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mentions import named_classes
from d2rnet.report.annotation_file import load_annotation
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.fit import fit_reports
from d2rnet.report.rewards import Reward, make_reward, rewarded
from d2rnet.report.settings import ReportRuntime
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.report.training_files import check_protocol, check_report_batch, export_model, splits_with_words
from d2rnet.report.training_task import report_task
from d2rnet.runs.cards import write_card
from d2rnet.runs.code_parts import PARTS_KEY, code_parts
from d2rnet.runs.device import device_words, resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import WORK_KEY, open_work_dir
from d2rnet.settings import where_absent
from d2rnet.training.processes import check_processes, device_of_process, run_processes

log = logging.getLogger(__name__)


def train_report_model(
    *,
    annotation: Path,
    vocabulary: Path,
    image_root: Path,
    work: Path,
    output: Path,
    device: str,
    settings: TrainReportModelSettings,
    detector: Path | None = None,
    image_cache: Path | None = None,
    processes: int = 1,
    runtime: ReportRuntime = ReportRuntime(),
) -> None:
    """Train D2R-Net.

    Args:
        annotation: annotation.json.
        vocabulary: vocabulary.json of build_vocabulary.
        image_root: folder that ``image_path`` is relative to.
        work: folder of checkpoints; the same settings and inputs resume there.
        output: model folder to write.
        device: auto, cpu, cuda or cuda:N.
        settings: text, model and training.
        detector: model_final.pth of train-detector, where the settings have the global branch start from it.
        image_cache: folder of decoded images and crops, which trainings may share; None: ``images`` in ``work``.
        processes: how many share each step; on GPUs each takes one.
        runtime: loader processes, minutes between checkpoints.

    Raises:
        DatasetError: an empty split, unreadable images, boxes of an unknown class.
        ConfigError: no such device; vocabulary of another protocol; settings that do not go together.
        CheckpointError: weights that do not fit, or a damaged checkpoint.
        SystemExit: 143 after SIGTERM, once the state is saved.
    """
    torch_device = resolve_device(device)
    check_processes(processes, torch_device)
    log.info("training on %s", device_words(torch_device, processes))
    check_report_batch(processes, settings.training)
    tokens = load_vocabulary(vocabulary)
    check_protocol(tokens, settings.text, source=vocabulary)
    splits, counts = splits_with_words(load_annotation(annotation), annotation, protocol=tokens.protocol)
    check_context([entry for entries in splits.values() for entry in entries], settings.model, source=annotation)
    inputs: dict[str, str | Path | ManyFiles] = {"annotation": annotation, "vocabulary": vocabulary}
    inputs |= {"images": _images_of(splits, image_root), **_weights_of(settings, detector)}
    backbone_config = backbone_facts(settings.model, detector)
    with open_work_dir(work, settings=what_decides(settings), inputs=inputs) as folder:
        datasets = _make_datasets(splits, image_root, image_cache or work / "images", tokens, settings, runtime.loader_workers)
        reward = make_reward(settings.training, tokens, read=named_classes, entries=splits["train"])
        named = classes_of_reports(datasets["train"].token_ids, tokens) if settings.model.findings != "none" else None
        del splits  # the datasets hold what training needs of them, in a fifth of the memory
        job = (folder, datasets, tokens, settings, torch_device, runtime, detector, backbone_config, reward, named)
        run_processes(_fit, *job, processes=processes, device=torch_device)
        selected = export_model(folder, output, tokens, settings=settings, facts=facts_of(CATEGORY_NAMES, backbone_config))
        extra = {"selected": selected, PARTS_KEY: code_parts(folder), WORK_KEY: folder.name}
    write_run_record(
        output / "run.json",
        command="train-report-model",
        settings=settings,
        inputs=inputs,
        counts=counts,
        seeds={"training": settings.training.seed},
        extra={"device": str(torch_device), "processes": processes} | extra | rewarded(settings.training),
    )
    write_card(REPORT_CARD, output)


def _images_of(splits: Mapping[str, Sequence[Entry]], image_root: Path) -> ManyFiles:
    """Return all radiographs: annotation.json stays the same where one, or the root of all, is exchanged."""
    return ManyFiles(image_root, [path for entries in splits.values() for path, _ in image_sources(entries, image_root)])


def _weights_of(settings: TrainReportModelSettings, detector: Path | None) -> dict[str, str | Path]:
    """Return the files that weights start from, by their names in a run's record."""
    decoder = {"weights": settings.model.weights} if settings.model.weights else {}
    return decoder | backbone_inputs(settings.model, detector) | pretrained_files(settings.training.alignment)


def what_decides(settings: TrainReportModelSettings) -> TrainReportModelSettings:
    """Settings with what another value resumes the same run of as it first was.

    The chunk of the lesion crops: a batch of no more crops than a chunk gives the same to the bit; one of more, the same but
    for rounding. Section alignment where none of its losses is on, and how findings are taught and told where they are not.
    """
    chosen = settings.replaced(model={"crop_chunk": D2RNetModelSettings().crop_chunk})
    usual = D2RNetTrainingSettings()
    if chosen.model.findings == "none":
        scores = where_absent(D2RNetModelSettings)["finding_scores"]
        chosen = chosen.replaced(model={"finding_scores": scores}, training={"lesion_loss": usual.lesion_loss})
    if chosen.model.findings != "told":
        sides = where_absent(D2RNetModelSettings)["finding_sides"]
        chosen = chosen.replaced(model={"finding_sides": sides}, training={"finding_dropout": usual.finding_dropout})
    if chosen.training.alignment.is_on:
        return chosen
    idle = AlignmentSettings().replaced(**where_absent(AlignmentSettings))
    return chosen.replaced(training={"alignment": idle.to_json()})


def _make_datasets(
    splits: Mapping[str, Sequence[Entry]],
    image_root: Path,
    cache: Path,
    vocabulary: Vocabulary,
    settings: TrainReportModelSettings,
    workers: int,
) -> dict[str, ReportDataset]:
    """Decode the images of both splits into the cache, and make a data set of each split."""
    size_px = settings.model.input_size_px
    training = settings.training
    sources = {split: image_sources(entries, image_root) for split, entries in splits.items()}
    images = ImageCache(cache, [*sources["train"], *sources["val"]], size_px=size_px, workers=workers)
    entries = [*splits["train"], *splits["val"]]
    crops = crop_arguments(entries, image_root, settings.model, cache=cache, workers=workers)
    return {
        split: ReportDataset(
            splits[split],
            images,
            vocabulary=vocabulary,
            categories=CATEGORY_NAMES,
            size_px=size_px,
            max_tokens=training.max_report_tokens,
            first_row=0 if split == "train" else len(sources["train"]),
            context=EntryContexts(
                splits[split],
                settings.model,
                protocol=vocabulary.protocol,
                categories=CATEGORY_NAMES,
                flips=training.augmentation.horizontal_flip and split == "train",
            ),
            augmentation=training.augmentation if split == "train" else None,
            seed=training.seed,
            **crops,
        )
        for split in ("train", "val")
    }


def _fit(
    folder: Path,
    datasets: dict[str, ReportDataset],
    vocabulary: Vocabulary,
    settings: TrainReportModelSettings,
    device: torch.device,
    runtime: ReportRuntime,
    detector: Path | None,
    backbone_config: Mapping[str, Any] | None,
    reward: Reward | None,
    named: Named | None,
) -> None:
    """Make model and losses and train them; runs in each training process."""
    training = settings.training
    torch.manual_seed(training.seed)
    num_tokens, num_categories = len(vocabulary), len(CATEGORY_NAMES)
    model = D2RNet(settings.model, num_tokens=num_tokens, num_categories=num_categories, backbone_config=backbone_config)
    start_backbone(model.extractor.backbone, settings.model, detector)
    if settings.model.weights:
        start_from_r2gen(model.transformer, Path(settings.model.weights), settings.model)
    further = None
    if training.alignment.is_on:
        further = Alignment(training.alignment, settings.model, vocabulary, max_tokens=training.max_report_tokens)
    task = report_task(
        model,
        datasets["train"],
        training,
        device=device_of_process(device),
        further=further,
        looking=_pointer(settings, vocabulary),
        encoded_loss=_lesion_loss(model, settings, named),
        some_tokens=_side_words(settings, vocabulary),
        rates={"extractor.backbone.": training.backbone_learning_rate},
        loader_workers=runtime.loader_workers,
        reward=reward,
        lengths=datasets["train"].token_ids.lengths,
    )
    fit_reports(folder, task, datasets["val"], vocabulary, runtime, reward)


def _pointer(settings: TrainReportModelSettings, vocabulary: Vocabulary) -> Pointer | None:
    """Make the loss on attention where it is on."""
    weight = settings.training.pointer_weight
    return Pointer(weight, vocabulary, lesion_branch=settings.model.lesion_branch) if weight else None


def _lesion_loss(model: D2RNet, settings: TrainReportModelSettings, named: Named | None) -> LesionLoss | None:
    """Make the loss of the classes that reports name where the model looks for them."""
    if model.findings is None or named is None:
        return None
    training = settings.training
    return LesionLoss(model.findings, named, weight=training.lesion_loss, dropout=training.finding_dropout)


def _side_words(settings: TrainReportModelSettings, vocabulary: Vocabulary) -> SideWords | None:
    """Make the loss of the words that name a side where they count for more."""
    beyond = settings.training.side_weight - 1
    return SideWords(vocabulary, weight=beyond) if beyond else None
