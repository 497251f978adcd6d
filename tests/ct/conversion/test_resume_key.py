"""What makes a converted array out of date: any file of its volume, whatever the format, and another volume in its place."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from volume_samples import chest_slices, noisy_chest, write_series

from d2rnet.ct.conversion import volume_shards
from d2rnet.ct.conversion.data_settings import CtVolumeConversionSettings

SETTINGS = CtVolumeConversionSettings.read({"conversion": {"spacing_mm": [10.0, 8.0, 8.0], "shape_zyx": [20, 28, 35]}})
FACTS = ("slope", "intercept", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm")


def volume(folder: Path, kind: str, seed: int = 0) -> Path:
    """A chest as a series in two folders, or as a header with a file of voxels."""
    hu = noisy_chest(seed)
    if kind == "series":
        slices = chest_slices(hu)
        write_series(folder / "series" / "a", slices[:20])
        write_series(folder / "series" / "b", slices[20:])
        return folder / "series"
    folder.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(hu)
    image.SetSpacing((3.5, 4.0, 5.0))
    SimpleITK.WriteImage(image, str(folder / f"chest.{kind}"), False)
    return folder / f"chest.{kind}"


@pytest.fixture
def convert(tmp_path):
    """Convert one source into the same array each time; returns the record's line and whether the array was kept."""

    def run(source: Path):
        row = {"volume_id": "v", "source": str(source), "file_name": "v.npy", **dict.fromkeys(FACTS)}
        line = volume_shards._write(volume_shards._convert(row, folder=tmp_path / "out", settings=SETTINGS))
        return line, line["kept"]

    return run


def change(path: Path) -> None:
    """Another content of the same size, and a later time."""
    data = bytearray(path.read_bytes())
    data[-2:] = bytes([1, 0]) if data[-2:] != bytes([1, 0]) else bytes([2, 0])
    path.write_bytes(data)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def test_an_unchanged_volume_is_kept(tmp_path, convert):
    for kind in ("series", "mhd", "nhdr"):
        source = volume(tmp_path / "in", kind)
        assert convert(source)[1] is False
        line, kept = convert(source)
        assert kept
        assert line["reason"] is None


@pytest.mark.parametrize(
    ("kind", "file"), [("series", "series/b/007.dcm"), ("mhd", "chest.raw"), ("nhdr", "chest.raw"), ("mhd", "chest.mhd")]
)
def test_any_file_of_a_volume_counts(tmp_path, convert, kind, file):
    source = volume(tmp_path / "in", kind)
    convert(source)
    changed = tmp_path / "in" / file
    if changed.suffix == ".mhd":
        changed.write_text("Comment = more\n" + changed.read_text())
    else:
        change(changed)
    line, kept = convert(source)
    assert not kept
    assert line["reason"] is None


def test_an_older_file_in_place_of_another_counts(tmp_path, convert):
    source = volume(tmp_path / "in", "series")
    convert(source)
    first, second = source / "b" / "003.dcm", source / "b" / "004.dcm"
    times = [path.stat().st_mtime_ns for path in (first, second)]
    os.utime(first, ns=(times[0] - 10**12, times[0] - 10**12))  # the newest of all stays the newest, the sum of sizes the same
    assert convert(source)[1] is False


def test_a_link_to_nowhere_is_no_slice_until_it_leads_somewhere(tmp_path, convert):
    source = volume(tmp_path / "in", "series")
    (source / "linked.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    assert convert(source)[0]["reason"] is None
    assert convert(source)[1] is True
    shutil.copy(source / "a" / "000.dcm", tmp_path / "elsewhere.dcm")
    line, kept = convert(source)
    assert not kept
    assert "1 slices are there twice, with the same pixels." in line["notes"]


def test_a_slice_that_is_gone_is_missed(tmp_path, convert):
    source = volume(tmp_path / "in", "series")
    convert(source)
    (source / "b" / "007.dcm").unlink()
    line, kept = convert(source)
    assert not kept
    assert "1 missing slice(s)" in line["reason"]


def test_voxels_that_are_gone_are_missed(tmp_path, convert):
    source = volume(tmp_path / "in", "mhd")
    convert(source)
    (tmp_path / "in" / "chest.raw").unlink()
    line, kept = convert(source)
    assert not kept
    assert "file of voxels is not there" in line["reason"]


@pytest.mark.parametrize("kind", ["series", "mhd"])
def test_another_volume_with_names_sizes_and_times_of_the_first_is_converted(tmp_path, convert, kind):
    first = volume(tmp_path / "first", kind)
    convert(first)
    before = np.load(tmp_path / "out/v.npy")
    second = volume(tmp_path / "second", kind, seed=1)
    for path in (tmp_path / "second").rglob("*"):
        shutil.copystat(tmp_path / "first" / path.relative_to(tmp_path / "second"), path)
    assert convert(second)[1] is False
    assert not np.array_equal(np.load(tmp_path / "out/v.npy"), before)


def test_a_table_that_says_nothing_of_a_volume(tmp_path):
    """Beside volumes that it knows of, what it does not say is NaN; the array is made and kept all the same."""
    source = volume(tmp_path / "in", "mhd")
    row = {"volume_id": "v", "source": str(source), "file_name": "v.npy", **dict.fromkeys(FACTS, float("nan"))}
    kept = [
        volume_shards._write(volume_shards._convert(row, folder=tmp_path / "out", settings=SETTINGS))["kept"] for _ in range(2)
    ]
    assert kept == [False, True]
