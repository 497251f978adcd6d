"""MetaImage and NRRD as SimpleITK writes them, packed and plain, beside the same volume as NIfTI."""

import numpy as np
import pytest
import SimpleITK
from volume_samples import SPACING_ZYX, noisy_chest

from d2rnet.ct.volumes.reader import read_volume, read_volume_header, volume_files


def written(path, hu: np.ndarray, *, packed: bool, turned: bool = False) -> None:
    """Write HU with SimpleITK; turned: stored from head to feet."""
    image = SimpleITK.GetImageFromArray(hu[::-1] if turned else hu)
    image.SetSpacing(SPACING_ZYX[::-1])
    if turned:
        image.SetDirection([1, 0, 0, 0, 1, 0, 0, 0, -1])
    SimpleITK.WriteImage(image, str(path), packed)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["chest.mha", "chest.mhd", "chest.nrrd", "chest.nhdr"])
def test_every_form_is_the_same_volume(tmp_path, name, packed, turned):
    hu = noisy_chest()
    written(tmp_path / name, hu, packed=packed, turned=turned)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.hu, hu)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    header = read_volume_header(tmp_path / name)
    assert (header.shape_zyx, header.stored_type) == (hu.shape, "int16")


def test_big_endian_meta_image(tmp_path):
    hu = noisy_chest()
    text = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nElementSpacing = 3.5 4 5\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "DimSize = 80 56 40\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "chest.mha").write_bytes(text.encode() + hu.astype(">i2").tobytes())
    assert np.array_equal(read_volume(tmp_path / "chest.mha").hu, hu)


def test_floats_are_rounded(tmp_path):
    hu = noisy_chest()
    image = SimpleITK.GetImageFromArray(hu.astype(np.float32) + np.float32(0.25))
    image.SetSpacing(SPACING_ZYX[::-1])
    SimpleITK.WriteImage(image, str(tmp_path / "chest.nrrd"), True)
    assert np.array_equal(read_volume(tmp_path / "chest.nrrd").hu, hu)


@pytest.mark.parametrize("named", ["chest.raw", "./chest.raw", "my chest.raw"])
@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_file_of_voxels_as_other_software_names_it(tmp_path, suffix, named):
    hu = noisy_chest()
    written(tmp_path / f"chest.{suffix}", hu, packed=False)
    header = tmp_path / f"chest.{suffix}"
    text = header.read_text()
    assert "chest.raw" in text
    header.write_text(text.replace("chest.raw", named))
    (tmp_path / "chest.raw").rename(tmp_path / named)
    assert np.array_equal(read_volume(header).hu, hu)
    assert volume_files(header) == [header, tmp_path / named]
