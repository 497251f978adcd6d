"""Real CT, where it is beside the project: outcome of every file, HU at places chosen by eye, which side is which."""

from pathlib import Path

import numpy as np
import pytest
from real_inputs import PAGE, outcomes, table

from d2rnet.ct.volumes.reader import read_volume

CHEST = "ct_real/ts_chest_cta_1p5mm/ct.nii.gz"
ABDOMEN = "ct_real/ts_abdomen_3mm/ct.nii.gz"
UPPER_ABDOMEN = "ct_real/ts_dicom_j2k"
RIGHT_LUNG = "ct_real/elastix_right_lung/3DCT_lung_baseline_small.mha"
TWO_SLICES = "ct_real/lungmask_2slices"
REFUSED = {  # file -> words of its reason; every other file is converted
    "ct_odd/dicom/missing_slices": "missing slice",
    "ct_odd/dicom/no_positions": "without position",
    "ct_odd/dicom/truncated_pixels": "cut off at 100 bytes",
    "ct_odd/nifti/all_air.nii.gz": "the value -1024 in every voxel",
    "ct_odd/nifti/bad_magic.nii.gz": "magic word",
    "ct_odd/nifti/constant_zero.nii.gz": "the value 0 in every voxel",
    "ct_odd/nifti/dim2_slice.nii.gz": "2 dimension",
    "ct_odd/nifti/empty.nii.gz": "empty file",
    "ct_odd/nifti/five_slices.nii.gz": "few_slices",
    "ct_odd/nifti/gzip_of_text.nii.gz": "a file that starts with 74 68 69 73",
    "ct_odd/nifti/int8_windowed.nii.gz": "values never below -90",
    "ct_odd/nifti/mask_0_1.nii.gz": "a mask",
    "ct_odd/nifti/no_qform_no_sform.nii.gz": "neither a usable s-form nor a q-form",
    "ct_odd/nifti/rgb24.nii.gz": "RGB",
    "ct_odd/nifti/single_slice_3d.nii.gz": "topogram",
    "ct_odd/nifti/truncated_gz.nii.gz": "cut off",
    "ct_odd/nifti/uint8_windowed.nii.gz": "values never below 0",
    "ct_real/elastix_right_lung/3DCT_lung_baseline_mask.mha": "a mask",
    "ct_real/elastix_right_lung/3DCT_lung_followup_segmentation.mha": "a mask",
    "ct_real/ge_head_tilt": "head",
    "ct_real/lungmask_2slices": "few_slices",
    "ct_real/pydicom_ct_small": "a single slice",
    "ct_real/rtutils_phantom": "a single slice",
    "ct_real/ts_abdomen_3mm/ct.nii.gz": "abdomen",
    "ct_real/ts_abdomen_3mm/ct_sm.nii.gz": "abdomen",
    "ct_real/ts_dicom_j2k": "abdomen",
}
# file, tissue, slice, rows, columns (chosen on pictures), lowest and highest mean HU that the tissue may have
PLACES = [
    (CHEST, "lung", 110, (95, 110), (88, 98), -900, -650),
    (CHEST, "air in a bronchus", 110, (79, 82), (53, 61), -1010, -900),
    (CHEST, "fat", 110, (4, 12), (85, 100), -130, -70),
    (CHEST, "liver", 40, (20, 45), (20, 45), 40, 110),
    (CHEST, "blood with contrast, aorta", 110, (44, 54), (46, 56), 300, 600),
    (CHEST, "spongy bone", 110, (97, 105), (39, 47), 80, 300),
    (ABDOMEN, "air in the room", 60, (2, 8), (5, 15), -1020, -980),
    (ABDOMEN, "gas in the bowel", 85, (21, 26), (41, 48), -1010, -920),
    (ABDOMEN, "fat", 60, (70, 82), (12, 24), -130, -90),
    (ABDOMEN, "muscle (psoas)", 60, (54, 60), (43, 49), 20, 70),
    (ABDOMEN, "liver", 105, (30, 60), (25, 50), 30, 70),
    (ABDOMEN, "spongy bone", 60, (53, 58), (57, 66), 80, 300),
    (UPPER_ABDOMEN, "air in the room", 10, (20, 80), (200, 300), -1020, -980),
    (UPPER_ABDOMEN, "muscle of the back", 10, (375, 390), (205, 225), 10, 70),
    (UPPER_ABDOMEN, "liver with contrast", 10, (230, 300), (120, 190), 60, 130),
    (UPPER_ABDOMEN, "spongy bone", 10, (322, 338), (238, 256), 80, 300),
    (RIGHT_LUNG, "lung", 30, (50, 65), (20, 40), -980, -800),
    (RIGHT_LUNG, "liver", 12, (25, 50), (15, 40), 30, 80),
    (RIGHT_LUNG, "spongy bone", 12, (52, 58), (50, 56), 80, 300),
    (TWO_SLICES, "fat of the breast", 0, (130, 145), (100, 140), -150, -80),
    (TWO_SLICES, "muscle", 0, (440, 455), (200, 230), 0, 70),
    (TWO_SLICES, "spongy bone", 0, (375, 395), (258, 275), 150, 450),
]


