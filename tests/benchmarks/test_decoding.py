"""The decoding benchmark compares like with like: both decoders write the same reports, and operations are counted rightly."""

import argparse
import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(scope="module")
def benchmark(repository) -> ModuleType:
    spec = importlib.util.spec_from_file_location("decoding_benchmark", repository / "benchmarks" / "decoding.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options() -> argparse.Namespace:
    return argparse.Namespace(
        device="cpu", precision="32-true", threads=1, batch=2, beams=3, tokens=7, width=16, vocabulary=30, repeats=1
    )


def test_both_decoders_write_the_same_reports(benchmark: ModuleType, options: argparse.Namespace) -> None:
    found = benchmark.decoding(options)
    assert found["identical_reports"] == "2 of 2"
    assert found["early_stop_identical"]
    assert found["operations_ratio"] > 2


@torch.no_grad()
def test_operations_of_a_search_follow_from_four_steps(benchmark: ModuleType, options: argparse.Namespace) -> None:
    """Against counting every step of a search that is run; feed-forward and scores of one row by hand."""
    transformer = benchmark.make_transformer(options).eval()
    encoded = torch.randn(2, benchmark.PATCHES, 16)
    mask = torch.ones(2, benchmark.PATCHES, dtype=torch.bool)
    counted = benchmark.count_operations(options)
    for name, decoder in {"incremental": transformer, "plain": benchmark.PlainDecoder(transformer)}.items():
        with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            state = decoder.start(encoded, mask, beams=3, max_tokens=7)
            for _ in range(7):
                decoder.step(torch.zeros(6, dtype=torch.long), state)
        assert counter.get_total_flops() == counted[name]
    with FlopCounterMode(display=False) as counter:
        transformer.decoder[0].feed_forward(torch.zeros(1, 16))
        transformer.logits(torch.zeros(1, 16))
    assert counter.get_total_flops() == 2 * (2 * 16 * 512 + 16 * 30)


def test_training_part_runs(benchmark: ModuleType, options: argparse.Namespace) -> None:
    found = benchmark.training(options)
    assert set(found["times"]) == {"loop, ours", "loop, plain", "step, ours", "step, plain"}
    assert all(found[f"{part}_{clock}_ratio"] > 0 for part in ("loop", "step") for clock in ("wall", "processor"))


def test_plain_memory_is_the_same_memory(benchmark: ModuleType, options: argparse.Namespace) -> None:
    memory = benchmark.make_transformer(options).relational_memory
    tokens = torch.randn(2, 5, 16)
    start = memory.initial(2, like=tokens)
    assert torch.allclose(memory(tokens, start), benchmark.plain_memory(memory, tokens, start), atol=1e-6)
