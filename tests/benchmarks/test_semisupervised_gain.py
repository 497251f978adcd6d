"""The benchmark of the semi-supervised gain: what its arms share, when they are read, and the interval of the gain."""

import importlib
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from d2rnet.cxr.detector.settings import DetectorSettings
from d2rnet.files.documents import read_json


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return importlib.import_module("semisupervised_gain")


@pytest.fixture(scope="module")
def cells() -> ModuleType:
    return importlib.import_module("gain_cells")


def test_the_arms_differ_in_the_unlabelled_stream_alone(cells: ModuleType) -> None:
    arms = {arm: cells.Cell(arm, 10, 3, 1, 0.001, 400).settings(DetectorSettings()).to_json() for arm in cells.ARMS}
    assert {arm: settings["training"].pop("supervised_only") for arm, settings in arms.items()} == {
        "supervised_only": True,
        "weight_0": False,
        "unbiased_teacher": False,
    }
    assert [settings["training"].pop("unsupervised_weight") for settings in arms.values()] == [1.0, 0.0, 1.0]
    first, *others = arms.values()
    assert others == [first, first]
    wanted = {"seed": 3, "labelled_split_seed": 3, "labelled_percent": 10, "base_lr": 0.001, "total_iters": 400}
    assert wanted.items() <= first["training"].items()


def test_the_interval_of_the_gain_covers_seeds_and_test_images(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    gains = [0.02, 0.05, 0.11]
    drawn = [[gain + step for step in rng.normal(0, 0.03, 200)] for gain in gains]
    semi = [{"test": {"ema_teacher": {"ap50": 0.3 + g, "resamples": list(d)}}} for g, d in zip(gains, drawn, strict=True)]
    base = [{"test": {"ema_teacher": {"ap50": 0.3, "resamples": [0.0] * 200}}} for _ in gains]
    found = benchmark.gain(list(zip(semi, base, strict=True)))
    assert found["difference"] == pytest.approx(0.06) and found["seeds"] == 3
    seeds = 4.3027 * math.sqrt(0.0021 / 3)
    images = 1.959964 * np.std(np.mean(drawn, axis=0), ddof=1)
    half = math.sqrt(seeds**2 + images**2)
    assert found["interval"] == pytest.approx([0.06 - half, 0.06 + half], abs=1e-6)
    assert benchmark.gain([(semi[0], base[0])])["interval"] is None


def test_only_seeds_with_both_arms_are_paired(benchmark: ModuleType, cells: ModuleType) -> None:
    def cell(arm: str, seed: int, percent: float = 10) -> Any:
        return cells.Cell(arm, percent, seed, 1, 0.001, 400)

    done = {"done": True}
    table = {cell("supervised_only", 1): done, cell("unbiased_teacher", 1): done, cell("supervised_only", 2): done}
    table |= {cell("unbiased_teacher", 2): None, cell("unbiased_teacher", 3): done, cell("supervised_only", 3, 5): done}
    assert benchmark.pairs_of(table, 10, "unbiased_teacher", "supervised_only") == {1: (done, done)}


def test_each_arm_takes_the_rate_of_its_own_best_teacher(benchmark: ModuleType) -> None:
    peaks = dict(zip(benchmark.search_cells(), (0.20, 0.30, 0.25, 0.10, 0.21, 0.31, 0.1, 0.2, 0.1, 0.2), strict=True))
    searched = {
        cell: {"curve": [{"iteration": 100, "student": 0.9}, {"iteration": 400, "student": 0, "ema_teacher": peak}]}
        for cell, peak in peaks.items()
    }
    rates = {cell.arm: cell.base_lr for cell in peaks if peaks[cell] in (0.25, 0.31)}
    assert benchmark.best_rates(searched) == rates
    assert benchmark.best_rates(searched | {next(iter(searched)): None}) is None


class Run:
    """A training of which only the iterations are real."""

    def __init__(self, hook: Any, start: int) -> None:
        network = torch.nn.Linear(1, 1)
        self.student = network
        self.ema_teacher = SimpleNamespace(model=torch.nn.Linear(1, 1).eval())
        self.training = SimpleNamespace(burn_in_iters=2)
        self.start_iter, self.max_iter = start, 6
        hook.trainer = self
        hook.before_train()
        self.hook = hook

    def step(self, iteration: int) -> None:
        self.iter = iteration
        for network in (self.student, self.ema_teacher.model):
            with torch.no_grad():
                network.weight.fill_(iteration + 1)
        self.hook.after_step()


def test_a_stopped_cell_keeps_the_same_best_weights(cells: ModuleType, tmp_path: Path) -> None:
    values = {1: 0.1, 2: 0.2, 3: 0.4, 4: 0.6, 5: 0.5, 6: 0.6}

    def score(network: torch.nn.Linear) -> float:
        network.eval()
        return values[int(network.weight.item())]

    first = Run(cells.ScoringHook(score, tmp_path, every=1), 0)
    for iteration in range(4):  # scored at 4, killed before the checkpoint of 4
        first.step(iteration)
    second = Run(cells.ScoringHook(score, tmp_path, every=1), 3)
    for iteration in range(3, 6):
        second.step(iteration)
    assert second.student.training and not second.ema_teacher.model.training
    curve = read_json(tmp_path / cells.PROGRESS_NAME)["curve"]
    assert [(point["iteration"], point["student"]) for point in curve] == list(values.items())
    assert ["ema_teacher" in point for point in curve] == [False, False, True, True, True, True]
    assert cells.chosen(curve, "ema_teacher")["iteration"] == 4  # the first of equals
    for name in cells.NETWORKS.values():
        assert torch.load(tmp_path / name, weights_only=True)["model"]["weight"].item() == 4


def test_cells_of_all_arms_share_their_burn_in(cells: ModuleType, tmp_path: Path) -> None:
    first = cells.Cell(cells.SUPERVISED, 10, 3, 1, 0.001, 400)
    names = {cells.replace(first, arm=arm).burn_in_name for arm in cells.ARMS}
    assert len(names) == 1
    others = [cells.replace(first, seed=4), cells.replace(first, percent=5), cells.replace(first, base_lr=0.002)]
    assert len(names | {other.burn_in_name for other in others}) == 4
    folder, target = tmp_path / first.name, tmp_path / first.burn_in_name
    folder.mkdir()
    hook = cells.BurnInCopyHook(folder, target)
    hook.trainer = SimpleNamespace(training=SimpleNamespace(burn_in_iters=2))
    for iteration in range(5):
        (folder / "checkpoint.pth").write_text(str(iteration))
        hook.trainer.iter = iteration
        hook.before_step()
        assert target.is_dir() == (iteration >= 2)
    assert (target / "checkpoint.pth").read_text() == "2"  # and not that of a later iteration
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, target.name])
