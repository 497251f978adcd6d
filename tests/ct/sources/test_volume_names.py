"""Two spellings of CT-RATE's names."""

import pytest

from d2rnet.ct.sources.volume_names import volume_key


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
