"""DICOM slices that other software writes or that do not belong: their pixels' bits, padding, scaling, kind and direction."""

import os
from itertools import product

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)
from volume_samples import SPACING_ZYX, chest_slices, ct_slice, noisy_chest, write_series

from d2rnet.ct.volumes.reader import read_volume, read_volume_header
from d2rnet.errors import DatasetError

HU = noisy_chest()
Z, Y, X = HU.shape


def changed(change, hu: np.ndarray = HU):
    """The slices of a chest, each changed by its number."""
    slices = chest_slices(hu)
    for number, dataset in enumerate(slices):
        change(number, dataset)
    return slices


def refused(folder, complaint: str) -> None:
    for read in (read_volume, read_volume_header):
        with pytest.raises(DatasetError, match=complaint):
            read(folder)


# --- bits


def high_bits(number, dataset):
    dataset.BitsStored, dataset.HighBit = 12, 15
    dataset.PixelData = (np.clip(HU[number] + 1024, 0, 4095).astype("<u2") << 4).tobytes()


def test_pixels_in_the_high_bits_are_refused(tmp_path):
    refused(write_series(tmp_path / "series", changed(high_bits)), "pixels of 12 bits below bit 15; expected bit 11")


def overlay_bits(number, dataset):
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelData = (np.clip(HU[number] + 1024, 0, 4095).astype("<u2") | 0xA000).tobytes()


def short_sign(number, dataset):
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.RescaleIntercept = 12, 11, 1, "0"
    dataset.PixelData = (np.clip(HU[number], -2048, 2047).astype(int) & 0xFFF).astype("<u2").tobytes()


def big_endian(number, dataset):
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = (HU[number] + 1024).astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"


def implicit(number, dataset):
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def deflated(number, dataset):
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def sometimes_packed(number, dataset):
    if number % 3 == 0:
        dataset.compress(RLELossless, generate_instance_uid=False)


@pytest.mark.parametrize("change", [overlay_bits, short_sign, big_endian, implicit, deflated, sometimes_packed])
def test_every_way_to_write_the_pixels_is_one_volume(tmp_path, change):
    volume = read_volume(write_series(tmp_path / "series", changed(change)))
    assert np.array_equal(volume.hu, np.clip(HU, -2048, 2047))


# --- padding


@pytest.mark.parametrize(("value", "vr", "signed"), [(1024, "US", 0), (1074, "US", 0), (0, "SS", 1), (64536, "US", 1)])
def test_padding_that_would_be_tissue_is_air_where_it_reaches_the_border(tmp_path, value, vr, signed):
    """0 HU round the field of view is no water; the same number inside the body is."""
    stored_value = value - 65536 if signed and value > 32767 else value

    def pad(number, dataset):
        stored = HU[number].astype(int) + (0 if signed else 1024)
        stored[:5] = stored_value
        stored[25:28, 30:33] = stored_value
        dataset.PixelRepresentation, dataset.RescaleIntercept = signed, "0" if signed else "-1024"
        dataset.add_new(0x00280120, vr, value)
        dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()

    volume = read_volume(write_series(tmp_path / "series", changed(pad)))
    padding_hu = stored_value - (0 if signed else 1024)
    expected = HU.copy()
    expected[:, :5] = -1024 if padding_hu > -900 else padding_hu
    expected[:, 25:28, 30:33] = padding_hu
    assert np.array_equal(volume.hu, expected)
    said = f"{5 * X * Z} voxels of the header's padding value were set to -1024."
    assert (said in volume.notes) == (padding_hu > -900)


def test_a_range_of_padding(tmp_path):
    def pad(number, dataset):
        stored = HU[number] + 1024
        stored[:5] = 1100 + np.arange(X) % 4
        dataset.add_new(0x00280120, "US", 1103)
        dataset.add_new(0x00280121, "US", 1100)
        dataset.PixelData = stored.astype("<u2").tobytes()

    volume = read_volume(write_series(tmp_path / "series", changed(pad)))
    assert (volume.hu[:, :5] == -1024).all()
    assert np.array_equal(volume.hu[:, 6:], HU[:, 6:])


# --- scaling and kind


def test_slices_without_a_rescale_among_slices_with_one_are_refused(tmp_path):
    slices = chest_slices(HU)
    del slices[7].RescaleSlope, slices[7].RescaleIntercept
    refused(write_series(tmp_path / "series", slices), "1 of 40 slices without rescale slope and intercept")


@pytest.mark.parametrize("kind", ["Z_EFF", "ED", "MGML", "PCT"])
def test_maps_of_another_quantity_are_left_out(tmp_path, kind):
    maps = chest_slices(HU, series="1.2.3.9")
    for dataset in maps:
        dataset.RescaleType = kind
    folder = write_series(tmp_path / "study" / "map", maps)
    refused(folder, r"no CT slices \(40 maps of another quantity than HU\)")
    write_series(tmp_path / "study" / "ct", chest_slices(HU[:30]))
    assert np.array_equal(read_volume(tmp_path / "study").hu, HU[:30])


