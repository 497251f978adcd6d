"""Grey-level chain of a DICOM file, against values computed by hand and against pydicom's own LUT functions."""

import logging
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from d2rnet.cxr.images.grayscale import Window, read_grayscale
from d2rnet.errors import DatasetError

FILE = Path("chest.dcm")


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.BitsStored, dataset.BitsAllocated, dataset.PixelRepresentation = 12, 16, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def lut(descriptor: list[int], data: list[int] | bytes, vr: str = "US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", vr, data)
    return Sequence([item])


def grey(values: list[int], **attributes: object) -> list[int]:
    pixels = np.array([values], np.int16 if attributes.get("PixelRepresentation") else np.uint16)
    return read_grayscale(header(**attributes), FILE).to_8_bit(pixels, pixels)[0].tolist()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # c = 2048, w = 4096: LINEAR runs from c - 0.5 - 2047.5 = 0 to 4095; value / 4095 * 255
        ("LINEAR", [0, 64, 128, 255]),  # 63.77, 127.5 (half up), 255
        # LINEAR_EXACT: value / 4096 * 255
        ("LINEAR_EXACT", [0, 64, 128, 255]),  # 63.75, 127.5, 254.94
        # SIGMOID: 255 / (1 + exp(-4 (x - c) / w)): exp(2), exp(1), 1, exp(-1.999)
        ("SIGMOID", [30, 69, 128, 225]),
    ],
)
def test_window_functions(function: str, expected: list[int]) -> None:
    got = grey([0, 1024, 2048, 4095], WindowCenter=2048, WindowWidth=4096, VOILUTFunction=function)
    assert got == expected


def test_linear_window_clips_at_the_standard_s_half_pixels() -> None:
    # PS3.3 C.11.2.1.2.1: c 100, w 11: black up to 94.5, white above 104.5, (x - 99.5) / 10 + 0.5 between
    assert grey([94, 95, 99, 100, 104, 105], WindowCenter=100, WindowWidth=11) == [0, 13, 115, 140, 242, 255]
    assert grey([99, 100], WindowCenter=100, WindowWidth=1) == [0, 255]


def test_negative_rescale_slope_without_a_window_turns_the_grey_levels_round() -> None:
    assert grey([0, 10, 20], BitsStored=8, RescaleSlope=-1, RescaleIntercept=0) == [255, 245, 235]
    assert grey([1000, 2000, 3000], RescaleSlope=-2, RescaleIntercept=9) == [255, 128, 0]


def test_sigmoid_far_from_the_centre_is_finite() -> None:
    assert Window(0.0, 1e-6, "SIGMOID").apply(np.array([-1e6, 0.0, 1e6])).round(9).tolist() == [0.0, 0.5, 1.0]


def test_window_applies_after_rescale() -> None:
    # stored 0, 100, 200 -> 1000, 1200, 1400; window 1000 to 1400
    got = grey([0, 100, 200], RescaleSlope=2, RescaleIntercept=1000, WindowCenter=1200.5, WindowWidth=401)
    assert got == [0, 128, 255]


def test_negative_rescale_slope_turns_the_scale_round() -> None:
    assert grey([0, 200], RescaleSlope=-1, RescaleIntercept=200, WindowCenter=100.5, WindowWidth=201) == [255, 0]


def test_first_of_several_windows() -> None:
    got = grey([0, 100, 200], WindowCenter=[100.5, 50], WindowWidth=[201, 10])
    assert got == grey([0, 100, 200], WindowCenter=100.5, WindowWidth=201) == [0, 128, 255]


