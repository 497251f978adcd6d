"""Two spellings of CT-RATE's names."""

import pytest

from d2rnet.ct.sources.volume_names import study_key, volume_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train_1a_1", "train_1_a_1"),
        ("train_1_a_1.nii.gz", "train_1_a_1"),
        ("dataset/train_1/valid_10_ab_12.nii.gz", "valid_10_ab_12"),
        ("other", "other"),
    ],
)
def test_one_name_for_a_volume(name, key):
    assert volume_key(name) == key


@pytest.mark.parametrize(
    ("name", "study"),
    [
        ("train_1a_2", ("train_1_a", 2)),
        ("valid_1_a_10.nii.gz", ("valid_1_a", 10)),
        ("other", ("other", 0)),
        ("scan_3", ("scan_3", 0)),
        ("train_1_a_" + "9" * 5000, ("train_1_a_" + "9" * 5000, 0)),  # more digits than int() takes
    ],
)
def test_the_study_of_a_volume(name, study):
    assert study_key(name) == study
