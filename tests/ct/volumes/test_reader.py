"""The reader on drawn volumes: every axis order and direction, every format, what is said of each."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from volume_samples import SPACING_ZYX, drawn_chest, write_nifti

from d2rnet.ct.volumes.reader import read_volume, read_volume_header

AXIS_CODES = [
    "".join(letters)
    for order in permutations(("RL", "AP", "IS"))
    for letters in product(*order)
]  # fmt: skip


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_order_and_direction_is_one_volume(tmp_path, codes):
    hu = drawn_chest()
    path = write_nifti(tmp_path / "chest.nii.gz", hu, codes=codes)
    volume = read_volume(path)
    assert np.array_equal(volume.hu, hu)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert volume.hu.dtype == np.int16
    header = read_volume_header(path)
    assert (header.shape_zyx, header.spacing_mm) == (hu.shape, pytest.approx(SPACING_ZYX))
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == codes


def test_heart_is_on_the_right_of_the_picture():
    hu = drawn_chest()
    middle = hu.shape[2] // 2
    assert (hu[:, :, middle:] == 40).sum() > 2 * (hu[:, :, :middle] == 40).sum()
