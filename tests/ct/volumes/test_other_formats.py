"""MetaImage and NRRD as SimpleITK writes them, packed and plain, beside the same volume as NIfTI."""

import numpy as np
import pytest
import SimpleITK
from volume_samples import SPACING_ZYX, noisy_chest

from d2rnet.ct.volumes.other_formats import read_other, read_other_header
from d2rnet.ct.volumes.reader import read_volume, read_volume_header, volume_files
from d2rnet.errors import DatasetError


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


def turned_by(degrees: float, first: int, second: int) -> np.ndarray:
    """A rotation in the plane of two axes."""
    angle = np.radians(degrees)
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
@pytest.mark.parametrize(
    "directions",
    [
        turned_by(25, 0, 1) @ turned_by(-10, 1, 2),
        np.eye(3)[[2, 0, 1]],
        np.eye(3)[[1, 2, 0]] * [-1, 1, -1],
        np.diag([-1.0, 1.0, 1.0]),
    ],
    ids=["oblique", "permuted", "permuted and turned", "mirrored"],
)
def test_geometry_is_that_of_simpleitk(tmp_path, suffix, directions):
    image = SimpleITK.GetImageFromArray(noisy_chest()[:4, :5, :6])
    image.SetSpacing((0.7, 1.3, 2.9))
    image.SetDirection(directions.ravel().tolist())
    path = tmp_path / f"chest.{suffix}"
    SimpleITK.WriteImage(image, str(path))
    oracle = SimpleITK.ReadImage(str(path))
    columns = np.array(oracle.GetDirection()).reshape(3, 3) * np.array(oracle.GetSpacing())
    stored = read_other(path, {"mha": "MetaImage", "nrrd": "NRRD"}[suffix])
    np.testing.assert_allclose(stored.affine_lps[:3, :3], columns[:, ::-1], atol=1e-9)
    assert np.array_equal(stored.values, SimpleITK.GetArrayFromImage(oracle))


PIXELS = ["Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64"]


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
@pytest.mark.parametrize("pixel", PIXELS)
def test_every_type_of_number_by_its_name(tmp_path, suffix, pixel):
    array = np.arange(60).reshape(3, 4, 5).astype(pixel.lower())
    path = tmp_path / f"numbers.{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    header = read_other_header(path, {"mha": "MetaImage", "nrrd": "NRRD"}[suffix])
    assert (header.stored_type, header.shape_zyx) == (pixel.lower(), (3, 4, 5))
    assert np.array_equal(read_other(path, {"mha": "MetaImage", "nrrd": "NRRD"}[suffix]).values, array)


@pytest.mark.parametrize("rank", ["-1", "0", "4", "99999999999", "", "x"])
def test_a_number_of_axes_that_ends_simpleitk_is_refused(tmp_path, rank):
    """MetaIO reads NDims = -1 with a segmentation fault, which no process survives."""
    path = tmp_path / "chest.mha"
    written(path, noisy_chest(), packed=False)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = " + rank.encode()))
    with pytest.raises(DatasetError, match=r"dimensions .* expected a volume of three"):
        read_volume(path)
