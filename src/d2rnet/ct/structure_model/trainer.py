"""train_structures: from ct_annotation.json and converted volumes to the model of stage 1; resumes by itself.

Reads: ct_annotation.json (training and validation split; the test split is never looked at), converted volumes.
Writes: model folder (``model.safetensors, text_tower.safetensors, vocabulary.json, config.yaml``), metrics.jsonl, run.json,
model_card.md; checkpoints in the work folder (training/record.py).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.structure_model.card import STRUCTURE_CARD
from d2rnet.ct.structure_model.dataset import StructureEntries, structure_texts
from d2rnet.ct.structure_model.model import StructureModel, facts_of
from d2rnet.ct.structure_model.objective import StructureContrast
from d2rnet.ct.structure_model.settings import StructureModelSettings, StructureTextSettings, TrainStructuresSettings
from d2rnet.ct.structure_model.text_tower import TEXT_TOWER, make_text_tower, text_tokens, tower_files
from d2rnet.ct.structure_model.validation import is_better, validate_structures
from d2rnet.ct.structures.table import SHIPPED, StructureTable, load_table
from d2rnet.errors import DatasetError
from d2rnet.files.hashes import ManyFiles
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.files.torch_files import load_torch
from d2rnet.report.annotation_file import Entry
from d2rnet.report.settings import ReportRuntime
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary, count_vocabulary
from d2rnet.report.training_files import check_batch, export_best
from d2rnet.runs.cards import write_card
from d2rnet.runs.code_parts import PARTS_KEY, code_parts
from d2rnet.runs.device import device_words, resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import open_work_dir
from d2rnet.training.fit import fit
from d2rnet.training.processes import check_processes, device_of_process, run_processes
from d2rnet.training.record import BEST
from d2rnet.training.task import TrainingTask

log = logging.getLogger(__name__)


def train_structures(
    *,
    annotation: Path,
    volumes: Path,
    work: Path,
    output: Path,
    device: str,
    settings: TrainStructuresSettings,
    processes: int = 1,
    runtime: ReportRuntime = ReportRuntime(),
) -> None:
    """Train stage 1.

    Args:
        annotation: ct_annotation.json.
        volumes: folder of convert-ct.
        work: folder of checkpoints; the same settings and inputs resume there.
        output: model folder to write.
        device: auto, cpu, cuda or cuda:N.
        settings: stage 1, the table of structures, and the grid of the volumes.
        processes: how many share each step; on GPUs each takes one.
        runtime: loader processes, minutes between checkpoints.

    Raises:
        DatasetError: an empty split, volumes of another grid, entries cut by another table.
        ConfigError: no such device; settings that do not go together.
        CheckpointError: weights that do not fit, or a damaged checkpoint.
        SystemExit: 143 after SIGTERM, once the state is saved.
    """
    own = settings.structure_model
    torch_device = resolve_device(device)
    check_processes(processes, torch_device)
    log.info("training on %s", device_words(torch_device, processes))
    check_batch(processes, own.training)
    table = load_table(settings.structures.table)
    splits = _read_splits(annotation, settings.data.conversion)
    vocabulary = _vocabulary(splits["train"], table, own.text, source=annotation)
    tokens = text_tokens(own.text, vocabulary)
    moved = {"max_shift": own.training.max_shift_voxels, "seed": own.training.seed}
    datasets = {
        split: StructureEntries(entries, volumes, tokens=tokens, table=table, text=own.text, **moved)
        for split, entries in splits.items()
    }
    arrays = ManyFiles(volumes, [volumes / entry["volume_path"] for entries in splits.values() for entry in entries])
    inputs: dict[str, str | Path | ManyFiles] = {"annotation": annotation, "volumes": arrays, **tower_files(own.text)}
    if settings.structures.table not in SHIPPED:
        inputs["table"] = Path(settings.structures.table)
    if own.model.encoder.weights:
        inputs["encoder_weights"] = Path(own.model.encoder.weights)
    with open_work_dir(work, settings=settings, inputs=inputs) as folder:
        job = (folder, datasets, vocabulary, settings, tuple(table.structures), torch_device, runtime)
        run_processes(_fit, *job, processes=processes, device=torch_device)
        selected = _export(folder, output, vocabulary, settings, tuple(table.structures))
        parts = code_parts(folder)
    write_run_record(
        output / "run.json",
        command="train-structures",
        settings=settings,
        inputs=inputs,
        counts={split: len(entries) for split, entries in splits.items()},
        seeds={"training": own.training.seed},
        extra={"device": str(torch_device), "processes": processes, "selected": selected, PARTS_KEY: parts},
    )
    write_card(STRUCTURE_CARD, output)


def _read_splits(annotation: Path, conversion: CtConversionSettings) -> dict[str, list[Entry]]:
    """Read training and validation split.

    Raises:
        DatasetError: a split is empty, or a volume is of another grid than the settings say.
    """
    content = load_ct_annotation(annotation)
    splits = {split: content[split] for split in ("train", "val")}
    for split, entries in splits.items():
        if not entries:
            raise DatasetError(f"{annotation}: no volume in split '{split}'; expected at least one.")
        check_shapes(entries, conversion, source=annotation)
    return splits


def check_shapes(entries: Sequence[Entry], conversion: CtConversionSettings, *, source: Path) -> None:
    """Refuse volumes of another grid.

    Raises:
        DatasetError: names the first.
    """
    wanted = list(conversion.shape_zyx)
    for entry in entries:
        if entry["shape_zyx"] != wanted:
            raise DatasetError(
                f"{source}: volume {entry['id']} has {entry['shape_zyx']} voxels (z, y, x); expected {wanted} "
                f"({conversion.place}.shape_zyx). Convert the volumes again, or set it as it was."
            )


def _vocabulary(entries: Sequence[Entry], table: StructureTable, text: StructureTextSettings, *, source: Path) -> Vocabulary:
    """Count the words of the training texts.

    Raises:
        DatasetError: there are none.
    """
    texts = [one for entry in entries for one in structure_texts(entry, table, text.missing) if one]
    vocabulary = count_vocabulary(texts, protocol=text.protocol, section=text.section, min_token_count=text.min_token_count)
    if len(vocabulary) == len(SPECIAL_TOKENS):
        raise DatasetError(
            f"{source}: no word of a structure occurs {text.min_token_count} times in the training reports. Lower "
            f"{text.place}.min_token_count, or look at the reports."
        )
    return vocabulary


def _fit(
    folder: Path,
    datasets: dict[str, StructureEntries],
    vocabulary: Vocabulary,
    settings: TrainStructuresSettings,
    structures: tuple[str, ...],
    device: torch.device,
    runtime: ReportRuntime,
) -> None:
    """Make what is trained and train it; runs in each training process."""
    own = settings.structure_model
    torch.manual_seed(own.training.seed)
    objective = make_objective(own, settings.data.conversion, vocabulary, structures)
    task = TrainingTask(
        objective,
        datasets["train"],
        own.training,
        device=device_of_process(device),
        loader_workers=runtime.loader_workers,
    )

    def validate() -> dict[str, float]:
        return validate_structures(
            objective,
            datasets["val"],
            device=task.device,
            batch_size=own.training.batch_size,
            loader_workers=runtime.loader_workers,
        )

    fit(folder, task, validate=validate, is_better=is_better, checkpoint_minutes=runtime.checkpoint_minutes)


def make_objective(
    settings: StructureModelSettings, conversion: CtConversionSettings, vocabulary: Vocabulary, structures: Sequence[str]
) -> StructureContrast:
    """Make model, text tower and queue at their beginning."""
    tower = make_text_tower(settings.text, vocabulary)
    model = StructureModel(
        settings.model, shape_zyx=conversion.shape_zyx, num_structures=len(structures), embed_dim=tower.width
    )
    return StructureContrast(model, tower, settings, num_structures=len(structures), window_hu=conversion.window_hu)


def _export(
    folder: Path, output: Path, vocabulary: Vocabulary, settings: TrainStructuresSettings, structures: Sequence[str]
) -> dict[str, Any]:
    """Write the results; return the line of the history whose weights they are."""
    best = load_torch(folder / BEST)
    save_safetensors(output / TEXT_TOWER, best["tower"], {"vocabulary_hash": vocabulary.hash})
    embed_dim = len(best["model"]["project.weight"])
    facts = facts_of(structures, settings.data.conversion, embed_dim)
    return export_best(best, folder, output, vocabulary, settings=settings.structure_model, facts=facts)
