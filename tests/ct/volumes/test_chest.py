"""The gate: chests pass, other parts of the body do not, whatever side is cut off."""

import numpy as np
import pytest
from volume_samples import SPACING_ZYX, drawn_chest, write_nifti

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.volumes import chest
from d2rnet.ct.volumes.chest import chest_problems, find_tissue, measure_chest
from d2rnet.ct.volumes.reader import read_chest_volume
from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.ct.volumes.volume import Volume
from d2rnet.errors import DatasetError


def kinds(hu: np.ndarray, spacing=SPACING_ZYX, **changes) -> list[tuple[str, bool]]:
    """Kind and certainty of every problem."""
    found = chest_problems(Volume(hu, spacing, "test", "already"), VolumeSettings.read(changes))
    return [(problem.kind, problem.is_certain) for problem in found]


def abdomen() -> np.ndarray:
    """A trunk without lungs, with gas in the bowel."""
    hu = drawn_chest()
    hu[hu == -820] = 45
    hu[10:30, 15:22, 30:50] = -1000
    return hu


def head() -> np.ndarray:
    """A skull of 150 x 190 mm with a sinus."""
    z, y, x = np.ogrid[:40, :56, :80]
    inside = ((y - 28) * 4 / 95) ** 2 + ((x - 40) * 3.5 / 75) ** 2 + 0 * z
    hu = np.where(inside < 0.8, 35, np.where(inside < 1, 1000, -1000)).astype(np.int16)
    hu[18:22, 10:13, 38:42] = -900
    return hu


def test_a_chest_has_no_problem():
    assert kinds(drawn_chest()) == []


@pytest.mark.parametrize("part", [np.s_[:, :, 20:], np.s_[:, :, :60], np.s_[:, 14:44], np.s_[:, 10:, 12:]])
def test_a_cropped_chest_passes(part):
    assert [kind for kind, certain in kinds(drawn_chest()[part]) if certain] == []


@pytest.mark.parametrize(
    ("hu", "kind"),
    [(abdomen(), "abdomen"), (head(), "head"), (drawn_chest()[:3], "few_slices"), (drawn_chest()[:1], "topogram")],
)
def test_what_is_no_chest_is_set_aside(hu, kind):
    assert (kind, True) in kinds(hu)


def test_air_has_no_body():
    assert ("no_body", True) in kinds(np.full((40, 56, 80), -1000, np.int16))


def test_noise_of_a_low_dose_is_no_lung():
    rng = np.random.default_rng(0)
    noisy = np.repeat(np.repeat(abdomen(), 4, axis=1), 4, axis=2)  # thin voxels, as scanners have
    noisy = (noisy + rng.normal(0, 80, noisy.shape)).astype(np.int16)
    measured = measure_chest(Volume(noisy, (5.0, 1.0, 0.875), "test", "already"))
    assert measured.lung_fraction < 0.01


def test_couch_foam_is_no_lung():
    hu = abdomen()
    hu[:, 51:] = -940  # foam behind the back
    assert ("abdomen", True) in kinds(hu)


def test_doubtful_points():
    thick = kinds(drawn_chest((20, 56, 80)), (6.5, 4.0, 3.5))
    assert thick == [("short_volume", False), ("thick_slices", False)]
    torso = np.concatenate([abdomen(), abdomen(), abdomen(), abdomen(), drawn_chest()])
    assert kinds(torso) == [("little_lung", False)]


def test_limits_are_settings():
    assert kinds(drawn_chest()[15:25], min_slices=8) == [("short_volume", False)]
    assert [kind for kind, certain in kinds(abdomen(), min_lung_fraction=0.0) if certain] == []


def test_reader_refuses_and_notes(tmp_path):
    with pytest.raises(DatasetError, match=r"abdomen.nii.gz: got .*\(abdomen\); expected at least 3.5% lung"):
        read_chest_volume(write_nifti(tmp_path / "abdomen.nii.gz", abdomen()), VolumeSettings())
    volume = read_chest_volume(write_nifti(tmp_path / "short.nii.gz", drawn_chest()[10:30]), VolumeSettings())
    assert volume.notes == ("short_volume: 100 mm along the body; expected at least 150 mm.",)


def test_body_and_lungs_are_looked_for_once(tmp_path, monkeypatch):
    """The conversion takes what the check found, and would find the same."""
    volume = read_chest_volume(write_nifti(tmp_path / "chest.nii.gz", drawn_chest()), VolumeSettings())
    again = find_tissue(Volume(volume.hu, volume.spacing_mm, "test", "already"))
    assert volume.tissue is not None and volume.tissue.voxel_mm == again.voxel_mm
    assert (volume.tissue.body == again.body).all() and (volume.tissue.lungs == again.lungs).all() and again.lungs.any()
    monkeypatch.setattr(chest, "coarse_volume", None)
    convert_volume(volume, CtConversionSettings())
