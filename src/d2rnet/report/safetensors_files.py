"""Weights as safetensors files: no pickle, with metadata."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from d2rnet.io import atomic_path


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors atomically as a safetensors file.

    Raises:
        OSError: it cannot be written (disk full).
    """
    # In memory first: safetensors' own file errors are no OSError.
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
