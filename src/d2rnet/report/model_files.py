"""The model folder: all that is needed to write a report from an image and its boxes.

``model.safetensors`` (weights; its metadata names the vocabulary they were trained with), ``vocabulary.json`` and
``config.yaml`` (settings, text protocol, class table, preprocessing). Written by train_report_model, read by generate_reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d2rnet.cxr.report_model.model import ReportModel
from d2rnet.cxr.report_model.visual_extractor import PIXEL_MEAN, PIXEL_STD
from d2rnet.errors import CheckpointError
from d2rnet.files.atomic import write_text
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.files.torch_files import unsound_tensors
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.settings import default_settings, validate

FORMAT = "d2rnet-report-model-1"
WEIGHTS, VOCABULARY, CONFIG = "model.safetensors", "vocabulary.json", "config.yaml"


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode with what belongs to it."""

    model: ReportModel
    vocabulary: Vocabulary
    settings: dict[str, Any]  # sections text, model, training
    categories: tuple[str, ...]


def save_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    categories: tuple[str, ...],
    selected: Mapping[str, Any],
) -> None:
    """Write the model folder.

    Args:
        folder: where to write.
        weights: state dict of ReportModel.
        settings: sections ``text``, ``model`` and ``training`` of the configuration.
        vocabulary: the tokens that the weights were trained with.
        categories: class names in the order of class ids 1, 2, ...
        selected: epoch and validation scores of the weights.
    """
    vocabulary.save(folder / VOCABULARY)
    config = {
        "format": FORMAT,
        "text": dict(settings["text"]),
        "model": dict(settings["model"]),
        "training": dict(settings["training"]),
        "categories": list(categories),
        "preprocessing": {"geometry": "letterbox", "channels": 1, "pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD},
        "selected": dict(selected),
    }
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    metadata = {"format": FORMAT, "vocabulary_hash": vocabulary.hash, "protocol": vocabulary.protocol}
    save_safetensors(folder / WEIGHTS, weights, metadata)


def load_model(folder: Path, device: torch.device) -> LoadedModel:
    """Read a model folder.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: not a model of this format, or weights, vocabulary and configuration do not belong together.
        ConfigError: a setting in config.yaml is unknown or out of range.
    """
    for name in (WEIGHTS, VOCABULARY, CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; the folder is made by 'd2rnet train-report-model'.")
    try:
        config = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (ParseError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: not a YAML document ({error}). Copy the model folder again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{folder / CONFIG}: got format {found!r}; expected '{FORMAT}'. Train the model again.")
    missing = {"text", "model", "training", "categories"} - set(config)
    if missing:
        raise CheckpointError(f"{folder / CONFIG}: lacks {', '.join(sorted(missing))}. Copy the model folder again.")
    for section in ("text", "model", "training"):
        validate(config[section], f"report.{section}", source=str(folder / CONFIG))
        lacking = [f"{section}.{key}" for key in default_settings(f"report.{section}") if key not in config[section]]
        if lacking:
            raise CheckpointError(
                f"{folder / CONFIG}: lacks {', '.join(lacking)}; the model was trained by another version. Train it again."
            )
    names = config["categories"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise CheckpointError(f"{folder / CONFIG}: categories are no list of class names. Copy the model folder again.")
    vocabulary = load_vocabulary(folder / VOCABULARY)
    categories = tuple(config["categories"])
    make = partial(ReportModel, config["model"], num_tokens=len(vocabulary), num_categories=len(categories))
    try:
        with torch.device("meta"):  # takes no memory, whatever the sizes in the configuration
            expected = make().state_dict()
    except (RuntimeError, ArithmeticError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: its sizes make no model ({error}). Copy the model folder again.") from error
    state = _read_weights(folder / WEIGHTS, vocabulary, expected)
    model = make()
    model.load_state_dict(state, strict=True)
    settings = {section: config[section] for section in ("text", "model", "training")}
    return LoadedModel(model.to(device).eval(), vocabulary, settings, categories)


def _read_weights(path: Path, vocabulary: Vocabulary, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of a model whose tensors are ``expected`` (without memory: device meta).

    Raises:
        CheckpointError: unreadable, trained with another vocabulary, of other names or shapes, or not finite.
    """
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}). Copy it again.") from error
    with opened as weights:
        trained_with = (weights.metadata() or {}).get("vocabulary_hash")
        if trained_with != vocabulary.hash:
            raise CheckpointError(
                f"{path}: trained with vocabulary {trained_with}, but {VOCABULARY} beside it is {vocabulary.hash}. "
                "Token ids would mean other words; put back the vocabulary that was saved with the weights."
            )
        state = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 (safe_open is no mapping)
    missing, unused = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misshapen = sorted(name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape)
    if missing or unused or misshapen:
        raise CheckpointError(
            f"{path}: does not fit the model of {CONFIG}. Missing {len(missing)}: {', '.join(missing[:5])}; unused "
            f"{len(unused)}: {', '.join(unused[:5])}; of another shape {len(misshapen)}: {', '.join(misshapen[:5])}."
        )
    if unsound := unsound_tensors(state, expected):
        raise CheckpointError(
            f"{path}: {len(unsound)} tensor(s) hold NaN, infinity or whole numbers: {', '.join(unsound[:5])}; expected finite "
            "weights. Copy the file again, or train the model again."
        )
    return state
