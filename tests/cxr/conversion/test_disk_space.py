"""Free disk against what the conversion will write."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from d2rnet.cxr.conversion.disk_space import check_space
from d2rnet.cxr.conversion.image_conversion import write_png
from d2rnet.files.problems import Problems

HEIGHTS = np.full(1000, 2000)
WIDTHS = np.full(1000, 1000)  # at 1000 px: 1000 x 500, so 500 MPx in all: at least 140 MB, 200 MB as a rule


def found(monkeypatch: pytest.MonkeyPatch, folder: Path, free: float, kept: int = 0) -> Problems:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    problems = Problems()
    check_space(HEIGHTS, WIDTHS, problems, folder=folder / "verify", max_side_px=1000, kept_side_px=kept)
    return problems


def test_images_that_cannot_fit_are_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (problem,) = found(monkeypatch, tmp_path, 139e6).all()
    assert problem.kind == "too_little_space" and "0.1 GB free" in problem.got
    assert "about 0.2 GB for 1000 PNG files of at most 1000 px" in problem.expected


def test_what_may_not_fit_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(found(monkeypatch, tmp_path, 201e6)) == 0 and caplog.messages == []
    assert len(found(monkeypatch, tmp_path, 150e6)) == 0 and "will need about 0.2 GB" in caplog.text
    caplog.clear()
    assert len(found(monkeypatch, tmp_path, 201e6, kept=100)) == 0 and len(caplog.messages) == 1


def test_an_earlier_conversion_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(bytes(2_000_000))
    assert len(found(monkeypatch, tmp_path, 139e6)) == 0


def test_small_images_are_not_enlarged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4_100))
    problems = Problems()
    small = np.full(1, 100)
    check_space(small, small, problems, folder=tmp_path / "a" / "b" / "c", max_side_px=1000, kept_side_px=0)
    assert len(problems) == 0


def test_a_smooth_picture_needs_less_than_the_least(tmp_path: Path) -> None:
    """The estimate is of radiographs; what it calls impossible is so for pictures with a radiograph's noise."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (16, 16), dtype=np.uint8), (512, 512), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
    write_png(tmp_path / "a.png", noisy)
    assert (tmp_path / "a.png").stat().st_size > 0.28 * noisy.size
