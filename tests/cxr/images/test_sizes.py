"""A radiograph in several sizes: those of single readings, the file decoded once unless a size is decoded coarsely."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from dicom_samples import chest, data_set
from PIL import Image
from pydicom import dcmwrite

from d2rnet.cxr.images.reader import read_header, read_radiograph, read_radiograph_at


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a name whenever an image is decoded or a DICOM header is read."""
    calls: list[str] = []

    def count(module: str, name: str) -> None:
        function = getattr(importlib.import_module(module), name)

        def counted(*values, **options):
            calls.append(name)
            return function(*values, **options)

        monkeypatch.setattr(f"{module}.{name}", counted)

    count("d2rnet.cxr.images.dicom_file", "pixel_array")
    count("d2rnet.cxr.images.image_files", "_to_grey")
    count("d2rnet.cxr.images.dicom_file", "read_partial")
    return calls


def write(path: Path, kind: str) -> Path:
    """Write a radiograph of 400 x 300 pixels."""
    if kind == "DICOM":
        dcmwrite(path, data_set(chest(400, 300)), enforce_file_format=True)
    else:
        Image.fromarray((chest(400, 300) >> 4).astype(np.uint8)).save(path, format=kind)
    return path


@pytest.mark.parametrize(
    ("kind", "side", "times"), [("DICOM", 300, 1), ("DICOM", 90, 1), ("PNG", 90, 1), ("JPEG", 300, 1), ("JPEG", 90, 2)]
)
def test_several_sizes_from_one_decoding(tmp_path: Path, decoded: list[str], kind: str, side: int, times: int) -> None:
    path = write(tmp_path / "image", kind)
    single = [read_radiograph(path, max_side_px=wanted).pixels for wanted in (side, None)]
    decoded.clear()
    header, found = read_radiograph_at(path, [side, None])
    assert len(decoded) - decoded.count("read_partial") == times and decoded.count("read_partial") <= 1
    assert header == read_header(path)
    for radiograph, expected in zip(found, single, strict=True):
        assert np.array_equal(radiograph.pixels, expected) and radiograph.source_hw == (400, 300)