def read(shared_data: Path, name: str) -> np.ndarray:
    """(Z, Y, X) HU of a real volume; skips where it is not there."""
    if not (shared_data / name).exists():
        pytest.skip(f"{name} is not on this machine")
    return read_volume(shared_data / name).hu


def test_every_file_is_converted_or_refused_for_the_right_reason(shared_data):
    if not (shared_data / "ct_odd").is_dir():
        pytest.skip("the odd volumes are not on this machine")
    found = outcomes(shared_data)
    assert len(found) >= 50
    assert {item.name for item in found if not item.is_converted} == REFUSED.keys()
    wrong = [f"{item.name}: {item.said}" for item in found if REFUSED.get(item.name, "") not in item.said]
    assert wrong == []
    assert table(found) in PAGE.read_text(encoding="utf-8"), f"stale; run 'python {Path('tests/ct/volumes/real_inputs.py')}'"


@pytest.mark.parametrize(("name", "tissue", "z", "rows", "columns", "lowest", "highest"), PLACES)
def test_tissues_have_their_hounsfield_units(shared_data, name, tissue, z, rows, columns, lowest, highest):
    place = read(shared_data, name)[z, slice(*rows), slice(*columns)]
    assert lowest <= place.mean() <= highest, tissue


def test_left_ventricle_is_on_the_patients_left_and_liver_on_the_right(shared_data):
    hu = read(shared_data, CHEST)
    middle = 47  # column of the spine in these slices, seen on pictures
    bright = hu[70:90] > 300  # contrast in the heart's chambers and the descending aorta
    assert bright[:, :, middle:].sum() > 1.5 * bright[:, :, :middle].sum()
    below = (hu[30:45, :60] > 20) & (hu[30:45, :60] < 150)  # liver in front of the spine
    assert below[:, :, :middle].mean() > 1.3 * below[:, :, middle:].mean()


def test_spine_is_behind_and_sternum_in_front(shared_data):
    bone = read(shared_data, ABDOMEN)[50:100] > 250
    assert bone[:, 50:].sum() > 3 * bone[:, :50].sum()


@pytest.mark.parametrize(("name", "slices"), [(ABDOMEN, slice(100, 110)), (UPPER_ABDOMEN, slice(0, 20))])
def test_stomach_is_on_the_left_and_liver_on_the_right(shared_data, name, slices):
    hu = read(shared_data, name)[slices]
    spine = {ABDOMEN: 62, UPPER_ABDOMEN: 250}[name]
    front = {ABDOMEN: slice(20, 50), UPPER_ABDOMEN: slice(200, 260)}[name]
    inside = {ABDOMEN: slice(20, 105), UPPER_ABDOMEN: slice(160, 340)}[name]
    part = hu[:, front, inside]
    middle = spine - inside.start
    gas = part < -700
    assert gas[:, :, middle:].sum() > 5 * gas[:, :, :middle].sum()
    solid = (part > 20) & (part < 150)
    assert solid[:, :, :middle].mean() > solid[:, :, middle:].mean()


def test_lung_is_above_the_liver_and_the_heart_beside_it(shared_data):
    hu = read(shared_data, RIGHT_LUNG)
    assert np.mean(hu[40] < -500) > 2 * np.mean(hu[10] < -500)  # z grows to the head
    heart = (hu[25:35, 15:45] > -50) & (hu[25:35, 15:45] < 100)
    assert heart[:, :, 42:].mean() > 5 * heart[:, :, 20:40].mean()  # right lung: its heart lies to the patient's left


def test_same_crop_in_every_odd_orientation_is_one_volume(shared_data):
    reference = read(shared_data, "ct_odd/nifti/ref_int16.nii.gz")
    for name in ("ori_ASL", "ori_LPS", "ori_RAI", "ori_RAS", "big_endian", "int32", "float32_hu", "nifti2", "slope0"):
        assert np.array_equal(read(shared_data, f"ct_odd/nifti/{name}.nii.gz"), reference), name
    scaled = read(shared_data, "ct_odd/nifti/slope1_inter-1024.nii.gz")
    assert np.abs(scaled.astype(int) - np.maximum(reference, -1024)).max() == 0
    plain = read(shared_data, "ct_odd/dicom/regular")
    for name in ("reversed_order", "shuffled_instance_numbers"):
        assert np.array_equal(read(shared_data, f"ct_odd/dicom/{name}"), plain), name
