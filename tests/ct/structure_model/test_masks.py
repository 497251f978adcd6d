"""True masks in both layouts: label volumes and region folders; what is not on the scan's grid is left out and counted."""

import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from structure_samples import CORNERS, SHAPE

from d2rnet.ct.settings import CtSettings
from d2rnet.ct.structure_model.attention_scores import attention_scores
from d2rnet.ct.structure_model.masks import LabelVolumes, RegionFolders, UnfitMaskError, find_masks
from d2rnet.ct.structure_model.settings import TrainStructuresSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.ct.verify_training import training_problems
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json

GRID = (2, 2, 2)
TABLE = load_table("ten")
SPACING = (5.0, 5.0, 5.0)
LUNG = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)  # the first of eight patches, z, y, x
PLEURA = LUNG[::-1]


def line_of(number: int, **changes: Any) -> dict[str, Any]:
    line = {
        "volume_id": f"v{number}_1",
        "study_id": f"v{number}",
        "mask_folder": "",
        "source_shape_zyx": SHAPE,
        "source_spacing_mm": list(SPACING),
        "spacing_mm": list(SPACING),
        "start_in_grid_zyx": [0, 0, 0],
        "grid_shape_zyx": SHAPE,
        "shape_zyx": SHAPE,
    }
    return line | changes


