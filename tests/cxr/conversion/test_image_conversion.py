"""Conversion of many images: results in order, resumed, bad ones set aside, nothing half written."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock

from d2rnet.cxr.conversion import image_conversion
from d2rnet.cxr.conversion.image_conversion import (
    ConversionJob,
    ConversionResult,
    convert_images,
    write_png,
)
from d2rnet.errors import D2RNetError, DatasetError


@pytest.fixture
def jobs(tmp_path: Path) -> list[ConversionJob]:
    """Five small PNG radiographs of different height, to be halved."""
    made = []
    for number in range(5):
        source = tmp_path / "in" / f"image{number}.png"
        source.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(source), np.full((40 + 2 * number, 20), 50 * number, np.uint8))
        made.append(ConversionJob(source, tmp_path / "out" / f"{number}.png"))
    return made


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., list[ConversionResult]]:
    def run(jobs: list[ConversionJob], **changes: object) -> list[ConversionResult]:
        settings: dict[str, object] = {"max_side_px": 20, "workers": 1}
        return convert_images(jobs, manifest=tmp_path / "work" / "manifest.jsonl", **(settings | changes))  # type: ignore[arg-type]

    return run


def times(jobs: list[ConversionJob]) -> list[int]:
    return [job.target.stat().st_mtime_ns for job in jobs]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order_and_files_are_right(jobs: list[ConversionJob], convert: Callable, workers: int) -> None:
    results = convert(jobs, workers=workers)
    assert [result.job for result in results] == jobs
    assert [(result.source_height, result.source_width) for result in results] == [(40 + 2 * n, 20) for n in range(5)]
    # longer side 20: widths 20 * 20 / (40, 42, 44, 46, 48)
    assert [(result.height, result.width) for result in results] == [(20, 10), (20, 10), (20, 9), (20, 9), (20, 8)]
    for number, result in enumerate(results):
        pixels = cv2.imread(str(result.job.target), cv2.IMREAD_UNCHANGED)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (result.height, result.width)
        assert np.unique(pixels).tolist() == [50 * number]
        assert result.reason is None


def test_second_run_converts_nothing(jobs: list[ConversionJob], convert: Callable, tmp_path: Path) -> None:
    first = convert(jobs)
    before, manifest = times(jobs), (tmp_path / "work" / "manifest.jsonl").read_text()
    assert convert(jobs) == first
    assert times(jobs) == before
    assert (tmp_path / "work" / "manifest.jsonl").read_text() == manifest
    assert len(manifest.splitlines()) == 5


def test_what_changed_or_is_missing_is_converted_again(jobs: list[ConversionJob], convert: Callable) -> None:
    convert(jobs)
    before = times(jobs)
    jobs[0].target.unlink()
    cv2.imwrite(str(jobs[1].source), np.full((10, 10), 9, np.uint8))
    os.utime(jobs[1].source, ns=(1, 1))
    results = convert(jobs)
    assert [now != then for now, then in zip(times(jobs), before, strict=True)] == [True, True, False, False, False]
    assert (results[1].source_height, results[1].height) == (10, 10)


def test_another_source_or_time_of_change_converts_again(jobs: list[ConversionJob], convert: Callable, tmp_path: Path) -> None:
    convert(jobs)
    before = times(jobs)
    os.utime(jobs[0].source, ns=(5, 5))
    moved = tmp_path / "moved.png"
    shutil.copy2(jobs[1].source, moved)
    jobs[1] = ConversionJob(moved, jobs[1].target)
    convert(jobs)
    assert [now != then for now, then in zip(times(jobs), before, strict=True)] == [True, True, False, False, False]


@pytest.mark.parametrize("change", ["size", "recipe"])
def test_another_size_or_recipe_converts_all_again(
    jobs: list[ConversionJob], convert: Callable, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    convert(jobs)
    before = times(jobs)
    if change == "recipe":
        monkeypatch.setattr(image_conversion, "RECIPE", image_conversion.RECIPE + 1)
    assert convert(jobs, max_side_px=16 if change == "size" else 20)[0].height == (16 if change == "size" else 20)
    assert all(now != then for now, then in zip(times(jobs), before, strict=True))


def test_going_back_to_a_size_does_not_trust_files_of_the_other(jobs: list[ConversionJob], convert: Callable) -> None:
    for size in (20, 16, 20):
        results = convert(jobs, max_side_px=size)
        assert {result.height for result in results} == {size}
        assert cv2.imread(str(jobs[0].target), cv2.IMREAD_UNCHANGED).shape[0] == size


@pytest.mark.parametrize("tail", ['{"recipe": 1, "max_side_px": 20, "sou', "\x00\x00\x00", "[]\n", '{"recipe": 1}\n'])
def test_torn_manifest_line_is_tolerated(
    jobs: list[ConversionJob], convert: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture, tail: str
) -> None:
    convert(jobs[:3])
    manifest = tmp_path / "work" / "manifest.jsonl"
    with manifest.open("a") as stream:
        stream.write(tail)
    before = times(jobs[:3])
    with caplog.at_level(logging.WARNING):
        convert(jobs)
    assert times(jobs[:3]) == before
    assert "1 unreadable line(s)" in caplog.text
    assert (
        sum(
            line.startswith("{") and line.endswith("}") and len(json.loads(line)) > 1
            for line in manifest.read_text().splitlines()
        )
        == 5
    )


def test_killed_run_is_resumed(tmp_path: Path) -> None:
    """Kill the converting process while it works; the next run keeps what was finished and makes the rest."""
    rng = np.random.default_rng(0)
    jobs = [ConversionJob(tmp_path / f"{n}.jpg", tmp_path / "out" / f"{n}.png") for n in range(30)]
    for job in jobs:
        cv2.imwrite(str(job.source), rng.integers(0, 256, (300, 300), dtype=np.uint8))
    script = (
        "from pathlib import Path\nfrom d2rnet.cxr.conversion.image_conversion import ConversionJob, convert_images\n"
        "if __name__ == '__main__':\n    root = Path(__file__).parent\n"
        "    jobs = [ConversionJob(root / f'{n}.jpg', root / 'out' / f'{n}.png') for n in range(30)]\n"
        "    convert_images(jobs, max_side_px=200, workers=2, manifest=root / 'manifest.jsonl')\n"
    )
    (tmp_path / "convert.py").write_text(script)
    manifest = tmp_path / "manifest.jsonl"
    process = subprocess.Popen([sys.executable, str(tmp_path / "convert.py")])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (manifest.exists() and manifest.read_text().count("\n") >= 4):
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.2)  # workers notice
    finished = [Path(json.loads(line)["target"]) for line in manifest.read_text().split("\n")[:-1]]
    assert 4 <= len(finished) < 30
    before = {path: path.stat().st_mtime_ns for path in finished}
    results = convert_images(jobs, max_side_px=200, workers=1, manifest=manifest)
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert [(result.height, result.reason) for result in results] == [(200, None)] * 30
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".png"] * 30
    assert list((tmp_path / "out").glob(".*")) == []


def test_unfinished_files_of_a_killed_run_are_removed(jobs: list[ConversionJob], convert: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".0.x7f2.part.png").write_bytes(b"\x89PNG")
    convert(jobs)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png", "3.png", "4.png"]


def test_bad_images_are_set_aside_with_their_reason(jobs: list[ConversionJob], convert: Callable) -> None:
    jobs[1].source.write_bytes(b"")
    jobs[3].source.unlink()
    results = convert(jobs)
    assert [result.reason is None for result in results] == [True, False, True, False, True]
    assert results[1] == ConversionResult(jobs[1], 0, 0, 0, 0, results[1].reason)
    assert "image1.png: got an empty file (0 bytes); expected DICOM, PNG or JPG" in str(results[1].reason)
    assert "image3.png: no such file" in str(results[3].reason)
    assert not jobs[1].target.exists()


def test_a_mended_image_is_converted_on_the_next_run(jobs: list[ConversionJob], convert: Callable) -> None:
    whole = jobs[1].source.read_bytes()
    jobs[1].source.write_bytes(whole[:30])
    assert convert(jobs)[1].reason is not None
    jobs[1].source.write_bytes(whole)
    assert convert(jobs)[1].reason is None


def test_an_image_that_went_bad_leaves_its_old_png_out_of_the_results(jobs: list[ConversionJob], convert: Callable) -> None:
    convert(jobs)
    jobs[1].source.write_bytes(b"")
    assert convert(jobs)[1].height == 0


def test_two_images_with_one_target(jobs: list[ConversionJob], convert: Callable) -> None:
    clash = ConversionJob(jobs[1].source, jobs[0].target)
    with pytest.raises(
        DatasetError, match=r"1 PNG\(s\) would be written twice.*\n.*0.png: from .*image0.png and from .*image1.png"
    ):
        convert([*jobs, clash])
    assert not jobs[0].target.exists()


def test_manifest_in_use(jobs: list[ConversionJob], convert: Callable, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with (
        FileLock(tmp_path / "work" / "manifest.jsonl.lock"),
        pytest.raises(D2RNetError, match="another process is converting"),
    ):
        convert(jobs)


def test_full_disk_is_not_taken_for_a_bad_image(
    jobs: list[ConversionJob], convert: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", refuse)
        with pytest.raises(OSError, match="No space left on device"):
            convert(jobs)
    assert list((tmp_path / "out").iterdir()) == []
    assert all(result.reason is None for result in convert(jobs))


def test_no_images(convert: Callable) -> None:
    assert convert([]) == []


def test_write_png_is_lossless(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 17), dtype=np.uint8)
    write_png(tmp_path / "deep" / "a.png", pixels)
    assert np.array_equal(cv2.imread(str(tmp_path / "deep" / "a.png"), cv2.IMREAD_UNCHANGED), pixels)
