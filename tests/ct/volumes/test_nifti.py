"""Odd NIfTI headers that can be mended, what is said of them, and oblique volumes."""

import struct

import nibabel as nib
import numpy as np
import pytest
from volume_samples import SPACING_ZYX, affine_of, noisy_chest

from d2rnet.ct.volumes.reader import read_volume, read_volume_header
from d2rnet.errors import DatasetError

PIXDIM, SLOPE, UNITS, QFORM, SFORM, SROW = 76, 112, 123, 252, 254, 280


def chest_bytes() -> bytearray:
    """A plain NIfTI file, axes L, P, S, with both forms."""
    hu = noisy_chest()
    affine = affine_of("LPS", hu.shape)[0]
    image = nib.Nifti1Image(np.ascontiguousarray(hu.T), affine)
    image.header.set_qform(affine, code=1)
    return bytearray(image.to_bytes())


def packed(data: bytearray, at: int, layout: str, *values: float) -> bytearray:
    """Other bytes in the header."""
    struct.pack_into("<" + layout, data, at, *values)
    return data


def read(tmp_path, data: bytearray, **options):
    """Read a file of these bytes; header and voxels agree."""
    path = tmp_path / "chest.nii"
    path.write_bytes(data)
    volume = read_volume(path, **options)
    header = read_volume_header(path, **options)
    assert (header.shape_zyx, header.spacing_mm) == (volume.hu.shape, volume.spacing_mm)
    return volume


def test_pixel_sizes_that_disagree_give_way_to_the_s_form(tmp_path):
    data = packed(packed(chest_bytes(), PIXDIM + 4, "3f", 1.0, 1.0, 1.0), QFORM, "h", 0)
    volume = read(tmp_path, data)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert "pixel sizes 1 x 1 x 1 disagree with the s-form, 3.5 x 4 x 5: it is taken." in volume.notes


def test_q_form_is_taken_where_there_is_no_s_form(tmp_path):
    volume = read(tmp_path, packed(chest_bytes(), SFORM, "h", 0))
    assert np.array_equal(volume.hu, noisy_chest())
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)


def test_s_form_of_zeros_gives_way_to_the_q_form(tmp_path):
    volume = read(tmp_path, packed(chest_bytes(), SROW, "12f", *[0.0] * 12))
    assert np.array_equal(volume.hu, noisy_chest())
    assert "the s-form is no geometry" in volume.notes[0]


def test_spacing_of_a_table_is_the_last_resort(tmp_path):
    data = packed(packed(chest_bytes(), PIXDIM + 4, "3f", 0.0, 0.0, 0.0), SFORM, "h", 0)
    volume = read(tmp_path, data, stated_spacing_mm=(5.0, 0.7, 0.6))
    assert volume.spacing_mm == pytest.approx((5.0, 0.7, 0.6))
    assert "the header has no spacing: it is taken from the metadata table." in volume.notes
    with pytest.raises(DatasetError, match="neither a usable s-form nor a q-form"):
        read(tmp_path, data)


def test_spacing_of_a_table_is_not_used_where_the_header_has_one(tmp_path):
    assert read(tmp_path, chest_bytes(), stated_spacing_mm=(1.0, 1.0, 1.0)).spacing_mm == pytest.approx(SPACING_ZYX)


def test_true_metres_become_millimetres(tmp_path):
    data = packed(packed(chest_bytes(), UNITS, "B", 1), QFORM, "h", 0)
    for row in range(3):
        values = np.array(struct.unpack_from("<4f", data, SROW + 16 * row)) / 1000
        packed(data, SROW + 16 * row, "4f", *values)
    volume = read(tmp_path, data)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert "the header's unit is metres: turned into millimetres." in volume.notes


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 5.0), (float("nan"), float("nan")), (float("nan"), 0.0)])
def test_no_slope_is_no_scaling(tmp_path, slope, inter):
    volume = read(tmp_path, packed(chest_bytes(), SLOPE, "2f", slope, inter))
    assert np.array_equal(volume.hu, noisy_chest())


def test_bytes_behind_the_voxels_are_said(tmp_path):
    volume = read(tmp_path, chest_bytes() + bytes(100))
    assert "100 bytes behind the voxels were ignored." in volume.notes


def test_oblique_volume_is_straightened(tmp_path):
    # a straight bright rod along the patient's axis, seen by a scanner frame that is turned by 12 degrees about x
    angle = np.radians(12)
    shape = (50, 60, 50)  # i, j, k of 3 mm
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * 3.0
    places = np.stack(np.meshgrid(*[np.arange(side) for side in shape], indexing="ij"), axis=-1) @ affine[:3, :3].T
    centre = places[25, 30, 25]
    across = np.hypot(places[..., 0] - centre[0], places[..., 1] - centre[1])  # from the rod, which runs along z
    stored = np.where(across < 9, 500, np.where(across < 60, 40, -1000)).astype(np.int16)
    path = tmp_path / "oblique.nii"
    path.write_bytes(nib.Nifti1Image(stored, affine).to_bytes())
    volume = read_volume(path)
    assert "axes 12.0 degrees off the patient's" in volume.notes[0]
    assert volume.spacing_mm == pytest.approx((3.0, 3.0, 3.0))
    middle = volume.hu.shape[0] // 2
    columns = [np.argwhere(part > 300).mean(axis=0) for part in volume.hu[middle - 15 : middle + 16]]
    drift = np.polyfit(np.arange(31), np.array(columns), 1)[0]  # voxels a slice, rows and columns; tan(12 degrees) is 0.21
    assert np.abs(drift).max() < 0.02
    assert volume.hu[0, 0, 0] == -1024  # outside
