"""The model folder: all that is needed to write a report from what the model looks at.

``model.safetensors`` (weights; its metadata names the vocabulary they were trained with), ``vocabulary.json`` and
``config.yaml`` (settings, text protocol, and the front end's facts, such as class table and preprocessing). Written by
train_report_model, read by generate_reports.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from d2rnet.errors import CheckpointError
from d2rnet.files.atomic import write_text
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.files.torch_files import unsound_tensors
from d2rnet.report.interface import FrontEnd, ReportModel
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.settings import Section, leaves, merge, where_absent

log = logging.getLogger(__name__)
FORMAT = "d2rnet-report-model-1"
WEIGHTS = "model.safetensors"
VOCABULARY = "vocabulary.json"
CONFIG = "config.yaml"
PARTS = ("text", "model", "training")


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode with what belongs to it.

    Attributes:
        model: on its device.
        vocabulary: token <-> id of the training reports' words.
        tokens: what the ids of the model mean; the vocabulary, unless its decoder brings its own tokens.
        settings: what it was trained with, of the front end's class: ``text``, ``model``, ``training``.
        facts: config.yaml's other keys.
    """

    model: ReportModel
    vocabulary: Vocabulary
    tokens: ReportTokens
    settings: Any
    facts: dict[str, Any]


def save_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    settings: Section,
    vocabulary: Vocabulary,
    facts: Mapping[str, Any],
    selected: Mapping[str, Any],
) -> None:
    """Write the model folder.

    Args:
        folder: where to write.
        weights: state dict of the model.
        settings: what it was trained with: ``text``, ``model`` and ``training``.
        vocabulary: the tokens that the weights were trained with.
        facts: what the front end needs beside them.
        selected: epoch and validation scores of the weights.
    """
    vocabulary.save(folder / VOCABULARY)
    given = settings.to_json()
    parts = {part: given[part] for part in PARTS}
    config = {"format": FORMAT, **parts, **facts, "selected": dict(selected)}
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    metadata = {"format": FORMAT, "vocabulary_hash": vocabulary.hash, "protocol": vocabulary.protocol}
    save_safetensors(folder / WEIGHTS, weights, metadata)


def load_model(folder: Path, device: torch.device, front_end: FrontEnd) -> LoadedModel:
    """Read a model folder.

    Raises:
        FileNotFoundError: a file of the folder is missing, or a base model that it names.
        CheckpointError: not a model of this format, or weights, vocabulary, configuration and base model do not belong
            together.
        ConfigError: a setting in config.yaml is out of range.
    """
    for name in (WEIGHTS, VOCABULARY, CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; the folder is made by 'd2rnet {front_end.command}'.")
    settings, facts = _read_config(folder / CONFIG, front_end)
    vocabulary = load_vocabulary(folder / VOCABULARY)
    tokens = front_end.tokens(vocabulary, settings, facts=facts, source=folder / CONFIG)
    try:
        with torch.device("meta"), _Undrawn():  # takes no memory, whatever the sizes in the configuration
            expected = front_end.make_model(settings, num_tokens=len(vocabulary), facts=facts).state_dict()
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}. Copy the model folder again.") from error
    except (RuntimeError, ArithmeticError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: its sizes make no model ({error}). Copy the model folder again.") from error
    state = read_weights(folder / WEIGHTS, vocabulary, expected)
    model = front_end.make_model(settings, num_tokens=len(vocabulary), facts=facts)
    model.load_state_dict(state, strict=True)
    return LoadedModel(model.to(device).eval(), vocabulary, tokens, settings, facts)


class _Undrawn(TorchFunctionMode):
    """Leaves ``normal_`` undone: on the device meta there is nothing to draw, and torch would import its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return kwargs["tensor"] if func is torch.nn.init.normal_ else func(*args, **(kwargs or {}))


def _read_config(path: Path, front_end: FrontEnd) -> tuple[Any, dict[str, Any]]:
    """Read config.yaml: the settings, and the front end's facts.

    A setting that came after the model gets its first default; one that is gone, or a part without any, is an error.
    """
    try:
        config = parse_yaml(path.read_text(encoding="utf-8"))
    except (ParseError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a YAML document ({error}). Copy the model folder again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path}: got format {found!r}; expected '{FORMAT}'. Train the model again.")
    missing = {*PARTS, *front_end.facts} - set(config)
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(sorted(missing))}. Copy the model folder again.")
    given = {part: config[part] for part in PARTS}
    known = [key for key, _ in leaves(front_end.settings)]
    found = list(_keys_in(given, known))
    lacking = [key for key in known if key not in found]
    unknown = [key for key in found if key not in known]
    emptied = [part for part in PARTS if not any(key.startswith(f"{part}.") for key in found)]
    if unknown or emptied:
        differences = [f"{what} {', '.join(keys)}" for what, keys in (("lacks", lacking), ("has unknown", unknown)) if keys]
        raise CheckpointError(
            f"{path}: {' and '.join(differences)}; the model was trained by another version. Train it again, or read it with "
            "that version."
        )
    settings = front_end.settings.read(merge(where_absent(front_end.settings), given), source=str(path))
    _note_later_keys(path, settings, lacking)
    return settings, {key: config.get(key) for key in (*front_end.facts, *front_end.later_facts)}


def _note_later_keys(path: Path, settings: Section, keys: Sequence[str]) -> None:
    """Say which settings came after the model: their first defaults keep what was before (CONTRIBUTING.md).

    Those of the training alone change no reading, and are not worth a warning.
    """
    later = [f"{key} ({attrgetter(key)(settings)})" for key in keys if not key.startswith("training.")]
    if later:
        log.warning("%s: by an earlier version, without %s; taken as set in brackets", path, ", ".join(later))


def _keys_in(content: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested settings; what is below a known key is its value."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in known:
            yield from _keys_in(value, known, f"{key}.")
        else:
            yield key


def read_weights(path: Path, vocabulary: Vocabulary, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
    missing = sorted(expected.keys() - state.keys())
    unused = sorted(state.keys() - expected.keys())
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
