"""CT-RATE's tables: names, releases, reconstructions, splits, labels, what is missing."""

from pathlib import Path

import pandas as pd
import pytest
from ct_rate_samples import TRAIN, VALID, write_tables, write_volumes

from d2rnet.ct.sources.ct_rate import read_table, required_files
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems
from d2rnet.findings.ct_classes import CT_ABNORMALITIES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tables(tmp_path / "dataset", {"train": TRAIN, "valid": VALID})
    write_volumes(tmp_path / "dataset", TRAIN + VALID)
    return tmp_path


def read(root: Path, **changes):
    problems = Problems()
    table = read_table(CtSourceSettings(root=str(root), **changes), problems)
    return table, problems


def test_one_reconstruction_of_each_scan(root):
    table, problems = read(root)
    assert problems.counts() == {}
    test = table.volumes[table.volumes["split"] == "test"]
    assert test["volume_id"].tolist() == ["valid_1_a_1", "valid_2_a_1", "valid_2_b_1"]
    assert table.counts["volumes_other_reconstructions"] == 2
    assert table.counts["volumes_in_table"] == len(TRAIN) + len(VALID)


def test_the_lowest_reconstruction_is_taken_by_number_not_by_name(root):
    """_10 comes before _2 as text; the released code takes _10 for _1."""
    (root / "dataset/valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz").unlink()
    table, problems = read(root)
    assert "valid_1_a_2" in set(table.volumes["volume_id"])
    assert problems.counts() == {}  # the scan has a volume


def test_all_reconstructions_stay_one_study_in_one_split(root):
    table, _ = read(root, reconstructions="all")
    of_study = table.volumes[table.volumes["study_id"] == "valid_1_a"]
    assert of_study["volume_id"].tolist() == ["valid_1_a_1", "valid_1_a_2", "valid_1_a_10"]
    assert set(of_study["split"]) == {"test"}
    assert (table.reports["study_id"] == "valid_1_a").sum() == 1


def test_patients_are_in_one_split(root):
    table, _ = read(root, val_fraction=0.2)
    splits = table.volumes.groupby("subject_id")["split"].nunique()
    assert (splits == 1).all()
    assert (table.volumes["split"] == "val").sum() == 4
    assert set(table.volumes.loc[table.volumes["split"] == "test", "subject_id"]) == {"valid_1", "valid_2"}


def test_a_growing_download_moves_nobody(root):
    whole, _ = read(root, val_fraction=0.2)
    for name in TRAIN[::2]:
        next(root.rglob(f"{name}.nii.gz")).unlink()
    part, _ = read(root, val_fraction=0.2, require_all=False)
    before = dict(zip(whole.volumes["volume_id"], whole.volumes["split"], strict=True))
    assert {name: before[name] for name in part.volumes["volume_id"]} == dict(
        zip(part.volumes["volume_id"], part.volumes["split"], strict=True)
    )


def test_what_is_missing_is_one_problem_per_part(root):
    for name in TRAIN[:5]:
        next(root.rglob(f"{name}.nii.gz")).unlink()
    table, problems = read(root)
    assert problems.counts() == {"missing_volumes": 1}
    assert "5 studies have no volume" in problems.all()[0].got
    table, problems = read(root, require_all=False)
    assert problems.counts() == {}
    assert table.counts["studies_absent"] == 5


def test_no_chest_lists_with_folders_and_suffixes(root):
    lists = root / "dataset/metadata"
    (lists / "no_chest_valid.txt").write_text("dataset/valid/valid_1/valid_1_a/valid_1_a_1.nii.gz\nvalid_2_b_1\n")
    (lists / "no_chest_train.txt").write_text("")
    table, _ = read(root)
    assert table.counts["volumes_no_chest"] == 2
    assert set(table.volumes.loc[table.volumes["split"] == "test", "volume_id"]) == {"valid_1_a_2", "valid_2_a_1"}


@pytest.mark.parametrize("word", ["valid", "validation"])
def test_tables_by_either_name(tmp_path, word):
    write_tables(tmp_path, {"train": TRAIN, "valid": VALID}, valid_word=word)
    write_volumes(tmp_path, TRAIN + VALID)
    table, problems = read(tmp_path)
    assert problems.counts() == {}
    assert len(table.volumes) == len(TRAIN) + 3
    assert all(file.path.exists() for file in required_files(CtSourceSettings(root=str(tmp_path))))


def test_both_names_at_once_are_refused(root):
    folder = root / "dataset/radiology_text_reports"
    (folder / "valid_reports.csv").write_text((folder / "validation_reports.csv").read_text())
    with pytest.raises(DatasetError, match="2 tables of the same part"):
        read(root)


def test_both_releases_need_a_word(root):
    write_volumes(root / "dataset", TRAIN[:1], ending="")
    with pytest.raises(ConfigError, match="v1 and v2"):
        read(root)
    table, _ = read(root, release="v1", require_all=False)
    assert table.volumes["volume_id"].tolist() == TRAIN[:1]
    assert "/train/train_1/" in table.volumes["path"][0]


