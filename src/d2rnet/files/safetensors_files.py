"""Weights as safetensors files: no pickle, with metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from d2rnet.errors import CheckpointError
from d2rnet.files.atomic import atomic_path


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, to the CPU.

    Raises:
        CheckpointError: no such file, or not a readable one.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}). Copy it again.") from error


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors atomically as a safetensors file; the same content has the same bytes.

    Raises:
        OSError: it cannot be written (disk full).
    """
    # In memory first: safetensors' own file errors are no OSError.
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))  # safetensors writes it in a random order
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors behind it stay aligned
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.write(memoryview(content)[8 + size :])
