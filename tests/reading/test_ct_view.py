"""What a page shows of a CT is what the model saw of it: the same part, true Hounsfield units, a bounded number of voxels."""

import numpy as np
import pytest

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.volumes.display_windows import WINDOWS
from d2rnet.ct.volumes.volume import AIR_HU, Volume
from d2rnet.reading.ct_view import LEVELS_HU, levels_of, view_of


def marked_volume(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[Volume, np.ndarray]:
    """A body with one metal block that lies off the centre along every axis, and the middle of the block in voxels."""
    hu = np.full(shape, AIR_HU, np.int16)
    z, y, x = shape
    hu[:, y // 6 : -y // 6, x // 8 : -x // 8] = 40
    low = np.array([z // 5, y // 3, x // 4])
    high = low + np.array([max(4, z // 10), max(4, y // 10), max(4, x // 10)])
    hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1200
    return Volume(hu, spacing, "NIfTI-1", "already"), (low + high - 1) / 2


def centre_mm(weights: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Middle of what is brightest, millimetres from the array's edge."""
    places = np.argwhere(weights > 500)
    return (places.mean(axis=0) + 0.5) * spacing


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 60, 64), (5.0, 4.0, 4.0)), ((150, 200, 210), (2.0, 1.5, 1.5)), ((30, 90, 50), (10.0, 3.0, 5.0))],
)
@pytest.mark.parametrize("most_voxels", [60_000, 1 << 22])
def test_covers_what_the_model_saw(shape: tuple, spacing: tuple, most_voxels: int) -> None:
    volume, _ = marked_volume(shape, spacing)
    converted = convert_volume(volume, CtConversionSettings(bits=16))
    view = view_of(volume, converted.facts, most_voxels=most_voxels)
    assert view.levels.size <= most_voxels
    extent = np.array(view.levels.shape) * view.spacing_mm
    assert extent == pytest.approx(np.array(converted.array.shape) * converted.spacing_mm, rel=1e-6)
    theirs = centre_mm(converted.array, converted.spacing_mm)
    ours = centre_mm(LEVELS_HU[view.levels], view.spacing_mm)
    assert np.abs(ours - theirs).max() <= max(*view.spacing_mm, *converted.spacing_mm) / 2


def test_is_no_finer_than_the_scan_and_no_coarser_than_it_must() -> None:
    volume, _ = marked_volume((40, 60, 64), (5.0, 4.0, 4.0))
    facts = convert_volume(volume, CtConversionSettings()).facts
    assert view_of(volume, facts).spacing_mm == pytest.approx((5.0, 4.0, 4.0), rel=0.03)
    coarse = view_of(volume, facts, most_voxels=100_000)
    assert 0.9 * 100_000 < coarse.levels.size <= 100_000 and np.ptp(coarse.spacing_mm) < 0.2


def test_what_is_beyond_the_scan_is_air() -> None:
    volume, _ = marked_volume((20, 60, 64), (5.0, 4.0, 4.0))
    view = view_of(volume, convert_volume(volume, CtConversionSettings()).facts)
    assert set(np.unique(view.levels[:20])) == {0} and view.levels[36].max() > 0


def test_levels_are_true_to_half_a_step_and_closest_where_windows_are_narrow() -> None:
    hu = np.arange(-3000, 3000, dtype=np.int16)
    shown = LEVELS_HU[levels_of(hu)]
    errors = np.abs(shown - hu)
    for name, (low, high), step in (
        ("lung", (-1024, -160), 9.1),
        ("mediastinum", (-160, 240), 4.1),
        ("bone", (240, 1300), 18.1),
    ):
        assert errors[(hu >= low) & (hu <= high)].max() <= step / 2, name
    assert shown[0] == -1024 and shown[-1] == 1300 and (np.diff(shown) >= 0).all()
    assert WINDOWS["bone"].centre_hu + WINDOWS["bone"].width_hu / 2 == 1300, "nothing white is cut off"
