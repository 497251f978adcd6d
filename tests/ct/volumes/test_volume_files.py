"""Which files make a volume: all of them, in every format, and no other."""

import os

import pytest
import SimpleITK
from volume_samples import chest_slices, noisy_chest, write_nifti, write_series

from d2rnet.ct.volumes.reader import volume_files
from d2rnet.errors import DatasetError


def test_a_single_file(tmp_path):
    path = write_nifti(tmp_path / "chest.nii.gz", noisy_chest())
    assert volume_files(path) == [path]


def test_every_file_below_the_folder_of_a_series(tmp_path):
    slices = chest_slices(noisy_chest()[:6])
    folder = write_series(tmp_path / "study", slices[:2])
    write_series(folder / "part" / "deeper", slices[2:])
    found = volume_files(folder)
    assert [str(path.relative_to(folder)) for path in found] == [
        "000.dcm",
        "001.dcm",
        *[f"part/deeper/{number:03}.dcm" for number in range(4)],
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["mhd", "nhdr", "mha", "nrrd"])
def test_header_and_file_of_voxels(tmp_path, suffix, packed):
    path = tmp_path / f"chest.{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noisy_chest()), str(path), packed)
    (tmp_path / "another.raw").write_bytes(b"of another volume")
    found = volume_files(path)
    assert found[0] == path
    assert set(found) == set(tmp_path.iterdir()) - {tmp_path / "another.raw"}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("chest.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = LIST\n000.raw\n001.raw\n"),
        ("chest.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = %03d.raw 0 1 1\n"),
        ("chest.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = \n"),
        ("chest.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = ./\n"),
        ("chest.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = ../chest.raw\n"),
        ("chest.nhdr", "NRRD0004\ndimension: 3\nencoding: raw\ndata file: LIST\n000.raw\n001.raw\n"),
        ("chest.nhdr", "NRRD0004\ndimension: 3\nencoding: raw\ndata file: %03d.raw 0 1 1\n"),
    ],
)
def test_voxels_in_several_files_are_refused_as_by_the_reader(tmp_path, name, header):
    (tmp_path / name).write_text(header)
    with pytest.raises(DatasetError, match="voxels in several files"):
        volume_files(tmp_path / name)


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        volume_files(tmp_path / "absent.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(DatasetError, match=r"pipe\.nii"):
        volume_files(tmp_path / "pipe.nii")
