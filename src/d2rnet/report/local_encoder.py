"""BERT-like encoders of Hugging Face from a local folder. Nothing is fetched, and no code that a folder brings is run."""

import json
from pathlib import Path
from typing import Any

from d2rnet.errors import CheckpointError
from d2rnet.report.optional_packages import optional_package

EXTRA = "text-encoder"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", ".txt")
CXR_BERT = "cxr-bert"  # BERT under another name, for which CXR-BERT's folder brings code


def read_tokenizer(folder: str | Path, *, place: str) -> Any:
    """Read the tokenizer of a folder; ``place`` names the setting, for messages.

    Raises:
        ConfigError: the package ``transformers`` is missing.
        FileNotFoundError: there is no such folder.
        CheckpointError: the folder holds no such thing that transformers can load.
    """
    tokenizer = _read("AutoTokenizer", "BertTokenizerFast", folder, place)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no vocabulary
        raise CheckpointError(
            f"{place}: {folder}: has no vocabulary; expected tokenizer.json or vocab.txt beside config.json."
        )
    return tokenizer


def read_encoder(folder: str | Path, *, place: str) -> Any:
    """Read the network of a folder with its weights, frozen, in evaluation mode; errors as of read_tokenizer."""
    return _read("AutoModel", "BertModel", folder, place).eval().requires_grad_(False)


def encoder_without_weights(folder: str | Path, *, place: str) -> Any:
    """Make the network that a folder's configuration describes, frozen, in evaluation mode; errors as of read_tokenizer."""
    config = _read("AutoConfig", "BertConfig", folder, place)
    network = optional_package("transformers", place, extra=EXTRA).AutoModel.from_config(config, trust_remote_code=False)
    return network.eval().requires_grad_(False)


def _read(kind: str, kind_of_cxr_bert: str, folder: str | Path, place: str) -> Any:
    transformers = optional_package("transformers", place, extra=EXTRA)
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{place}: {folder}: no such folder.")
    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        name = kind_of_cxr_bert if _is_cxr_bert(Path(folder)) else kind
        return getattr(transformers, name).from_pretrained(str(folder), **safely)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{place}: {folder}: not a Hugging Face encoder ({str(error).splitlines()[0]}). Expected config.json, "
            "the tokenizer's files and model.safetensors of a BERT-like model."
        ) from error


def _is_cxr_bert(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return isinstance(config, dict) and config.get("model_type") == CXR_BERT


def encoder_files(folder: Path, *, place: str) -> dict[str, Path]:
    """Return the files of a text encoder, name -> path, for a run's record; ``place`` names the setting.

    Raises:
        FileNotFoundError: the folder is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{place}: {folder}: no such folder.")
    return {f"text_encoder_{path.name}": path for path in sorted(folder.iterdir()) if path.suffix in WEIGHT_SUFFIXES}
