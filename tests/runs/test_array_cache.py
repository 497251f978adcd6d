"""Caches that several trainings share: a file is put in place once, and what another process has put there stays."""

from pathlib import Path

import numpy as np
import pytest

from d2rnet.runs import array_cache
from d2rnet.runs.array_cache import open_maps

SHAPE = (2, 3)


@pytest.mark.parametrize("sees_part", [True, False])
def test_what_another_process_keeps_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees_part: bool) -> None:
    """As on a file system that does not tell other machines of a lock: both find no file, the other one is faster.

    If it sees the half-written file of this one, it takes it for one of a killed process, and removes it.
    """
    path, take_space = tmp_path / "pixels.u8", array_cache._take_space
    if not sees_part:
        monkeypatch.setattr(array_cache, "remove_leftovers", lambda folder: 0)

    def slowly(*arguments: object) -> None:
        monkeypatch.setattr(array_cache, "_take_space", take_space)
        pixels, done = open_maps(path, SHAPE, rows=2)
        pixels[0], done[0] = 7, 1
        take_space(*arguments)

    monkeypatch.setattr(array_cache, "_take_space", slowly)
    pixels, done = open_maps(path, SHAPE, rows=2)
    assert done.tolist() == [1, 0] and pixels[0].tolist() == [7, 7, 7]
    again, _ = open_maps(path, SHAPE, rows=2)
    pixels[1] = 5
    assert again[1].tolist() == [5, 5, 5], "both write into the same file"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["done.u8", "pixels.u8"]


def test_a_file_of_another_size_and_what_a_killed_process_left_go(tmp_path: Path) -> None:
    path = tmp_path / "pixels.u8"
    path.write_bytes(bytes(2))
    (tmp_path / ".pixels.0123.part.u8").write_bytes(bytes(3))
    pixels, done = open_maps(path, SHAPE, rows=2)
    assert pixels.shape == SHAPE and not done.any()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["done.u8", "pixels.u8"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    pixels, _ = open_maps(tmp_path / "pixels.u8", SHAPE, rows=2)
    assert np.array_equal(pixels, np.zeros(SHAPE)) and [file.name for file in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("what", [".pixels.*.part.u8", "pixels.u8", "done.u8"])
def test_a_file_that_another_process_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where locks are not seen: as a leftover, or as one without its companion."""
    removed: list[Path] = []
    original = array_cache._put_in_place

    def put(part: Path, path: Path) -> None:
        if what.startswith(".") and not removed:
            removed.extend(tmp_path.glob(what))
            part.unlink()
        original(part, path)
        if path.name == what and not removed:
            removed.append(path)
            path.unlink()

    monkeypatch.setattr(array_cache, "_put_in_place", put)
    pixels, done = open_maps(tmp_path / "pixels.u8", SHAPE, rows=2)
    assert len(removed) == 1 and pixels.shape == SHAPE and not done.any()
    assert {path.name for path in tmp_path.iterdir()} == {"pixels.u8", "done.u8"}
