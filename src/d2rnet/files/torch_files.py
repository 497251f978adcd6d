"""Torch files: written atomically, read without running code, with an error that a user understands.

Both models keep their checkpoints in such files and read pretrained weights from them.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from d2rnet.errors import CheckpointError, D2RNetError
from d2rnet.files.atomic import atomic_path

REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed global")


def save_torch(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically: a previous file stays until the new one is complete.

    Raises:
        OSError: it cannot be written (disk full).
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        stream = _Stream(file)
        try:
            torch.save(content, stream)  # type: ignore[arg-type]  # torch calls write and flush only
        except RuntimeError as error:
            raise stream.error or error from error


class _Stream:
    """A file that remembers why a write failed; of a full disk torch only says "unexpected pos"."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_torch(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a torch file that holds tensors and plain values only, to the CPU.

    Args:
        path: the file.
        mapped: map the tensors instead of reading them, where the file's format allows it: for files of many gigabytes of
            which little is needed.

    Raises:
        CheckpointError: no such file, unreadable, compressed (torch compresses nothing; unpacked, a small file may fill the
            memory), with anything else in it, a tensor larger than what is stored of it, or not a dictionary.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file.")
    try:
        _check_uncompressed(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = REFUSED.search(str(error))
        raise CheckpointError(_refusal(path, found[1]) if found else _unreadable(path, "not a pickle of tensors")) from error
    except CheckpointError:
        raise
    except Exception as error:  # damaged files make the unpickler raise almost anything
        raise CheckpointError(_unreadable(path, str(error).splitlines()[0] if str(error) else type(error).__name__)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors.")
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: holds a tensor of shape {tuple(tensor.shape)}, of which only {tensor.untyped_storage().nbytes()} "
                "bytes are stored; copying it would fill the memory. Save a copy of it: tensor.contiguous()."
            )
    return content


def _check_uncompressed(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [item.filename for item in archive.infolist() if item.file_size > item.compress_size]
        if packed:
            raise CheckpointError(
                f"{path}: its part {packed[0]!a} is compressed, which torch.save never does. Take the original file."
            )


def _tensors(content: dict[Any, Any]) -> Iterator[Tensor]:
    """Yield the tensors of a file, however deep in dictionaries, lists and tuples."""
    waiting = [content]
    seen = set()
    while waiting:
        item: Any = waiting.pop()
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))  # a pickle may hold one list in a thousand places, or in itself
            waiting += item.values() if isinstance(item, dict) else item


@contextmanager
def resuming_from(checkpoint: Path) -> Iterator[None]:
    """Say so where a checkpoint of our own lacks something, has it in another shape or of another type.

    Raises:
        CheckpointError: in place of whatever taking the state over raised.
    """
    try:
        yield
    except D2RNetError:
        raise
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{checkpoint}: does not fit this version of the program ({type(error).__name__}: {reason}). End the run with the "
            "version that began it, or move its work folder away and run again to begin anew."
        ) from error


def unsound_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that no training leaves behind: not finite, or whole numbers for fractions.

    Args:
        state: weights of a file.
        expected: those of the network that they are for, with the same names; their values do not matter.
    """
    return sorted(
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() != expected[name].is_floating_point()
        or (tensor.is_floating_point() and not bool(tensor.float().isfinite().all()))
    )


def _unreadable(path: Path, reason: str) -> str:
    return f"{path}: not a readable PyTorch file ({reason}). Copy it again, or delete it."


def _refusal(path: Path, name: str) -> str:
    """Say what a file holds beside tensors, and how to leave it behind."""
    return (
        f"{path}: holds {name}, not tensors and plain values alone; loading it could run code, so it is refused. If you trust "
        "its source, write the tensors alone where the file was made: content = torch.load('model.pth', weights_only=False); "
        "torch.save(content['state_dict'], 'weights.pth') (or model.state_dict() of a pickled model), and give that file."
    )
