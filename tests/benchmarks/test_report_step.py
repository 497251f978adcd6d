"""The benchmark of a training step runs the real task, and its figures follow from the times."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from report_samples import small_settings


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_step_benchmark", repository / "benchmarks" / "report_step.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options() -> argparse.Namespace:
    return argparse.Namespace(device="cpu", precision="32-true", batch=3, boxes=2, tokens=6, words=20, repeats=2)


@pytest.mark.parametrize("branch", ["none", "roi_align", "crop"])
def test_figures_of_every_branch(benchmark: ModuleType, options: argparse.Namespace, branch: str) -> None:
    settings = small_settings().replaced(
        model={"lesion_branch": branch, "crop_size_px": 32, "crop_width": 2, "findings": "told"},
        training={
            "pointer_weight": 0.3 if branch != "none" else 0.0,
            "alignment": {"lab": "lesions" if branch != "none" else "none", "gab": "patches"},
        },
    )
    found = benchmark.measure(settings, options)
    assert found["training_images_per_second"] == pytest.approx(3 / found["training_step_seconds"])
    assert found["paper_training_days"] == pytest.approx(270_790 * 50 / found["training_images_per_second"] / 86400)
    assert found["reports_per_second"] > 0
    assert found["training_peak_gib"] > 0.1


def test_what_is_counted(benchmark: ModuleType, options: argparse.Namespace) -> None:
    """The first convolution alone takes 3 x 2 x 49 x C x 16 x 16; a batch keeps activations beside the weights."""
    options.tflops = 2.0
    settings = small_settings().replaced(training={"epochs": 3})
    found = benchmark.count(settings, options)
    stem = 3 * 2 * 49 * settings.model.backbone_width * 16 * 16 / 1e12
    assert stem < found["TFLOP_an_entry"] < 100 * stem
    assert found["GPU_hours"] == pytest.approx(270_790 * 3 * found["TFLOP_an_entry"] / 2 / 3600)
    options.batch *= 1000
    assert benchmark.image_network_bytes(settings, options) > 10 * found["image_network_gib"] * 2**30 > 0


def test_timed_leaves_the_first_call_out(benchmark: ModuleType) -> None:
    calls: list[int] = []
    assert len(benchmark.timed(lambda: calls.append(1), torch.device("cpu"), 3)) == 3
    assert len(calls) == 4
