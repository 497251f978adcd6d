"""The base language model: a folder as Hugging Face saves it, opened without a network, and known by its content.

The packages transformers and peft are an optional extra (``llm``), imported where they are used.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from d2rnet.errors import CheckpointError
from d2rnet.report.optional_packages import optional_package

EXTRA = "llm"
CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
WEIGHTS = ("*.safetensors", "*.bin")  # where there are both, transformers takes the first kind
SAMPLE_BYTES = 2**20


def base_identity(folder: Path, *, place: str) -> str:
    """Name a base model by its content, wherever it lies: 64 hex digits.

    Of its configuration and tokenizer all bytes count, of each file of weights name, size and 1 MiB in its middle: models of
    one family have files of the same names and sizes.

    Args:
        folder: of the base model.
        place: setting that names it, for messages.

    Raises:
        FileNotFoundError: no such folder, or no configuration, tokenizer or weights in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{place}: {folder}: no such folder; expected that of a causal language model.")
    whole = [folder / CONFIG, *(folder / name for name in TOKENIZERS if (folder / name).is_file())]
    weights: list[Path] = next(filter(None, (sorted(folder.glob(pattern)) for pattern in WEIGHTS)), [])
    if not whole[0].is_file() or len(whole) == 1 or not weights:
        raise FileNotFoundError(
            f"{place}: {folder}: holds no causal language model; expected {CONFIG}, {' or '.join(TOKENIZERS)}, and weights "
            f"({' or '.join(WEIGHTS)}). Copy all files of the model's page."
        )
    digest = hashlib.sha256()
    for part in _content(whole, weights):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _content(whole: list[Path], weights: list[Path]) -> Iterator[bytes]:
    for path in whole:
        yield path.name.encode()
        yield path.read_bytes()
    for path in weights:
        size = path.stat().st_size
        yield f"{path.name} {size}".encode()
        with path.open("rb") as stream:
            stream.seek(max(0, (size - SAMPLE_BYTES) // 2))
            yield stream.read(SAMPLE_BYTES)


def check_identity(folder: Path, expected: str | None, *, place: str) -> None:
    """Compare a base model with the one that adapters were trained on.

    Args:
        folder: of the base model.
        expected: of :func:`base_identity`.
        place: setting that names it, for messages.

    Raises:
        FileNotFoundError: there is no base model.
        CheckpointError: it is another one.
    """
    found = base_identity(folder, place=place)
    if found != expected:
        raise CheckpointError(
            f"{place}: {folder}: is base model {found[:12]}; the adapters were trained in {str(expected)[:12]} and mean "
            "nothing in another. Set it to the folder of that model."
        )


def load_tokenizer(folder: str | Path, *, place: str) -> Any:
    """Load the tokenizer of a base model.

    Raises:
        ConfigError: the package transformers is missing.
        CheckpointError: the folder holds no tokenizer, or one without an end token.
    """
    transformers = optional_package("transformers", place, extra=EXTRA)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(
            f"{place}: {folder}: its tokenizer cannot be read ({_first_line(error)}). Expected {' or '.join(TOKENIZERS)} with "
            "tokenizer_config.json; copy the files of the model's page again."
        ) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{place}: {folder}: its tokenizer names no end token (eos_token). Name one there.")
    return tokenizer


def load_base(folder: str | Path, *, dtype: torch.dtype, place: str) -> Any:
    """Load a base model, frozen; on the device meta its shapes alone, which takes no time and no memory.

    Args:
        folder: of the base model.
        dtype: of its weights.
        place: setting that names it, for messages.

    Raises:
        ConfigError: the package transformers is missing.
        CheckpointError: no causal language model that transformers can load, or weights that do not fill it.
    """
    transformers = optional_package("transformers", place, extra=EXTRA)
    transformers.utils.logging.disable_progress_bar()
    safely = {"local_files_only": True, "trust_remote_code": False}  # else a folder may bring its own code
    auto = transformers.AutoModelForCausalLM
    try:
        if torch.get_default_device().type == "meta":
            config = transformers.AutoConfig.from_pretrained(str(folder), **safely)
            return auto.from_config(config, dtype=dtype).requires_grad_(False)
        model, report = auto.from_pretrained(str(folder), dtype=dtype, output_loading_info=True, **safely)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{place}: {folder}: not a causal language model that transformers can load ({_first_line(error)}). Expected the "
            "files of a model such as Llama, as Hugging Face saves them."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{place}: {folder}: {len(missing)} tensor(s) of the model are in no file, such as {', '.join(missing[:3])}. "
            "Copy all files of the model's page."
        )
    model.generation_config = transformers.GenerationConfig()  # a chat model's own would draw its words
    return model.requires_grad_(False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