def test_metadata_are_handed_on_as_they_are(root):
    table, _ = read(root)
    row = table.volumes.iloc[0]
    assert (row["slope"], row["intercept"]) == (1.0, -1024.0)
    assert (row["spacing_z_mm"], row["spacing_y_mm"], row["spacing_x_mm"]) == (1.5, 0.34, 0.35)


def test_without_metadata_nothing_is_stated(root):
    for path in (root / "dataset/metadata").iterdir():
        path.unlink()
    table, problems = read(root)
    assert problems.counts() == {}
    assert table.volumes["slope"].isna().all()
    assert table.counts["volumes_without_metadata"] == len(table.volumes)


def test_short_reports_stay_and_fillers_do_not(root):
    path = root / "dataset/radiology_text_reports/validation_reports.csv"
    path.write_text(
        path.read_text()
        .replace("Findings of valid_2_b, twice.", "Clear.")
        .replace("Findings of valid_2_a, twice.", "Not given.")
    )
    table, _ = read(root)
    texts = dict(zip(table.reports["study_id"], table.reports["report"], strict=True))
    assert texts["valid_2_b"] == "Clear."
    assert "valid_2_a" not in texts
    assert table.counts["studies_without_findings"] == 1
    assert "valid_2_a_1" not in set(table.volumes["volume_id"])


def test_labels_are_of_the_study_and_blank_cells_stay_unknown(root):
    path = root / "dataset/multi_abnormality_labels/valid_predicted_labels.csv"
    path.write_text(path.read_text().replace("valid_2_a_1.nii.gz,0,1", "valid_2_a_1.nii.gz,,1"))
    table, problems = read(root)
    assert problems.counts() == {}
    assert pd.isna(table.labels.loc["valid_2_a", CT_ABNORMALITIES[0]])
    assert table.labels.loc["valid_2_b"].tolist() == [0.0, 1.0] * 9
    assert table.counts["labels_blank"] == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train_../../etc_a_1", "bad_id"),
        ("valid_1_a_1", "bad_id"),
        ("train_0_a_1", "bad_id"),
        ("train_1_A_1", "bad_id"),
        ("train_1_a_1", "duplicate_id"),
        ("train_1_a", "bad_id"),
    ],
)
def test_names_that_cannot_be(root, name, kind):
    path = root / "dataset/radiology_text_reports/train_reports.csv"
    with path.open("a") as stream:
        stream.write(f"{name}.nii.gz,,,Text,\n")
    _, problems = read(root)
    assert problems.counts() == {kind: 1}


def test_a_label_that_is_no_label(root):
    path = root / "dataset/multi_abnormality_labels/train_predicted_labels.csv"
    path.write_text(path.read_text().replace("train_3_a_1.nii.gz,0", "train_3_a_1.nii.gz,2"))
    _, problems = read(root)
    assert problems.counts() == {"bad_label": 1}
    assert problems.all()[0].record == "row 3"


def test_nothing_there(root):
    with pytest.raises(DatasetError, match=r"none of .* is there"):
        read(root, release="v1")


def test_cells_of_the_metadata_that_are_no_numbers_are_counted(root):
    path = root / "dataset/metadata/train_metadata.csv"
    text = path.read_text()
    for old, new in ((f"{TRAIN[0]}.nii.gz,X,", '"[0.34; 0.35]",-1024,inf,'), (f"{TRAIN[1]}.nii.gz,X,", ",,,")):
        row = next(line for line in text.splitlines() if line.startswith(old))
        text = text.replace(row, f"{old}{new}1.5")
    path.write_text(text)
    table, problems = read(root)
    assert table.counts["metadata_cells_not_understood"] == 2  # an empty cell says nothing
    stated = table.volumes.set_index("volume_id").loc[TRAIN[0]]
    assert stated[["slope", "spacing_y_mm", "spacing_x_mm"]].isna().all() and stated["spacing_z_mm"] == 1.5
    assert problems.counts() == {}


def test_text_is_of_the_study_whichever_reconstruction_is_there(root):
    """Texts of reconstructions may differ: the first one that has text counts, also where its volume is not there."""
    path = root / "dataset/radiology_text_reports/validation_reports.csv"
    rows = path.read_text().splitlines(keepends=True)
    texts = {"valid_1_a_1": "Not given.", "valid_1_a_2": "Of the second.", "valid_1_a_10": "Of the tenth."}
    path.write_text(rows[0] + "".join(f"{name}.nii.gz,,,{text},\n" for name, text in texts.items()) + "".join(rows[4:]))
    next(root.rglob("valid_1_a_1.nii.gz")).unlink()
    next(root.rglob("valid_1_a_2.nii.gz")).unlink()
    table, _ = read(root, require_all=False)
    assert "valid_1_a_10" in set(table.volumes["volume_id"])
    assert table.reports.set_index("study_id")["report"]["valid_1_a"] == "Of the second."
    assert table.counts["studies_with_differing_reports"] == 1
