"""Torch files: written atomically, read without running code, with an error that a user understands.

Both models keep their checkpoints in such files and read pretrained weights from them.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from d2rnet.errors import CheckpointError
from d2rnet.io import atomic_path

REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed global")


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
    except pickle.UnpicklingError as error:
        found = REFUSED.search(str(error))
        raise CheckpointError(_refusal(path, found[1]) if found else _unreadable(path, "not a pickle of tensors")) from error
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise CheckpointError(_unreadable(path, str(error).splitlines()[0] if str(error) else type(error).__name__)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors.")
    return content


def _unreadable(path: Path, reason: str) -> str:
    return f"{path}: not a readable PyTorch file ({reason}). Copy it again, or delete it."


def _refusal(path: Path, name: str) -> str:
    """Say what a file holds beside tensors, and how to leave it behind."""
    return (
        f"{path}: holds {name}, not tensors and plain values alone; loading it could run code, so it is refused. If you trust "
        "its source, write the tensors alone where the file was made: content = torch.load('model.pth', weights_only=False); "
        "torch.save(content['state_dict'], 'weights.pth') (or model.state_dict() of a pickled model), and give that file."
    )
