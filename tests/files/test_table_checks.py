"""Checks of tables that the wings share."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from d2rnet.errors import DatasetError
from d2rnet.files import table_checks
from d2rnet.files.problems import Problems


@pytest.mark.parametrize(("folds", "found"), [(True, ["image IMG", "image e\u0301"]), (False, [])])
def test_ids_that_would_be_one_file_are_noted(tmp_path, monkeypatch, folds, found):
    """On a Windows share or a Mac the second PNG took the place of the first: boxes on another image."""
    monkeypatch.setattr(table_checks, "folds_names", lambda folder: folds)
    images = pd.DataFrame({"source_id": ["img", "\u00e9", "IMG", "e\u0301", "other", "other"]})
    problems = Problems()
    table_checks.check_alike_ids(images, problems, file="root", folder=tmp_path)
    assert [problem.record for problem in problems.all()] == found
    assert {problem.kind for problem in problems.all()} <= {"alike_image_id"}


@pytest.mark.parametrize("fold", [None, str.lower, lambda name: unicodedata.normalize("NFC", name)])
def test_a_file_system_is_tried(tmp_path, monkeypatch, fold):
    """``exists`` stands for a file system that folds names; this one does not."""
    if fold is not None:

        def exists(path):
            return fold(path.name) in {fold(there.name) for there in path.parent.iterdir()}

        monkeypatch.setattr(Path, "exists", exists)
    assert table_checks.folds_names(tmp_path) is (fold is not None)
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_lost_everything_is_named():
    before = ["train", "val", "val", "test"]
    table_checks.assert_splits_filled(before, ["test", "val", "train"], ("train", "val", "test"), key="k", what="volume")
    with pytest.raises(DatasetError, match=r"^k: no volume of split val is left of 2; expected at least one"):
        table_checks.assert_splits_filled(before, ["test", "train"], ("train", "val", "test"), key="k", what="volume")
