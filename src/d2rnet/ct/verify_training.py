"""verify_ct_training: what both trainings of chest CT need, tried before anything costly runs, by the code that they will run.

Builds both networks on the CPU and loads the weights that they start from (of a language model shapes alone), compares
batches with the number of processes, the selection of stage 2 with the features that stage 1 will keep, and asks this machine
for the device.

Reads: weight files of the configuration. Writes: run.json.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.kept import check_kept
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.settings import CtSettings
from d2rnet.ct.structure_model.masks import find_masks
from d2rnet.ct.structure_model.text_tower import tower_files
from d2rnet.ct.structure_model.trainer import make_objective
from d2rnet.ct.structures.table import load_table
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.llm.base import base_identity
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.report.training_files import check_batch, check_report_batch
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import write_run_record
from d2rnet.training.processes import check_processes

SOME_WORDS = ["a text in place of a vocabulary that is not made yet; no weight file has the words"]


log = logging.getLogger(__name__)


def verify_ct_training(*, output: Path, device: str, processes: int, elsewhere: bool, settings: CtSettings) -> None:
    """Try what both trainings need.

    Args:
        output: folder for run.json.
        device: auto, cpu, cuda or cuda:N.
        processes: of a training.
        elsewhere: the trainings run on another machine, so this one's GPUs do not matter.
        settings: section ``ct``.

    Raises:
        ConfigError: lists everything that would end a training.
    """
    problems = list(training_problems(settings, device=None if elsewhere else device, processes=processes))
    if problems:
        listed = "\n  ".join(problems)
        raise ConfigError(f"{len(problems)} problem(s) that would end a training\n  {listed}")
    write_run_record(output / "run.json", command="verify-ct-training", settings=settings)
    log.info("verify-ct-training: nothing wrong with what the trainings need: weights, batches, selection")


def training_problems(settings: CtSettings, *, device: str | None, processes: int) -> Iterator[str]:
    """Yield what would end a training, each a message for people.

    Args:
        settings: section ``ct``.
        device: as the trainings get it; None if they run on another machine.
        processes: of a training.
    """
    checks: list[Callable[[], None]] = [
        lambda: check_batch(processes, settings.structure_model.training),
        lambda: check_report_batch(processes, settings.report.training),
        lambda: check_models(settings),
        lambda: check_masks(settings),
    ]
    if device is not None:
        checks.append(lambda: check_processes(processes, resolve_device(device)))
    for check in checks:
        try:
            check()
        except (D2RNetError, FileNotFoundError) as error:
            yield str(error)


def check_models(settings: CtSettings) -> None:
    """Build stage 1, then stage 2 on the features that it will give, and start them from the weights of the configuration.

    Raises:
        ConfigError: settings that do not fit each other, a selection that the features will not hold, or a package that a
            setting asks for is missing.
        CheckpointError: weights that do not fit.
        FileNotFoundError: weights are missing.
    """
    facts = _stage_one(settings)
    own = settings.report.model
    check_kept(own, facts)
    if own.llm.weights:
        base_identity(Path(own.llm.weights), place=f"{own.llm.place}.weights")
        with torch.device("meta"):  # a language model of many gigabytes is not read, its shapes are
            CtReportModel(own, num_tokens=len(SOME_WORDS), facts=facts)
        return
    model = CtReportModel(own, num_tokens=len(SOME_WORDS), facts=facts)
    if own.weights:
        assert isinstance(model.transformer, MemoryTransformer)
        start_from_r2gen(model.transformer, Path(own.weights), own)


def check_masks(settings: CtSettings) -> None:
    """Read the table of codes of the masks that stage 1 will be compared with, if the configuration names any.

    Raises:
        FileNotFoundError, DatasetError: as of :func:`d2rnet.ct.structure_model.masks.find_masks`.
    """
    find_masks(*settings.structure_model.evaluation.label_volumes(), load_table(settings.structures.table), ())


def _stage_one(settings: CtSettings) -> FeatureFacts:
    """Build stage 1; return what its features will be."""
    own = settings.structure_model
    tower_files(own.text)
    table = load_table(settings.structures.table)
    vocabulary = count_vocabulary(SOME_WORDS, protocol=own.text.protocol, section=own.text.section, min_token_count=1)
    objective = make_objective(own, settings.data.conversion, vocabulary, tuple(table.structures))
    return FeatureFacts(
        key="",
        structures=tuple(table.structures),
        grid_zyx=objective.model.encoder.grid_zyx,
        queries_per_structure=own.model.observer.queries_per_structure,
        width=own.model.observer.d_model,
        patches=settings.report.features.patches,
        most_per_structure=settings.report.features.most_per_structure,
    )
