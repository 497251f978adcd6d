"""Seeded splits: shares, order independence, and no empty split."""

import random
from collections import Counter

import pytest

from d2rnet.errors import DatasetError
from d2rnet.files.splits import split_groups, three_way_split, validation_split


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (10, (7, 1, 2)), (11, (8, 1, 2)), (1000, (700, 100, 200))],
)
def test_three_way_sizes(groups, sizes):
    counts = Counter(three_way_split(map(str, range(groups)), seed=3).values())
    assert (counts["train"], counts["val"], counts["test"]) == sizes


def test_split_does_not_depend_on_order_or_repeats():
    groups = [f"p{i}" for i in range(50)]
    shuffled = groups * 2
    random.Random(0).shuffle(shuffled)
    assert three_way_split(groups, seed=1) == three_way_split(shuffled, seed=1)


def test_seed_changes_the_split():
    groups = [f"p{i}" for i in range(50)]
    assert three_way_split(groups, seed=1) != three_way_split(groups, seed=2)


def test_order_of_groups_is_pinned():
    """The split is part of a result: it must not change between versions."""
    assert split_groups("abcdef", {"train": 0.5, "val": 0.5}, seed=1) == {
        "a": "train", "b": "val", "c": "val", "d": "train", "e": "val", "f": "train",
    }  # fmt: skip


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 10), (0.001, 1), (0.25, 25)])
def test_validation_share(fraction, expected):
    counts = Counter(validation_split(map(str, range(100)), val_fraction=fraction, seed=0).values())
    assert counts == {"train": 100 - expected, "val": expected}


def test_too_few_groups():
    with pytest.raises(DatasetError, match="cannot split 2 patient"):
        three_way_split(["a", "b", "a"], seed=0)
