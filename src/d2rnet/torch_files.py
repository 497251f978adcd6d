"""Torch files: written atomically, read without running code, with an error that a user understands.

Both models keep their checkpoints in such files and read pretrained weights from them.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from d2rnet.errors import CheckpointError
from d2rnet.io import atomic_path


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically: a previous file stays until the new one is complete."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_torch(path: Path) -> dict[str, Any]:
    """Read a torch file that holds tensors and plain values only, to the CPU.

    Raises:
        CheckpointError: no such file, unreadable, with anything else in it, or not a dictionary.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable PyTorch file ({reason}). Copy it again, or delete it.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors.")
    return content
