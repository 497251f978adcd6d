"""Spacing and orientation that a header states, does not state, or that a table states otherwise, in every format."""

import struct

import nibabel as nib
import numpy as np
import pytest
from volume_samples import SPACING_ZYX, affine_of, chest_slices, noisy_chest, write_series

from d2rnet.ct.volumes.reader import read_volume, read_volume_header
from d2rnet.errors import DatasetError

HU = noisy_chest()
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
META_SIZE = "DimSize = {} {} {}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 80 56 40\nendian: little\nencoding: raw\n"
SPACING = "ElementSpacing = 3.5 4 5\n"
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
FROM_TABLE = "the header has no spacing: it is taken from the metadata table."
PIXDIM, SFORM = 76, 254


def meta(tmp_path, fields: str, hu: np.ndarray = HU):
    path = tmp_path / "chest.mha"
    path.write_bytes((META + fields + META_SIZE.format(*hu.shape[::-1])).encode() + hu.tobytes())
    return path


def nrrd(tmp_path, fields: str, hu: np.ndarray = HU):
    path = tmp_path / "chest.nrrd"
    path.write_bytes((NRRD + fields + "\n").encode() + hu.tobytes())
    return path


def both(path, **options):
    """Read a volume; its header says the same."""
    volume = read_volume(path, **options)
    header = read_volume_header(path, **options)
    assert (header.shape_zyx, header.spacing_mm) == (volume.hu.shape, pytest.approx(volume.spacing_mm))
    return volume


def refused(path, complaint: str, **options) -> None:
    for read in (read_volume, read_volume_header):
        with pytest.raises(DatasetError, match=complaint) as error:
            read(path, **options)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (MATRIX, "no spacing"),
        (MATRIX + "elementspacing = 3.5 4 5\n", "no spacing"),
        (MATRIX + "ElementSpacing = 0 4 5\n", "no spacing"),
        (MATRIX + "ElementSpacing = nan 4 5\n", "no spacing"),
        (MATRIX + "ElementSpacing = -3.5 4 5\n", "spacing of 5 x 4 x -3.5 mm"),
        (SPACING, "no orientation"),
        (SPACING + "AnatomicalOrientation = RAI\n", "no orientation"),
        (SPACING + "TransformMatrix = 0 0 0 0 0 0 0 0 0\n", "at right angles"),
        ("", "no orientation"),
        (SPACING + MATRIX + "Modality = MET_MOD_MR\n", "modality MR"),
        (SPACING + MATRIX + "ElementToIntensityFunctionSlope = nan\n", "slope nan"),
    ],
)
def test_meta_image_that_does_not_say_where_it_lies_is_refused(tmp_path, fields, complaint):
    refused(meta(tmp_path, fields), complaint)


@pytest.mark.parametrize("key", ["TransformMatrix", "Rotation", "Orientation"])
@pytest.mark.parametrize("spacing", ["ElementSpacing", "ElementSize"])
def test_meta_image_in_all_its_words(tmp_path, key, spacing):
    turned = np.ascontiguousarray(HU[:, ::-1])  # stored from the back to the front
    volume = both(meta(tmp_path, f"{key} = 1 0 0 0 -1 0 0 0 1\n{spacing} = 3.5 4 5\n", turned))
    assert np.array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)


def test_meta_image_with_its_own_scaling(tmp_path):
    path = meta(
        tmp_path,
        SPACING + MATRIX + "ElementToIntensityFunctionSlope = 0.5\nElementToIntensityFunctionOffset = -1024\n",
        ((HU + 1024) * 2).astype(np.int16),
    )
    volume = both(path)
    assert np.array_equal(volume.hu, HU)
    assert volume.hu_source == "as the header has it, slope 0.5, intercept -1024"


DIRECTIONS = "space directions: (3.5,0,0) (0,4,0) (0,0,5)\n"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("", "no orientation"),
        ("spacings: 3.5 4 5\n", "no orientation"),
        ("space dimension: 3\n" + DIRECTIONS, "no orientation"),
        ("space: scanner-xyz\n" + DIRECTIONS, "no orientation"),
        ("space: 3D-right-handed\n" + DIRECTIONS, "no orientation"),
        ("space: left-posterior-superior\n", "no orientation"),
        ("space:=left-posterior-superior\nspace dimension: 3\n" + DIRECTIONS, "no orientation"),
        ("space: left-posterior-superior\nspace directions: none (0,4,0) (0,0,5)\n", "no orientation"),
        ('space: left-posterior-superior\nspace units: "m" "m" "m"\n' + DIRECTIONS, "unit"),
        ("space: left-posterior-superior\nspace directions: (0,0,0) (0,4,0) (0,0,5)\n", "no orientation"),
        ("space: left-posterior-superior\nspace directions: (3.5,0,0) (1,4,0) (0,0,5)\n", "right angles"),
    ],
)
def test_nrrd_that_does_not_say_where_it_lies_is_refused(tmp_path, fields, complaint):
    refused(nrrd(tmp_path, fields), complaint)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LAS", (1, -1, 1)),
        ("Right-Anterior-Superior", (-1, -1, 1)),
    ],
)
def test_nrrd_in_every_space_of_the_patient(tmp_path, space, signs):
    x, y, z = signs
    fields = f'space: {space}\nspace directions: (3.5,0,0) (0,4,0) (0,0,5)\nspace units: "mm" "mm" "mm"\n'
    volume = both(nrrd(tmp_path, fields, np.ascontiguousarray(HU[::z, ::y, ::x])))
    assert np.array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)


