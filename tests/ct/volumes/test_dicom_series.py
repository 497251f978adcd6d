"""Series of DICOM slices: order, what is left out, gaps, doubles, uneven steps, tilt, per-slice scaling, compression."""

import random

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless
from volume_samples import SPACING_ZYX, chest_slices, ct_slice, noisy_chest, write_series

from d2rnet.ct.volumes.reader import read_volume, read_volume_header
from d2rnet.errors import DatasetError


@pytest.fixture
def hu() -> np.ndarray:
    return noisy_chest()


def test_positions_decide_the_order(tmp_path, hu):
    slices = chest_slices(hu)
    for dataset in slices:
        dataset.InstanceNumber = random.Random(dataset.InstanceNumber).randrange(1000)
    random.Random(0).shuffle(slices)
    folder = write_series(tmp_path / "series", slices)
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, hu)
    assert volume.spacing_mm == pytest.approx(SPACING_ZYX)  # not the thickness, which is 9 mm
    header = read_volume_header(folder)
    assert (header.shape_zyx, header.spacing_mm) == (hu.shape, pytest.approx(SPACING_ZYX))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_compressed_slices(tmp_path, hu, syntax):
    slices = chest_slices(hu[10:20])
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_volume(write_series(tmp_path / "series", slices)).hu, hu[10:20])


def test_largest_of_several_series_is_taken_and_what_is_left_out_is_said(tmp_path, hu):
    folder = write_series(tmp_path / "study" / "a", chest_slices(hu))
    write_series(tmp_path / "study" / "b", chest_slices(hu[:12] + 100, series="1.2.3.2"))
    scout = ct_slice(hu[:, 20] + 1024, 0, series="1.2.3.3")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    capture = ct_slice(hu[0] + 1024, 0, series="1.2.3.4")
    capture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    write_series(tmp_path / "study", [scout, capture], prefix="other")
    (folder / "DICOMDIR.txt").write_text("no slice")
    volume = read_volume(tmp_path / "study")
    assert np.array_equal(volume.hu, hu)
    assert volume.notes[:2] == (
        "left out: 1 other files, 1 scouts, 1 secondary captures.",
        "2 series: the one of 40 slices is taken; the others have 12.",
    )


def test_a_folder_is_its_own_slices_before_those_below_it(tmp_path, hu):
    """The folder and the one in it were both read as the larger series, and the other was never read."""
    exam = write_series(tmp_path / "exam", chest_slices(hu[:12] + 100, series="1.2.3.2"))
    thin = write_series(exam / "thin", chest_slices(hu))
    volume = read_volume(exam)
    assert np.array_equal(volume.hu, hu[:12] + 100)
    assert volume.notes[0] == "2 series: the one of 12 slices is taken; the others have 40."
    assert np.array_equal(read_volume(thin).hu, hu)
    bolus = [ct_slice(hu[number] + 1024, number, series="1.2.3.9") for number in range(3)]
    write_series(tmp_path / "stray", bolus, prefix="bolus")
    write_series(tmp_path / "stray" / "thin", chest_slices(hu))
    assert np.array_equal(read_volume(tmp_path / "stray").hu, hu), "a few stray slices are no scan"


def test_each_slice_is_scaled_by_its_own_rescale(tmp_path, hu):
    slices = chest_slices(hu)
    for dataset, part in zip(slices[::2], hu[::2], strict=True):
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-2000"
        dataset.PixelData = ((part + 2000) * 2).astype("<u2").tobytes()
    volume = read_volume(write_series(tmp_path / "series", slices))
    assert np.array_equal(volume.hu, hu)
    assert "2 different rescales: each slice by its own." in volume.notes


def test_slices_that_are_there_twice_are_counted(tmp_path, hu):
    slices = chest_slices(hu)
    volume = read_volume(write_series(tmp_path / "series", [*slices, slices[3], slices[9]]))
    assert np.array_equal(volume.hu, hu)
    assert "2 slices are there twice, with the same pixels." in volume.notes


