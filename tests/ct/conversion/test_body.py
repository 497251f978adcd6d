"""What is kept of a volume: the body, wherever the patient lies; air elsewhere."""

import numpy as np
import pytest
from volume_samples import SPACING_ZYX, drawn_chest

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.volumes.volume import Volume


def converted(hu: np.ndarray, shape: tuple[int, int, int], **changes):
    """At the source's own spacing, so that voxels are only moved."""
    settings = CtConversionSettings.read(
        {
            "spacing_mm": list(SPACING_ZYX),
            "shape_zyx": list(shape),
            "bits": 16,
            "window_hu": [-1024.0, 3000.0],
            "antialias": False,
            **changes,
        }
    )
    return convert_volume(Volume(hu, SPACING_ZYX, "test", "already"), settings)


def placed(hu: np.ndarray, shape: tuple[int, int, int], at: tuple[int, int, int]) -> np.ndarray:
    """A chest somewhere in a larger volume of air."""
    larger = np.full(shape, -1000, np.int16)
    larger[tuple(slice(first, first + side) for first, side in zip(at, hu.shape, strict=True))] = hu
    return larger


def test_same_size_is_the_same_volume():
    hu = drawn_chest()
    assert np.array_equal(converted(hu, hu.shape).array, hu)


def test_padding_is_air_on_both_sides():
    hu = drawn_chest()
    result = converted(hu, (50, 70, 100))
    assert np.array_equal(result.array[5:45, 7:63, 10:90], hu)
    outside = np.ones(result.array.shape, bool)
    outside[5:45, 7:63, 10:90] = False
    assert (result.array[outside] == -1024).all()
    assert result.facts["start_in_grid_zyx"] == [-5, -7, -10]
    assert result.facts["body_outside_fraction"] == 0.0


def test_padding_of_8_bits_is_the_lowest_level_of_a_window_above_air():
    result = converted(drawn_chest(), (50, 70, 100), bits=8, window_hu=[-1000.0, 200.0])
    assert (result.array[:5] == 0).all()


@pytest.mark.parametrize("corner", [(0, 0, 0), (0, 40, 60), (0, 0, 60), (0, 40, 0)])
def test_patient_off_centre_is_kept_whole(corner):
    hu = drawn_chest()
    wide = placed(hu, (40, 96, 140), corner)
    result = converted(wide, hu.shape)
    assert result.facts["body_outside_fraction"] < 0.01
    middle = wide[:, 20:76, 30:110]  # a crop round the middle of the picture
    body = int((wide > -300).sum())
    assert int((middle > -300).sum()) < 0.9 * body <= 0.91 * int((result.array > -300).sum())


def test_a_table_does_not_draw_the_window():
    hu = drawn_chest()
    wide = placed(hu, (40, 140, 80), (0, 0, 0))
    wide[:, 128:130, 5:75] = 300  # a thin table far behind the back
    start = converted(wide, (40, 60, 80)).facts["start_in_grid_zyx"]
    assert start[1] <= 2


def test_long_volume_is_cropped_round_the_lungs():
    hu = drawn_chest()
    abdomen = np.repeat(np.where(hu[:1] < -500, np.where(hu[:1] < -950, hu[:1], 50), hu[:1]), 80, axis=0)
    long = np.concatenate([abdomen, hu])  # feet first: lungs on top
    result = converted(long, hu.shape)
    assert result.facts["start_in_grid_zyx"][0] >= 72
    assert (result.array == -820).sum() > 0.95 * (hu == -820).sum()
    assert result.facts["body_outside_fraction"] > 0.5
    assert result.facts["lung_outside_fraction"] < 0.05


def test_source_in_any_memory_order_gives_the_same():
    hu = drawn_chest()
    settings = {"spacing_mm": [3.3, 2.1, 2.7], "antialias": True}
    plain = converted(hu, (60, 90, 90), **settings).array
    turned = np.ascontiguousarray(hu[::-1, ::-1, ::-1].transpose(2, 0, 1)).transpose(1, 2, 0)[::-1, ::-1, ::-1]
    assert np.array_equal(converted(turned, (60, 90, 90), **settings).array, plain)


def test_antialiasing_averages_noise_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    hu = (drawn_chest((60, 90, 90)) * 0 + 50 + rng.normal(0, 40, (60, 90, 90))).astype(np.int16)
    coarse = {"spacing_mm": [15.0, 12.0, 10.5]}
    plain = converted(hu, (20, 30, 30), **coarse).array.astype(float)
    smooth = converted(hu, (20, 30, 30), antialias=True, **coarse).array.astype(float)
    assert smooth.std() < plain.std() / 2
    assert smooth.mean() == pytest.approx(hu.mean(), abs=1)