@pytest.mark.parametrize("kind", ["HU", "US", "HU_MOD", ""])
def test_hounsfield_units_by_their_names(tmp_path, kind):
    folder = write_series(tmp_path / "series", changed(lambda number, dataset: setattr(dataset, "RescaleType", kind)))
    assert np.array_equal(read_volume(folder).hu, HU)


@pytest.mark.parametrize("modality", ["CT", None, "MR"])
@pytest.mark.parametrize("kind", [MRImageStorage, PositronEmissionTomographyImageStorage])
def test_another_modality_by_its_class(tmp_path, kind, modality):
    def other(number, dataset):
        dataset.SOPClassUID = kind
        if modality is None:
            del dataset.Modality
        else:
            dataset.Modality = modality

    refused(write_series(tmp_path / "series", changed(other)), r"no CT slices \(40 objects of another modality\)")


def test_a_series_uid_for_each_slice_is_said(tmp_path):
    folder = write_series(tmp_path / "s", changed(lambda number, d: setattr(d, "SeriesInstanceUID", f"1.2.3.{number}")))
    refused(folder, "40 series of one slice each")


# --- directions


def prone(number, dataset):
    dataset.PatientPosition, dataset.ImageOrientationPatient = "HFP", [-1, 0, 0, 0, -1, 0]
    dataset.ImagePositionPatient = [(X - 1) * 3.5, (Y - 1) * 4.0, 5.0 * number]
    dataset.PixelData = np.ascontiguousarray((HU[number] + 1024)[::-1, ::-1]).astype("<u2").tobytes()


def mirrored(number, dataset):
    dataset.PatientPosition, dataset.ImageOrientationPatient = "FFS", [-1, 0, 0, 0, 1, 0]  # the normal points to the feet
    dataset.ImagePositionPatient = [(X - 1) * 3.5, 0.0, 5.0 * number]
    dataset.PixelData = np.ascontiguousarray((HU[number] + 1024)[:, ::-1]).astype("<u2").tobytes()


def coronal():
    slices = [ct_slice(HU[::-1, row] + 1024, row) for row in range(Y)]
    for row, dataset in enumerate(slices):
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 0, -1], [5.0, 3.5]
        dataset.ImagePositionPatient = [0.0, 4.0 * row, (Z - 1) * 5.0]
    return slices


def sagittal():
    slices = [ct_slice(HU[::-1, :, column] + 1024, column) for column in range(X)]
    for column, dataset in enumerate(slices):
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [0, 1, 0, 0, 0, -1], [5.0, 4.0]
        dataset.ImagePositionPatient = [3.5 * column, 0.0, (Z - 1) * 5.0]
    return slices


@pytest.mark.parametrize(
    "make",
    [lambda: changed(prone), lambda: changed(mirrored), coronal, sagittal],
    ids=["prone", "feet", "coronal", "sagittal"],
)
def test_every_position_of_the_patient_is_one_volume(tmp_path, make):
    volume = read_volume(write_series(tmp_path / "series", make()))
    assert np.array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)


@pytest.mark.parametrize(("tilt", "stacking", "side"), list(product((1, -1), (1, -1), (1, -1))))
def test_a_tilt_of_either_sign_shows_each_place_where_it_is(tmp_path, tilt, stacking, side):
    """HU tell how far back a point lies; after straightening each row has one value, the same in every slice."""
    angle = np.radians(20) * tilt
    down = np.array([0, np.cos(angle), np.sin(angle)])
    slices = []
    for number in range(24):
        back = np.arange(Y)[:, None] * 4.0 * down[1] + np.zeros((1, X))
        dataset = ct_slice(np.rint(4 * back - 900).astype(int) + 1024, number)
        dataset.ImageOrientationPatient = [side, 0, 0, *map(float, down)]
        dataset.ImagePositionPatient = [0.0, 0.0, 5.0 * number * stacking]
        slices.append(dataset)
    volume = read_volume(write_series(tmp_path / "series", slices))
    expected = 4 * 4.0 * np.arange(volume.hu.shape[1]) - 900
    column = volume.hu[:, :, X // 2].astype(int)
    inside = column != -1024
    assert inside.mean() > 0.4
    assert np.abs(column - expected)[inside].max() <= 1


# --- folders


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    slices = chest_slices(HU)
    folder = write_series(tmp_path / "study", slices[:30])
    write_series(folder / "rest", slices[30:])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("rest"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(folder, "rest: got 'Permission denied'")


def test_a_linked_folder_is_not_entered_and_counted(tmp_path):
    folder = write_series(tmp_path / "study", chest_slices(HU))
    write_series(tmp_path / "elsewhere", chest_slices(HU, series="1.2.3.7"))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, HU)
    assert "left out: 1 linked folders." in volume.notes