def sagittal_meta(tmp_path, fields: str):
    """Stored slice by slice from the right to the left: i along y, j along z, k along x."""
    stored = np.ascontiguousarray(np.transpose(HU, (2, 0, 1)))  # (x, z, y): i, the last, is y
    return meta(tmp_path, "TransformMatrix = 0 1 0 0 0 1 1 0 0\n" + fields, stored)


@pytest.mark.parametrize(
    ("fields", "notes"), [("", FROM_TABLE), ("ElementSpacing = 0 0 0\n", FROM_TABLE), ("ElementSpacing = 4 5 3.5\n", "")]
)
def test_spacing_of_a_table_goes_to_the_patients_axes_in_meta_image(tmp_path, fields, notes):
    volume = both(sagittal_meta(tmp_path, fields), stated_spacing_mm=SPACING_ZYX)
    assert np.array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert volume.notes == ((notes,) if notes else ())


def nifti_without_spacing(tmp_path, codes: str, pixdim=(0.0, 0.0, 0.0)):
    """Only a q-form tells the directions."""
    affine, order, turned = affine_of(codes, HU.shape)
    stored = np.transpose(HU, order)[tuple(slice(None, None, -1) if turn else slice(None) for turn in turned)]
    image = nib.Nifti1Image(np.ascontiguousarray(stored), affine)
    image.header.set_qform(affine, code=1)
    data = bytearray(image.to_bytes())
    struct.pack_into("<3f", data, PIXDIM + 4, *pixdim)
    struct.pack_into("<h", data, SFORM, 0)
    (tmp_path / "chest.nii").write_bytes(data)
    return tmp_path / "chest.nii"


@pytest.mark.parametrize("codes", ["LPS", "RAS", "ASL", "PIR", "SLP", "IAR", "PSR", "SAL"])
def test_spacing_of_a_table_goes_to_the_patients_axes_in_nifti(tmp_path, codes):
    path = nifti_without_spacing(tmp_path, codes)
    volume = both(path, stated_spacing_mm=SPACING_ZYX)
    assert np.array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert FROM_TABLE in volume.notes
    refused(path, "neither a usable s-form nor a q-form with pixel sizes")


def test_only_the_lengths_that_a_header_lacks_come_from_a_table(tmp_path):
    path = nifti_without_spacing(tmp_path, "PIR", (4.0, 0.0, 3.5))  # i: y, j: z, k: x
    volume = both(path, stated_spacing_mm=(5.0, 9.0, 9.0))
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    assert FROM_TABLE in volume.notes
    assert (
        "spacing of the metadata table is not the header's: 5 x 9 x 9 mm against 5 x 4 x 3.5 mm, which is taken."
        in volume.notes
    )


def test_a_table_may_give_what_a_damaged_s_form_does_not(tmp_path):
    path = nifti_without_spacing(tmp_path, "LPS")
    data = bytearray(path.read_bytes())
    struct.pack_into("<h", data, SFORM, 1)
    struct.pack_into("<12f", data, 280, *[0.0] * 12)
    path.write_bytes(data)
    volume = both(path, stated_spacing_mm=SPACING_ZYX)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)


def test_directions_are_compared_though_the_pixel_sizes_are_zero(tmp_path):
    affine = affine_of("LPS", HU.shape)[0]
    image = nib.Nifti1Image(np.ascontiguousarray(HU.T), affine)
    image.header.set_qform(affine_of("RPS", HU.shape)[0], code=1)
    image.header.set_sform(affine, code=1)
    data = bytearray(image.to_bytes())
    struct.pack_into("<3f", data, PIXDIM + 4, 0, 0, 0)
    (tmp_path / "chest.nii").write_bytes(data)
    refused(tmp_path / "chest.nii", "an s-form .* and a q-form .* of different directions", stated_spacing_mm=SPACING_ZYX)


def plain_nifti(tmp_path):
    path = tmp_path / "plain.nii"
    path.write_bytes(nib.Nifti1Image(np.ascontiguousarray(HU.T), affine_of("LPS", HU.shape)[0]).to_bytes())
    return path


@pytest.mark.parametrize(
    "make",
    [
        plain_nifti,
        lambda folder: meta(folder, SPACING + MATRIX),
        lambda folder: nrrd(folder, "space: left-posterior-superior\n" + DIRECTIONS),
        lambda folder: write_series(folder / "series", chest_slices(HU)),
    ],
    ids=["NIfTI", "MetaImage", "NRRD", "DICOM"],
)
def test_a_table_that_contradicts_the_header_is_said_and_not_taken(tmp_path, make):
    path = make(tmp_path)
    volume = both(path, stated_spacing_mm=(5.0, 3.5, 4.0))  # rows and columns mixed up
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)
    said = "spacing of the metadata table is not the header's: 5 x 3.5 x 4 mm against 5 x 4 x 3.5 mm, which is taken."
    assert said in volume.notes
    assert said in read_volume_header(path, stated_spacing_mm=(5.0, 3.5, 4.0)).notes
    assert not both(path, stated_spacing_mm=(5.001, 4.0, 3.5)).notes  # digits of the table
