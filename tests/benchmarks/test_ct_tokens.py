"""The benchmark of visual tokens counts what the shapes say, and times the real task."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ct_report_samples import settings_of


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ct_tokens_benchmark", repository / "benchmarks" / "ct_tokens.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_figures_of_both_selections(benchmark: ModuleType) -> None:
    options = argparse.Namespace(patches=40, structures=3, width=12, batch=2, tokens=6, words=20, repeats=1)
    found = benchmark.measure(settings_of(), options)
    assert found["selected"]["visual_tokens"] == 3 + 3 * 2 and found["all"]["visual_tokens"] == 43
    for name, length in (("selected", 9), ("all", 43)):
        figures = found[name]
        # one layer, two heads: attention among visual tokens is kept as float32, at least once
        assert figures["kept_mb_per_volume_visual"] * 1e6 > 2 * (length**2 - 1) * 4
        # projection 12 -> 16 and, in encoder and decoder, products with 16 x 16 and 16 x 16 weights: 2 operations each
        least = 2 * (length - 1) * (12 * 16 + 4 * 16 * 16 + 2 * 16 * 16 + 2 * 16 * 16)
        assert least < figures["forward_gflop_per_volume_visual"] * 1e9 < 3 * least
        assert figures["training_step_seconds"] > 0
        assert figures["kept_mb_per_volume"] > figures["kept_mb_per_volume_visual"]
