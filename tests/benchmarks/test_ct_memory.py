"""Counts of ct_memory.py by hand: operations, what is kept, and what stage 2 sees of a volume."""

import ct_memory
import pytest
import torch
from torch import nn


def cost(make, run, **options):
    return ct_memory.cost_of(make, run, **{"precision": "32-true", "written_out": True, **options})


def test_a_linear_layer():
    found = cost(lambda: nn.Linear(4, 6), lambda model: model(torch.empty(3, 4)))
    assert (found.forward, found.backward) == (2 * 3 * 4 * 6,) * 2  # its input needs no gradient
    assert found.kept == 3 * 4 * 4  # the input, once; the weight is not counted
    assert found.weights == 30
    assert found.trained_bytes == 30 * 4 * 4


def test_a_storage_is_kept_once():
    found = cost(lambda: nn.Linear(4, 4), lambda model: model(given := torch.empty(3, 4)) + model(given.view(3, 4)))
    assert found.kept == 3 * 4 * 4


def test_a_depthwise_convolution_counts_its_groups():
    found = cost(
        lambda: nn.Conv3d(8, 8, 3, padding=1, groups=8), lambda model: model(torch.empty(1, 8, 2, 3, 4, requires_grad=True))
    )
    assert found.forward == 2 * 8 * 24 * 27
    assert found.backward == 2 * found.forward


def test_attention_by_kernel_keeps_no_map():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    def run(model):
        return model(torch.empty(1, 2, 50, 8, requires_grad=True))

    written, kernel = (cost(Attention, run, written_out=written) for written in (True, False))
    assert written.forward == 2 * (2 * 2 * 50 * 50 * 8)
    assert written.kept >= 2 * 50 * 50 * 4
    assert kernel.kept <= 2 * (50 * 8 * 2 + 50) * 4  # the input and the output, and a number per query


@pytest.mark.parametrize(("written_out", "most"), [(False, 0.15), (True, 0.02)])
def test_selected_tokens_take_a_fraction_of_all_patches(written_out, most):
    """At the demo's size: 50 tokens instead of 1,306."""
    settings = ct_memory.variants()["demo"]
    few, many = (ct_memory.report_cost(settings, tokens, 180, written_out=written_out).kept for tokens in (50, 1306))
    assert few / many < most