def box(*names: str, codes: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """(Z, Y, X) of LPS+ with the corners of structures in their codes."""
    drawn = np.zeros(SHAPE, np.uint8)
    for name, code in zip(names, codes, strict=False):
        drawn[CORNERS[name]] = code
    return drawn


def save(path: Path, mask: np.ndarray, *, spacing_zyx: tuple[float, float, float] = SPACING, axes: str = "LPS") -> None:
    """Write (Z, Y, X) of LPS+ with the axes of a file in any order and direction."""
    data = mask.transpose(2, 1, 0)  # x, y, z of LPS+
    affine = np.diag([-spacing_zyx[2], -spacing_zyx[1], spacing_zyx[0], 1.0])
    image = nibabel.Nifti1Image(data, affine)
    wanted = nibabel.orientations.axcodes2ornt(tuple(axes))
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def test_label_volumes_of_a_volume_or_its_study(tmp_path: Path) -> None:
    save(tmp_path / "v0_1.nii.gz", box("lung", "pleura", codes=(7, 3)))
    save(tmp_path / "v1.nii.gz", box("pleura", codes=(4,)), axes="RAS")
    write_json(tmp_path / "structures.json", {"lung": [7, 9], "pleura": [3, 4]})
    masks = find_masks(tmp_path, None, TABLE, [line_of(0)])
    assert isinstance(masks, LabelVolumes) and masks.structures == ("lung", "pleura")
    first = masks.shares(line_of(0), GRID)
    np.testing.assert_array_equal(first["lung"], LUNG)
    np.testing.assert_array_equal(first["pleura"], PLEURA)
    second = masks.shares(line_of(1), GRID)
    assert not second["lung"].any()
    np.testing.assert_array_equal(second["pleura"], PLEURA)
    with pytest.raises(UnfitMaskError, match="no mask"):
        masks.shares(line_of(2), GRID)


def test_a_table_of_codes_elsewhere(tmp_path: Path) -> None:
    save(tmp_path / "masks" / "v0.nii.gz", box("lung", codes=(10,)))
    with pytest.raises(FileNotFoundError, match=r"masks/structures\.json: no such file"):
        find_masks(tmp_path / "masks", None, TABLE, [])
    write_json(tmp_path / "codes.json", {"lung": [10, 11]})
    masks = find_masks(tmp_path / "masks", tmp_path / "codes.json", TABLE, [])
    assert masks is not None
    np.testing.assert_array_equal(masks.shares(line_of(0), GRID)["lung"], LUNG)
    write_json(tmp_path / "codes.json", {"lungs": [10]})
    with pytest.raises(DatasetError, match="unknown structure 'lungs'"):
        find_masks(tmp_path / "masks", tmp_path / "codes.json", TABLE, [])


def test_region_folders_by_the_regions_of_the_table(tmp_path: Path) -> None:
    """Heart and mediastinum are one of the ten: known where both files are there and not empty."""
    folder = tmp_path / "valid_region_mask" / "seg_valid_1a_1"
    save(folder / "lung.nii.gz", box("lung"))
    save(folder / "heart.nii.gz", box("pleura"), axes="RAS")
    save(folder / "bone.nii.gz", box())
    line = line_of(0, mask_folder=str(folder))
    masks = find_masks(None, None, TABLE, [line_of(1), line])
    assert isinstance(masks, RegionFolders) and "others" not in masks.structures and len(masks.structures) == 9
    assert list(masks.shares(line, GRID)) == ["lung"]
    save(folder / "mediastinum.nii.gz", box("lung"))
    shares = masks.shares(line, GRID)
    assert list(shares) == ["heart_mediastinum_vessels", "lung"]
    np.testing.assert_array_equal(shares["heart_mediastinum_vessels"], LUNG + PLEURA)
    save(folder / "mediastinum.nii.gz", box())
    assert list(masks.shares(line, GRID)) == ["lung"]
    (folder / "lung.nii.gz").unlink()
    with pytest.raises(UnfitMaskError, match="no region with a file that is not empty"):
        masks.shares(line, GRID)
    with pytest.raises(UnfitMaskError, match="no mask"):
        masks.shares(line_of(1), GRID)
    assert find_masks(None, None, TABLE, [line_of(1)]) is None


def test_a_table_with_each_region_alone(tmp_path: Path) -> None:
    save(tmp_path / "trachea and bronchie.nii.gz", box("lung"))
    line = line_of(0, mask_folder=str(tmp_path))
    masks = find_masks(None, None, load_table("radgenome"), [line])
    assert masks is not None
    np.testing.assert_array_equal(masks.shares(line, GRID)["trachea_bronchi"], LUNG)


@pytest.mark.parametrize(
    ("mask", "spacing", "reason"),
    [
        (np.ones((16, 16, 15), np.uint8), SPACING, "another shape"),
        (np.ones((8, 16, 16), np.uint8), (10.0, 5.0, 5.0), "another shape"),  # the same field of view
        (np.ones(SHAPE, np.uint8), (3.0, 5.0, 5.0), "another spacing"),
        (np.ones(SHAPE, np.uint8), (5.0, 5.0, 5.1), "another spacing"),
    ],
)
@pytest.mark.parametrize("layout", ["labels", "regions"])
def test_masks_of_another_grid_are_left_out(tmp_path: Path, layout: str, mask, spacing, reason: str) -> None:
    save(tmp_path / ("v0.nii.gz" if layout == "labels" else "lung.nii.gz"), mask, spacing_zyx=spacing)
    masks = LabelVolumes(tmp_path, {"lung": [1]}) if layout == "labels" else RegionFolders({"lung": ["lung"]})
    with pytest.raises(UnfitMaskError, match=f"a mask of {reason} than the scan"):
        masks.shares(line_of(0, mask_folder=str(tmp_path)), GRID)


def test_masks_that_lie_aslant_or_nowhere(tmp_path: Path) -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    masks = LabelVolumes(tmp_path, {"lung": [1]})
    nibabel.save(nibabel.Nifti1Image(box("lung"), turned @ np.diag([5.0, 5.0, 5.0, 1.0])), tmp_path / "v0.nii.gz")
    with pytest.raises(UnfitMaskError, match="an oblique mask"):
        masks.shares(line_of(0), GRID)
    image = nibabel.Nifti1Image(box("lung"), None)
    image.header.set_sform(np.diag([0.0, 0.0, 0.0, 1.0]), code=1)
    image.to_filename(tmp_path / "v1.nii.gz")
    with pytest.raises(UnfitMaskError, match="without directions"):
        masks.shares(line_of(1), GRID)
    (tmp_path / "v2.nii.gz").write_bytes(b"no mask")
    with pytest.raises(DatasetError, match=r"v2\.nii\.gz: got no readable NIfTI file"):
        masks.shares(line_of(2), GRID)


def test_attention_by_hand_and_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A query that looks at the first patch three times as much as at each other of seven."""
    save(tmp_path / "v0.nii.gz", box("lung"))
    save(tmp_path / "v1.nii.gz", np.ones((16, 16, 15), np.uint8))
    looks = np.array([3, 1, 1, 1, 1, 1, 1, 1], np.float16)
    attention = {"lung": np.stack([looks] * 3)}
    with caplog.at_level(logging.WARNING):
        scores, compared = attention_scores(
            LabelVolumes(tmp_path, {"lung": [1]}),
            [line_of(number) for number in range(3)],
            attention,
            np.ones((3, 8), dtype=bool),
            grid_zyx=GRID,
            counts=np.ones((3, 4), np.float32),
        )
    assert scores["lung"]["attention_volumes"] == 1 and scores["lung"]["pointing_hit"] == 1.0
    assert scores["lung"]["attention_inside"] == pytest.approx(0.3)
    assert scores["lung"]["attention_ratio"] == pytest.approx(0.3 * 8)
    assert compared == {"volumes": 1, "left_out": {"a mask of another shape than the scan": 1, "no mask": 1}}
    assert "not compared with masks in 1 of 3 volumes: no mask" in caplog.text


def test_a_table_of_codes_is_tried_before_a_training_which_reads_no_mask(tmp_path: Path) -> None:
    text = str(TrainStructuresSettings().to_json())
    assert "'masks'" not in text and "'mask_codes'" not in text
    write_json(tmp_path / "structures.json", {"lungs": [10]})
    settings = CtSettings().replaced(structure_model={"evaluation": {"masks": str(tmp_path)}})
    problems = list(training_problems(settings, device=None, processes=1))
    assert len(problems) == 1 and "unknown structure 'lungs'" in problems[0]
