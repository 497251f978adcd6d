"""Masks of structures on patches: which voxel of a scan lies in which patch of its converted volume."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from d2rnet.ct.structure_model.masks import LabelVolumes, UnfitMaskError, read_codes
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json

SHAPE = (4, 6, 8)  # z, y, x
GRID = (2, 3, 2)  # patches of 2 x 2 x 4 voxels
LPS = (-1.0, -1.0, 1.0)  # of x, y, z in NIfTI's axes


def line(**changes: Any) -> dict[str, Any]:
    """A scan converted voxel by voxel."""
    facts = {
        "source_shape_zyx": list(SHAPE),
        "source_spacing_mm": [2.0, 2.0, 2.0],
        "spacing_mm": [2.0, 2.0, 2.0],
        "start_in_grid_zyx": [0, 0, 0],
        "grid_shape_zyx": list(SHAPE),
        "shape_zyx": list(SHAPE),
    }
    return facts | changes


def written(path: Path, codes: np.ndarray, signs: tuple[float, float, float] = LPS, mm: float = 2.0) -> Path:
    """Write codes (Z, Y, X) of LPS+, voxels of ``mm``; ``signs`` tell how the file stores x, y, z: turned where not LPS."""
    turned = codes.transpose(2, 1, 0)[tuple(slice(None, None, int(sign * own)) for sign, own in zip(signs, LPS, strict=True))]
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(turned), np.diag([mm * sign for sign in signs] + [1.0])), path)
    return path


def shares(path: Path, facts: dict[str, Any], codes: dict[str, list[int]], grid: tuple[int, int, int]) -> np.ndarray:
    """Return (structures, P)."""
    volume = facts | {"volume_id": path.name.removesuffix(".nii.gz"), "study_id": ""}
    found = LabelVolumes(path.parent, codes).shares(volume, grid)
    return np.stack([found[name] for name in codes])


@pytest.fixture
def codes() -> np.ndarray:
    """Code 3 in one patch and a half of the next along x; code 1 in a corner; no symmetry."""
    made = np.zeros(SHAPE, np.uint8)
    made[2:4, 2:4, 0:6] = 3
    made[0, 0, 7] = 1
    return made


@pytest.mark.parametrize("signs", [LPS, (1.0, 1.0, 1.0), (1.0, -1.0, -1.0)])
def test_shares_lie_in_raster_order_however_the_mask_is_stored(tmp_path, codes, signs):
    path = written(tmp_path / "s.nii.gz", codes, signs)
    found = shares(path, line(), {"lung": [3], "both": [1, 3], "bone": [9]}, GRID)
    assert found.shape == (3, 12)
    lung = np.zeros(GRID)
    lung[1, 1] = [1.0, 0.5]
    assert found[0].reshape(GRID) == pytest.approx(lung)
    lung[0, 0, 1] = 1 / 16
    assert found[1].reshape(GRID) == pytest.approx(lung)
    assert not found[2].any()


def test_what_the_conversion_pads_and_cuts(tmp_path):
    """Two voxels of air before the scan along z, two of the scan cut off along x; the volume keeps its size."""
    made = np.zeros(SHAPE, np.uint8)
    made[0:2, 2:4, 0:6] = 3
    path = written(tmp_path / "s.nii.gz", made)
    found = shares(path, line(start_in_grid_zyx=[-2, 0, 2]), {"lung": [3]}, GRID)
    expected = np.zeros(GRID)
    expected[1, 1, 0] = 1.0  # z 2 to 4, y as it was, x 0 to 4
    assert found[0].reshape(GRID) == pytest.approx(expected)


def test_a_coarser_grid_takes_the_nearest_voxel_about_the_same_middle(tmp_path):
    """9 voxels of 1 mm become 3 of 3 mm: the second, fifth and eighth."""
    made = np.zeros((9, 9, 9), np.uint8)
    made[1, 4, 7] = 1
    path = written(tmp_path / "s.nii.gz", made, mm=1.0)
    shape = [3, 3, 3]
    facts = line(
        source_shape_zyx=[9, 9, 9], source_spacing_mm=[1.0] * 3, spacing_mm=[3.0] * 3, grid_shape_zyx=shape, shape_zyx=shape
    )
    found = shares(path, facts, {"lung": [1]}, (3, 3, 3))
    assert np.argwhere(found[0].reshape(3, 3, 3)).tolist() == [[0, 1, 2]]


def test_masks_of_another_shape_take_no_part_and_broken_ones_are_refused(tmp_path, codes):
    path = written(tmp_path / "s.nii.gz", codes)
    with pytest.raises(UnfitMaskError, match="another shape than the scan"):
        shares(path, line(source_shape_zyx=[4, 6, 9]), {"lung": [3]}, GRID)
    path.write_bytes(b"no mask")
    with pytest.raises(DatasetError, match=r"s\.nii\.gz: got no readable NIfTI file"):
        shares(path, line(), {"lung": [3]}, GRID)


@pytest.mark.parametrize("content", [[], {"lung": 3}, {"lung": [0]}, {"lung": [True]}, {"spleen": [3]}])
def test_codes_are_whole_numbers_of_known_structures(tmp_path, content):
    write_json(tmp_path / "structures.json", content)
    with pytest.raises(DatasetError, match="expected codes of lung, bone"):
        read_codes(tmp_path / "structures.json", ["lung", "bone"])
