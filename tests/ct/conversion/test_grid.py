"""Conversion to a grid against SimpleITK, and by numbers that can be worked out by hand."""

import numpy as np
import pytest
import SimpleITK
from volume_samples import SPACING_ZYX, drawn_chest

from d2rnet.ct.conversion.grid import convert_volume, to_hounsfield_units
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.structure_model.model import volume_tensor
from d2rnet.ct.structure_model.volume_encoder import patch_mask
from d2rnet.ct.volumes.volume import Volume


def settings(**changes) -> CtConversionSettings:
    return CtConversionSettings.read({"antialias": False, "bits": 16, "window_hu": [-1024.0, 3000.0], **changes})


def resampled_by_simpleitk(hu, old_zyx, new_zyx, shape_zyx) -> np.ndarray:
    """Trilinear at the centres of a grid that has the same middle; outside the source its border voxels."""
    image = SimpleITK.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing(old_zyx[::-1])
    old, new = np.array(old_zyx[::-1]), np.array(new_zyx[::-1])
    middle = (np.array(hu.shape[::-1]) - 1) / 2 * old
    origin = middle - (np.array(shape_zyx[::-1]) - 1) / 2 * new
    filtered = SimpleITK.ResampleImageFilter()
    filtered.SetSize([int(side) for side in shape_zyx[::-1]])
    filtered.SetOutputOrigin(origin.tolist())
    filtered.SetOutputSpacing(new.tolist())
    filtered.SetInterpolator(SimpleITK.sitkLinear)
    filtered.SetUseNearestNeighborExtrapolator(True)
    return SimpleITK.GetArrayFromImage(filtered.Execute(image))


@pytest.mark.parametrize("new", [(5.0, 4.0, 3.5), (1.5, 0.75, 0.75), (3.0, 1.5, 1.5), (7.3, 6.1, 9.9)])
def test_trilinear_as_simpleitk(new):
    rng = np.random.default_rng(1)
    hu = rng.integers(-1000, 1000, (20, 33, 27), dtype=np.int16)
    shape = tuple(round(side * old / mm) for side, old, mm in zip(hu.shape, SPACING_ZYX, new, strict=True))
    converted = convert_volume(
        Volume(hu, SPACING_ZYX, "test", "already"), settings(spacing_mm=list(new), shape_zyx=list(shape))
    )
    expected = resampled_by_simpleitk(hu, SPACING_ZYX, new, shape)
    assert np.abs(converted.array - expected).max() <= 0.51
    assert converted.facts["grid_shape_zyx"] == list(shape)


def test_levels_of_8_bits_are_half_a_level_from_hu():
    volume = Volume(drawn_chest(), SPACING_ZYX, "test", "already")
    window = (-1000.0, 200.0)
    plain = {"spacing_mm": [3.0, 3.0, 3.0], "shape_zyx": [66, 74, 93]}
    levels = convert_volume(volume, settings(bits=8, window_hu=list(window), **plain))
    hu = convert_volume(volume, settings(window_hu=list(window), **plain))
    assert levels.array.dtype == np.uint8
    assert np.abs(to_hounsfield_units(levels.array, window) - hu.array).max() <= 1200 / 255 / 2 + 0.51


@pytest.mark.parametrize(("antialias", "expected"), [(True, 0.0), (False, 400.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_coarser_grid_averages_what_lies_between_its_voxels(axis, antialias, expected):
    """Voxels of +400 and -400 HU in turn: their mean is 0, a sample of every second is one of them."""
    shape = [9, 9, 9]
    signs = (-1) ** np.arange(9).reshape([9 if other == axis else 1 for other in range(3)])
    hu = np.broadcast_to(400 * signs, shape).astype(np.int16)
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 2.0
    wanted = [5 if other == axis else 9 for other in range(3)]
    chosen = settings(spacing_mm=spacing, shape_zyx=wanted, window_hu=[-1000, 1000], antialias=antialias)
    array = convert_volume(Volume(hu, (1.0, 1.0, 1.0), "test", "already"), chosen).array
    middle = np.moveaxis(array, axis, 0)[1:-1].astype(float)
    assert np.abs(np.abs(middle) - expected).max() <= 1


@pytest.mark.parametrize(
    ("bits", "window", "air"),
    [
        (8, (-1000, 1000), 0),
        (16, (-1000, 1000), -1000),
        (8, (-1150, 350), 0),
        (16, (-1150, 350), -1150),
        (16, (-1150.5, 350), -1151),
    ],
)
def test_what_is_padded_is_the_lowest_of_the_window(bits, window, air):
    """So that no model looks at it, in a window that begins below what scanners call air, too."""
    hu = np.full((6, 6, 6), 40, np.int16)
    chosen = settings(spacing_mm=[1.0, 1.0, 1.0], shape_zyx=[10, 10, 10], bits=bits, window_hu=list(window))
    array = convert_volume(Volume(hu, (1.0, 1.0, 1.0), "test", "already"), chosen).array
    outside = np.ones(array.shape, bool)
    outside[2:8, 2:8, 2:8] = False
    assert (array[outside] == air).all()
    assert (array[~outside] > air).all()
    assert patch_mask(volume_tensor(array, window).unsqueeze(0), (5, 5, 5)).sum() == 3**3
