"""What a training of a report model reads and leaves, of any front end: its checks, its splits, its model folder."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.atomic import atomic_path
from d2rnet.files.torch_files import load_torch
from d2rnet.report.annotation_file import Entry
from d2rnet.report.model_files import save_model
from d2rnet.report.settings import ReportTrainingSettings, TextSettings
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import Vocabulary
from d2rnet.settings import Section
from d2rnet.training.history import HISTORY_NAME
from d2rnet.training.record import BEST
from d2rnet.training.settings import OptimizationSettings

log = logging.getLogger(__name__)


def check_batch(processes: int, training: OptimizationSettings) -> None:
    """Refuse more processes than a batch has entries.

    Raises:
        ConfigError: names both.
    """
    if processes > training.batch_size:
        raise ConfigError(f"--processes {processes}: expected 1 to {training.place}.batch_size ({training.batch_size}).")


def check_report_batch(processes: int, training: ReportTrainingSettings) -> None:
    """Refuse more processes, or micro-batches of them, than a batch has entries.

    Raises:
        ConfigError: names both.
    """
    check_batch(processes, training)
    if processes * training.accumulation_steps > training.batch_size:
        raise ConfigError(
            f"{training.place}.accumulation_steps {training.accumulation_steps} in {processes} process(es): expected at most "
            f"as many micro-batches as {training.place}.batch_size ({training.batch_size}) has entries."
        )


def check_protocol(vocabulary: Vocabulary, text: TextSettings, *, source: Path) -> None:
    """Compare a vocabulary with the settings of the text.

    Raises:
        ConfigError: they differ in protocol, section or least count.
    """
    for key in ("protocol", "section", "min_token_count"):
        built = getattr(vocabulary, key)
        wanted = getattr(text, key)
        if built != wanted:
            raise ConfigError(
                f"{source}: built with {key} {built!r}, but {text.place}.{key} is {wanted!r}. "
                f"Build the vocabulary again, or set {text.place} as it was."
            )


def splits_with_words(
    content: Mapping[str, Sequence[Entry]], annotation: Path, *, protocol: str
) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """Return training and validation split without reports that hold no word, and how many those are.

    Args:
        content: the annotation's splits.
        annotation: its file, for messages.
        protocol: of the text.

    Raises:
        DatasetError: a split without words.
    """
    splits: dict[str, list[Entry]] = {}
    counts = {}
    for split in ("train", "val"):
        splits[split] = [entry for entry in content[split] if clean_report(entry["report"], protocol)]
        counts[split] = len(splits[split])
        counts[f"{split}_without_words"] = len(content[split]) - len(splits[split])
        if not splits[split]:
            raise DatasetError(f"{annotation}: no report with words in split '{split}'; expected at least one entry.")
        if counts[f"{split}_without_words"]:
            log.warning("%d %s reports hold no word and are left out", counts[f"{split}_without_words"], split)
    return splits, counts


def export_model(
    folder: Path, output: Path, vocabulary: Vocabulary, *, settings: Section, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the model folder of a finished training; see :func:`export_best`."""
    return export_best(load_torch(folder / BEST), folder, output, vocabulary, settings=settings, facts=facts)


def export_best(
    best: Mapping[str, Any],
    folder: Path,
    output: Path,
    vocabulary: Vocabulary,
    *,
    settings: Section,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the model folder, and the history into it.

    Args:
        best: content of ``best.pt`` of the work folder.
        folder: work folder of the finished training.
        output: model folder to write.
        vocabulary: token <-> id.
        settings: ``text``, ``model`` and ``training``.
        facts: what the front end needs beside them.

    Returns:
        The line of the history whose weights they are.
    """
    selected = dict(best["selected"])
    save_model(
        output,
        best["model"],
        settings=settings,
        vocabulary=vocabulary,
        facts=facts,
        selected=selected,
    )
    with atomic_path(output / HISTORY_NAME) as temporary:
        shutil.copyfile(folder / HISTORY_NAME, temporary)
    chosen = [f"{key} {value:.4g}" for key, value in selected.items() if key.startswith("val")]
    log.info("selected epoch %d (%s): %s", selected["epoch"], ", ".join(chosen), output)
    return selected
