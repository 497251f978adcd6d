"""The benchmark of the semi-supervised gain: what its arms share, and the interval of the mean gain."""

import importlib
from types import ModuleType

import numpy as np
import pytest
from detection_samples import random_case

from d2rnet.cxr.detector.settings import DetectorSettings


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return importlib.import_module("semisupervised_gain")


def test_the_arms_differ_in_the_unlabelled_stream_alone(benchmark: ModuleType) -> None:
    arms = [benchmark.Cell(arm, 10, 3).settings(DetectorSettings()).to_json() for arm in benchmark.ARMS]
    assert [arm["training"].pop("supervised_only") for arm in arms] == [True, False]
    assert arms[0] == arms[1]
    assert arms[0]["training"]["seed"] == arms[0]["training"]["labelled_split_seed"] == 3
    assert arms[0]["training"]["labelled_percent"] == 10


def test_the_interval_of_the_mean_gain_is_the_basic_one_of_paired_resamples(benchmark: ModuleType) -> None:
    records, results = random_case(30, seed=4)
    scores, names = benchmark.Scores(), [benchmark.Cell("a", 10, 1), benchmark.Cell("b", 10, 1), benchmark.Cell("a", 10, 2)]
    lists = [results, results[::2], results[1::2]]
    for cell, found in zip(names, lists, strict=True):
        scores.add(cell, "teacher", records, found)
    a, b, c = ((cell, "teacher") for cell in names)
    gain = scores.difference([(a, b), (a, c)])
    drawn = [benchmark.ap50_with_resamples(records, found, samples=1000, seed=0) for found in lists]
    value = drawn[0][0] - (drawn[1][0] + drawn[2][0]) / 2
    low, high = np.quantile(drawn[0][1] - (drawn[1][1] + drawn[2][1]) / 2, [0.025, 0.975])
    assert gain["difference"] == pytest.approx(value, abs=1e-6)
    assert gain["interval"] == pytest.approx([2 * value - high, 2 * value - low], abs=1e-5)
