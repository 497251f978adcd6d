"""Fixtures of the tests of stage 2; what they give is changed by no test."""

from pathlib import Path

import pytest
import torch
from ct_report_samples import extract, train, write_ct_cohort


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors are quickest on one thread, and results do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def ct_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with volumes, ct_annotation.json and a stage 1."""
    return write_ct_cohort(tmp_path_factory.mktemp("ct_cohort"))


@pytest.fixture(scope="package")
def ct_features(ct_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of its features."""
    return extract(ct_cohort, tmp_path_factory.mktemp("ct_features"))


@pytest.fixture(scope="package")
def ct_run(ct_cohort: Path, ct_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted training; its model folder is ``model``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ct_report_run")
    train(ct_cohort, ct_features, folder)
    return folder
