"""RadGenome's region reports on CT-RATE's tree."""

import pytest
from ct_rate_samples import TRAIN, VALID, write_tables, write_volumes

from d2rnet.ct.sources.radgenome import read_table, required_files
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.files.problems import Problems

ROWS = """Volumename,Anatomy,Sentence
{part}_1_a_1.nii.gz,lung,First of the lung.
{part}_1_a_1.nii.gz,heart,The heart.
{part}_1_a_1.nii.gz,lung/right lung,Second of the lung.
{part}_1_a_1.nii.gz,,Of the whole scan.
{part}_999_a_1.nii.gz,lung,Of a volume that is not there.
"""


@pytest.fixture
def root(tmp_path):
    write_tables(tmp_path, {"train": TRAIN, "valid": VALID})
    write_volumes(tmp_path, TRAIN + VALID)
    folder = tmp_path / "radgenome_files"
    folder.mkdir()
    (folder / "train_region_report.csv").write_text(ROWS.format(part="train"))
    (folder / "validation_region_report.csv").write_text(ROWS.format(part="valid"))
    (tmp_path / "valid_region_mask" / "seg_valid_1_a_1").mkdir(parents=True)
    return tmp_path


def test_all_rows_of_a_region_are_kept(root):
    settings = CtSourceSettings(source="radgenome", root=str(root))
    assert all(file.path.exists() for file in required_files(settings))
    problems = Problems()
    table = read_table(settings, problems)
    assert problems.counts() == {}
    regions = {(row.study_id, row.region): row.text for row in table.regions.itertuples()}
    assert regions["train_1_a", "lung"] == "First of the lung. Second of the lung."
    assert regions["valid_1_a", "whole scan"] == "Of the whole scan."
    assert len(regions) == 6
    assert table.counts["region_rows_of_other_volumes"] == 2
    assert table.counts["studies_without_regions"] == len(table.reports) - 2
    assert list(table.masks) == ["valid_1_a_1"]


def test_names_without_the_underscore_are_the_same_volumes(root):
    rows = ROWS.replace("{part}_1_a_1.nii.gz,lung,", "{part}_1a_1.nii.gz,lung,")
    assert rows != ROWS
    for part, word in (("train", "train"), ("valid", "validation")):
        (root / "radgenome_files" / f"{word}_region_report.csv").write_text(rows.format(part=part))
    (root / "train_region_mask" / "seg_train_1a_1").mkdir(parents=True)
    (root / "valid_region_mask" / "seg_valid_1a_1").mkdir()
    table = read_table(CtSourceSettings(source="radgenome", root=str(root)), Problems())
    regions = {(row.study_id, row.region): row.text for row in table.regions.itertuples()}
    assert regions["train_1_a", "lung"] == "First of the lung. Second of the lung."
    assert regions["train_1_a", "heart"] == "The heart."
    assert table.counts["region_rows_of_other_volumes"] == 2
    assert table.masks["train_1_a_1"].endswith("train_region_mask/seg_train_1a_1")
    assert table.masks["valid_1_a_1"].endswith("seg_valid_1_a_1")