def test_monochrome1_is_inverted_exactly_once_and_shape_inverse_is_not_counted_again() -> None:
    plain = grey([0, 1000, 4095], WindowCenter=2048, WindowWidth=4096)
    inverted = grey([0, 1000, 4095], WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1")
    stated_twice = grey(
        [0, 1000, 4095],
        WindowCenter=2048,
        WindowWidth=4096,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
    )
    assert plain == [0, 62, 255]
    assert inverted == stated_twice == [255, 193, 0]


def test_signed_values() -> None:
    got = grey([-2048, 0, 2047], PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    assert got == [0, 128, 255]


def test_no_window_shows_8_bits_as_they_are_and_more_over_the_range_of_the_data() -> None:
    assert grey([10, 20, 200], BitsStored=8) == [10, 20, 200]
    assert grey([10, 20, 200], BitsStored=8, PhotometricInterpretation="MONOCHROME1") == [245, 235, 55]
    assert grey([0, 3, 7], BitsStored=3) == [0, 109, 255]
    # quantiles 0.001 and 0.999 of two values lie 0.1 % inside
    assert grey([1000, 3000]) == [0, 255]


def test_a_dead_pixel_does_not_squeeze_the_contrast() -> None:
    pixels = np.linspace(1000, 2000, 100 * 100).reshape(100, 100).astype(np.uint16)
    pixels[50, 50] = 65535
    shown = read_grayscale(header(BitsStored=16), FILE).to_8_bit(pixels, pixels)
    assert shown[50, 50] == 255
    assert abs(int(shown[49, 99]) - 127) <= 1


def test_constant_image_does_not_divide_by_zero() -> None:
    assert grey([500, 500]) == [0, 0]


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_lut_wins_over_window(vr: str) -> None:
    entries = [0, 1, 4, 9]
    data: list[int] | bytes = np.array(entries, "<u2").tobytes() if vr == "OW" else entries
    got = grey([5, 10, 11, 12, 13, 99], VOILUTSequence=lut([4, 10, 4], data, vr), WindowCenter=2, WindowWidth=2)
    assert got == [0, 0, 17, 68, 153, 153]  # entry / 15 * 255; below the first and beyond the last: the end entries


def test_voi_lut_of_8_bit_entries_packed_in_words() -> None:
    got = grey([0, 1, 2, 3], VOILUTSequence=lut([4, 0, 8], bytes([0, 85, 170, 255]), "OW"))
    assert got == [0, 85, 170, 255]


def test_voi_lut_whose_entries_need_more_bits_than_it_states() -> None:
    assert grey([0, 1], VOILUTSequence=lut([2, 0, 8], [0, 4095])) == [0, 255]


def test_modality_lut_and_signed_first_value_agree_with_pydicom() -> None:
    stored = np.array([[-5, -2, 0, 1, 7]], np.int16)
    dataset = header(PixelRepresentation=1, ModalityLUTSequence=lut([4, 0xFFFE, 16], [100, 300, 700, 1500]))
    dataset.WindowCenter, dataset.WindowWidth = 800.5, 1401
    chain = read_grayscale(dataset, FILE)
    assert chain.modality(stored).tolist() == [[100, 100, 700, 1500, 1500]]
    del dataset.ModalityLUTSequence[0]["LUTDescriptor"]
    dataset.ModalityLUTSequence[0].add_new("LUTDescriptor", "SS", [4, -2, 16])
    expected = apply_voi_lut(apply_modality_lut(stored, dataset), header(WindowCenter=800.5, WindowWidth=1401))
    low, high = expected.min(), expected.max()
    assert chain.to_8_bit(stored, stored).tolist() == np.floor((expected - low) / (high - low) * 255 + 0.5).tolist()


def test_window_beside_the_data_is_logged_and_the_data_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert grey([1000, 3000], WindowCenter=10, WindowWidth=5) == [0, 255]
    assert "chest.dcm: its window lies outside its pixel values" in caplog.text


def test_useless_window_width_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert grey([1000, 3000], WindowCenter=10, WindowWidth=0) == [0, 255]
    assert "window width 0.0 is not usable" in caplog.text


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"RescaleSlope": 0}, "got rescale slope 0.0; expected a number other than 0"),
        ({"VOILUTSequence": lut([8, 0, 8], [1, 2, 3])}, "got a VOILUTSequence of 6 entries; expected the 8"),
        (
            {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"},
            "got an unknown VOI LUT function; expected one of LINEAR",
        ),
    ],
)
def test_invalid_chain_is_an_error_that_names_the_file(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=f"chest.dcm: {message}"):
        grey([0, 1], **attributes)
