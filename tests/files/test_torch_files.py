"""Torch files: whole or not there; what could run code is refused with a way out."""

import argparse
import errno
import pickle
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from d2rnet.errors import CheckpointError
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.files.torch_files import load_torch, save_torch

BIG = {"w": torch.arange(1 << 16)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_both_file_formats_are_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.arange(3.0), "epoch": 4}, path, _use_new_zipfile_serialization=zipped)
    read = load_torch(path)
    assert read["w"].tolist() == [0, 1, 2] and read["epoch"] == 4


def test_saved_is_read_back(tmp_path: Path) -> None:
    save_torch(tmp_path / "new" / "a.pt", {"w": torch.ones(2)})
    assert load_torch(tmp_path / "new" / "a.pt")["w"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [{"args": argparse.Namespace(lr=1)}, torch.nn.Linear(2, 2)], ids=["arguments", "module"])
def test_pickled_objects_are_refused_by_name_with_a_way_out(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "foreign.pth")
    name = "argparse.Namespace" if isinstance(value, dict) else "torch.nn.modules.linear.Linear"
    with pytest.raises(
        CheckpointError, match=rf"foreign\.pth: holds {re.escape(name)}.*If you trust.*torch\.save\("
    ) as caught:
        load_torch(tmp_path / "foreign.pth")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"w": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="it is refused"):
        load_torch(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save({"w": torch.ones(50)}, whole)
    contents = {"cut": whole.read_bytes()[:200], "text": b"no weights", "empty": b"", "list": pickle.dumps([1], protocol=2)}
    for name, content in contents.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.pth: (not a readable PyTorch file|holds a list)"):
            load_torch(path)
    with pytest.raises(CheckpointError, match="no such weight file"):
        load_torch(tmp_path / "gone.pth")


@pytest.mark.parametrize("save", [lambda path: save_torch(path, BIG), lambda path: save_safetensors(path, BIG, {})])
def test_a_full_disk_is_named_and_leaves_the_file_before(tmp_path: Path, save: Callable[[Path], None]) -> None:
    """A limit of the file size stands in for the disk: both fail within a write."""
    path = tmp_path / "weights"
    save_torch(path, {"iterations_done": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert load_torch(path) == {"iterations_done": 1} and list(tmp_path.iterdir()) == [path]


def test_a_model_has_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    """safetensors orders its metadata at random."""
    metadata = {f"key {number}": "ä" * number for number in range(8)}
    for number in range(4):
        save_safetensors(tmp_path / str(number), BIG | {"b": torch.ones(3, 2)}, metadata)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(4)}) == 1
    with safe_open(tmp_path / "0", framework="pt") as opened:
        assert opened.metadata() == metadata
        assert torch.equal(opened.get_tensor("w"), BIG["w"]) and opened.get_tensor("b").tolist() == [[1, 1]] * 3


def test_a_checkpoint_has_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        save_torch(tmp_path / name, BIG)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
