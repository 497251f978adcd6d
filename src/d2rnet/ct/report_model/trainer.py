"""train_ct_report_model: from ct_annotation.json, features of stage 1 and a vocabulary to a model folder; resumes by itself.

Reads: ct_annotation.json (training and validation split; the test split is never looked at), vocabulary.json, features of
extract-ct-features. Writes: model folder (report/model_files.py), metrics.jsonl, run.json; checkpoints in the work folder
(training/record.py). Several volumes of a study are several entries of one split.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.evaluation.abnormalities import named_abnormalities
from d2rnet.ct.report_model.abnormality_losses import Abnormalities, read_abnormalities
from d2rnet.ct.report_model.card import CT_REPORT_CARD
from d2rnet.ct.report_model.dataset import CtReportDataset, StoredFeatures
from d2rnet.ct.report_model.features import INDEX, FeatureFacts, load_facts
from d2rnet.ct.report_model.front_end import BASE, facts_of, tokens_of
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.report_model.settings import CtReportModelSettings, TrainCtReportModelSettings
from d2rnet.files.hashes import HashedFile
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.fit import fit_reports
from d2rnet.report.rewards import Reward, make_reward, rewarded
from d2rnet.report.settings import ReportRuntime
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.report.training_files import check_protocol, check_report_batch, export_model, splits_with_words
from d2rnet.report.training_task import report_task
from d2rnet.runs.cards import write_card
from d2rnet.runs.code_parts import PARTS_KEY, code_parts
from d2rnet.runs.device import device_words, resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import open_work_dir
from d2rnet.training.processes import check_processes, device_of_process, run_processes

log = logging.getLogger(__name__)


def train_ct_report_model(
    *,
    annotation: Path,
    vocabulary: Path,
    features: Path,
    work: Path,
    output: Path,
    device: str,
    settings: TrainCtReportModelSettings,
    processes: int = 1,
    runtime: ReportRuntime = ReportRuntime(),
) -> None:
    """Train the report model; stage 1 is frozen in its features.

    Args:
        annotation: ct_annotation.json.
        vocabulary: vocabulary.json of build_ct_vocabulary.
        features: folder of extract-ct-features.
        work: folder of checkpoints; the same settings and inputs resume there.
        output: model folder to write.
        device: auto, cpu, cuda or cuda:N.
        settings: text, model and training.
        processes: how many share each step; on GPUs each takes one.
        runtime: loader processes, minutes between checkpoints.

    Raises:
        DatasetError: an empty split, or features that are missing, damaged or of another extraction.
        ConfigError: no such device; vocabulary of another protocol; a selection that the features do not hold; peft missing.
        FileNotFoundError: no language model where the settings name one.
        CheckpointError: weights that do not fit, or a damaged checkpoint.
        SystemExit: 143 after SIGTERM, once the state is saved.
    """
    torch_device = resolve_device(device)
    check_processes(processes, torch_device)
    log.info("training on %s", device_words(torch_device, processes))
    check_report_batch(processes, settings.training)
    words = load_vocabulary(vocabulary)
    check_protocol(words, settings.text, source=vocabulary)
    tokens = tokens_of(words, settings.model.llm)
    facts = load_facts(features)
    folder_facts = facts_of(facts, settings.model.llm)
    splits, counts = splits_with_words(load_ct_annotation(annotation), annotation, protocol=words.protocol)
    options: dict[str, Any] = {"facts": facts, "settings": settings.model, "max_tokens": settings.training.max_report_tokens}
    datasets = {
        split: CtReportDataset(entries, StoredFeatures(entries, features, facts), vocabulary=tokens, **options)
        for split, entries in splits.items()
    }
    inputs = _inputs(settings.model, folder_facts, annotation=annotation, vocabulary=vocabulary, features=features / INDEX)
    with open_work_dir(work, settings=settings, inputs=inputs) as folder:
        reward = make_reward(settings.training, words, read=named_abnormalities, entries=splits["train"])
        abnormalities = read_abnormalities(splits["train"], datasets["train"].token_ids, words, settings)
        job = (folder, datasets, abnormalities, words, tokens, settings, facts, torch_device, runtime, reward)
        run_processes(_fit, *job, processes=processes, device=torch_device)
        selected = export_model(folder, output, words, settings=settings, facts=folder_facts)
        extra = {"device": str(torch_device), "processes": processes, "selected": selected, PARTS_KEY: code_parts(folder)}
    write_run_record(
        output / "run.json",
        command="train-ct-report-model",
        settings=settings,
        inputs=inputs,
        counts=counts,
        seeds={"training": settings.training.seed},
        extra=extra | rewarded(settings.training),
    )
    write_card(CT_REPORT_CARD, output)


def _inputs(
    settings: CtReportModelSettings, facts: dict[str, Any], **files: Path | HashedFile
) -> dict[str, Path | HashedFile]:
    """Return files by name with the weights that a model starts from; of a language model its folder, with what names it."""
    if settings.weights:
        files["weights"] = Path(settings.weights)
    if settings.llm.weights:
        files[BASE] = HashedFile(Path(settings.llm.weights), facts[BASE])
    return files


def _fit(
    folder: Path,
    datasets: dict[str, CtReportDataset],
    abnormalities: Abnormalities,
    vocabulary: Vocabulary,
    tokens: ReportTokens,
    settings: TrainCtReportModelSettings,
    facts: FeatureFacts,
    device: torch.device,
    runtime: ReportRuntime,
    reward: Reward | None,
) -> None:
    """Make the model and train it; runs in each training process."""
    torch.manual_seed(settings.training.seed)
    model = CtReportModel(settings.model, num_tokens=len(vocabulary), facts=facts)
    if settings.model.weights:
        assert isinstance(model.transformer, MemoryTransformer)  # settings name one decoder
        start_from_r2gen(model.transformer, Path(settings.model.weights), settings.model)
    sizes = {"num_structures": len(facts.structures), "d_model": model.transformer.d_model}
    of_labels, of_words = abnormalities.losses(settings, **sizes)
    task = report_task(
        model,
        datasets["train"],
        settings.training,
        device=device_of_process(device),
        loader_workers=runtime.loader_workers,
        reward=reward,
        lengths=abnormalities.lengths,
        encoded_loss=of_labels,
        some_tokens=of_words,
    )
    fit_reports(folder, task, datasets["val"], tokens, runtime, reward)
