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
    assert table.counts["region_rows_of_other_studies"] == 2
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
    assert table.counts["region_rows_of_other_studies"] == 2
    assert table.masks["train_1_a_1"].endswith("train_region_mask/seg_train_1a_1")
    assert table.masks["valid_1_a_1"].endswith("seg_valid_1_a_1")


@pytest.mark.parametrize("reconstructions", ["one", "all"])
@pytest.mark.parametrize("named", ["valid_1_a_1", "valid_1_a_2", "valid_1a_10"])
def test_region_texts_are_of_the_study(root, reconstructions, named):
    """Whichever reconstruction the table names, and whichever is converted, the study has its texts once."""
    path = root / "radgenome_files" / "validation_region_report.csv"
    path.write_text(ROWS.format(part="valid").replace("valid_1_a_1", named))
    table = read_table(CtSourceSettings(source="radgenome", root=str(root), reconstructions=reconstructions), Problems())
    regions = {(row.study_id, row.region): row.text for row in table.regions.itertuples()}
    assert regions["valid_1_a", "lung"] == "First of the lung. Second of the lung."
    assert table.counts["region_rows_of_other_studies"] == 2


@pytest.mark.parametrize("reconstructions", ["one", "all"])
def test_region_texts_of_two_reconstructions_are_not_doubled(root, reconstructions):
    path = root / "radgenome_files" / "validation_region_report.csv"
    second = ROWS.format(part="valid").replace("valid_1_a_1", "valid_1_a_2").replace("First", "Other").partition("\n")[2]
    path.write_text(ROWS.format(part="valid") + second)
    settings = CtSourceSettings(source="radgenome", root=str(root), reconstructions=reconstructions)
    table = read_table(settings, Problems())
    regions = {(row.study_id, row.region): row.text for row in table.regions.itertuples()}
    assert regions["valid_1_a", "lung"] == "First of the lung. Second of the lung."
    assert table.counts["region_rows_of_other_reconstructions"] == 4
    next(root.rglob("valid_1_a_1.nii.gz")).unlink()  # the download lacks the first: the same texts
    table = read_table(settings.replaced(require_all=False), Problems())
    assert {(row.study_id, row.region): row.text for row in table.regions.itertuples()} == regions


def test_a_sentence_of_two_parts_of_a_region_is_there_once(root):
    path = root / "radgenome_files" / "validation_region_report.csv"
    rows = "".join(f"valid_1_a_1,lung/{side} lung,Emphysema in both lungs.\n" for side in ("left", "right"))
    path.write_text("Volumename,Anatomy,Sentence\n" + rows)
    table = read_table(CtSourceSettings(source="radgenome", root=str(root)), Problems())
    assert dict(zip(table.regions["study_id"], table.regions["text"], strict=True))["valid_1_a"] == "Emphysema in both lungs."
    assert table.counts["region_rows_repeated"] == 1