def test_uneven_steps_are_resampled_where_they_truly_lie(tmp_path):
    # HU of a ramp along z tell the place: z mm -> 2 z - 900; the first half of the slices 4 mm apart, the rest 5 or 6
    places = np.cumsum([0, *[4.0] * 12, *[5.0] * 20, *[6.0] * 8])
    base = noisy_chest()[20].astype(int)
    slices = []
    for number, place in enumerate(places):
        part = base.copy()
        part[25:31, 37:43] = round(2 * place) - 900
        slices.append(ct_slice(part + 1024, number))
        slices[-1].ImagePositionPatient = [0.0, 0.0, float(place)]
    volume = read_volume(write_series(tmp_path / "series", slices))
    assert volume.spacing_mm[0] == pytest.approx(5.0)
    assert volume.hu.shape[0] == int(places[-1] // 5) + 1
    expected = 2 * 5.0 * np.arange(volume.hu.shape[0]) - 900
    assert np.abs(volume.hu[:, 28, 40] - expected).max() <= 1
    assert "uneven steps of 4.00 to 6.00 mm: resampled at 5.00 mm." in volume.notes


def test_tilted_gantry_is_straightened(tmp_path):
    # a rod along the patient's axis runs through the pixels at a slope when the gantry is tilted
    tilt = np.radians(15)
    slices = []
    for number in range(40):
        z = 5.0 * number
        part = np.full((80, 60), -1000)
        part[8:72, 5:55] = 50
        rod_mm = 160.0  # behind the first row of an upright gantry
        row = (rod_mm) / (4.0 * np.cos(tilt))
        part[round(row) - 2 : round(row) + 3, 28:33] = 500
        dataset = ct_slice(part + 1024, number)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
        dataset.ImagePositionPatient = [0.0, 0.0, z]
        slices.append(dataset)
    volume = read_volume(write_series(tmp_path / "series", slices))
    assert "a gantry tilt of 15.0 degrees is straightened." in volume.notes
    places = [np.median(np.nonzero(part > 300)[0]) for part in volume.hu[20:35]]
    assert np.ptp(places) <= 1  # rows: the rod stands upright
    assert volume.spacing_mm == pytest.approx((5.0, 4.0, 3.5))


def test_missing_slices_are_counted(tmp_path, hu):
    slices = chest_slices(hu)
    folder = write_series(tmp_path / "series", [*slices[:5], *slices[6:30], *slices[32:]])
    for read in (read_volume, read_volume_header):
        with pytest.raises(DatasetError, match=r"3 missing slice\(s\) in 2 place\(s\)"):
            read(folder)


def test_an_uneven_step_hides_no_missing_slice(tmp_path, hu):
    slices = chest_slices(hu)
    for dataset in slices[30:]:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 0.75]
    with pytest.raises(DatasetError, match=r"1 missing slice\(s\) in 1 place\(s\)"):
        read_volume(write_series(tmp_path / "series", [*slices[:5], *slices[6:]]))


def test_a_file_that_cannot_be_opened_is_named(tmp_path, hu, monkeypatch):
    folder = write_series(tmp_path / "series", chest_slices(hu))
    opened = type(folder).open

    def refuse(path, *arguments, **options):
        if path.name == "007.dcm":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(type(folder), "open", refuse)
    with pytest.raises(DatasetError, match=r"007\.dcm: got 'Permission denied'"):
        read_volume(folder)


def test_no_value_of_a_header_is_repeated(tmp_path, hu):
    slices = chest_slices(hu)
    slices[4].add_new("PatientName", "PN", "DOE^JOHN")
    slices[4].ImageType = ["DOE^JOHN", "DOE^JOHN"]
    slices[4].Modality = "DOE^JOHN"
    with pytest.raises(DatasetError) as error:
        read_volume(write_series(tmp_path / "series", slices))
    assert "DOE" not in str(error.value)
