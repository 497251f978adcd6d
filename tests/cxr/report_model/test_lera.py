"""Parts of the lesion enhancement against their description, written out patch by patch."""

import pytest
import torch
from torch import Tensor

from d2rnet.cxr.report_model.lera import LesionEnhancement, PatchAttention


def literal_patch(branch: PatchAttention, pixels: Tensor) -> Tensor:
    """Features (C,) of one patch (p, p), channels already averaged; pixels row by row."""
    features = branch.narrow(branch.norm(branch.widen(torch.stack([value for row in pixels for value in row]))).relu())
    features = features * (features.exp() / features.exp().sum())
    cosine = (features @ branch.pattern) / (features.norm() * branch.pattern.norm())
    return branch.mix(features * (cosine.clamp(0, 1) if branch.gate == "clamped" else (1 + cosine) / 2))


@pytest.mark.parametrize("gate", ["clamped", "shifted"])
@pytest.mark.parametrize("side", [2, 4])
def test_patch_attention_equals_the_literal_one(side: int, gate: str) -> None:
    torch.manual_seed(1)
    branch = PatchAttention(3, side, gate=gate)
    crops = torch.randn(2, 3, 8, 12)
    torch.nn.init.normal_(branch.narrow.weight)  # patches differ: some are like the pattern, others are not
    cells = torch.zeros(2, 3, 8 // side, 12 // side)
    for index in range(2):
        for row in range(8 // side):
            for column in range(12 // side):
                place = crops[index].mean(dim=0)[row * side : (row + 1) * side, column * side : (column + 1) * side]
                cells[index, :, row, column] = literal_patch(branch, place)
    expected = branch.exit(torch.nn.functional.interpolate(cells, scale_factor=side, mode="bilinear"))
    silent = (cells == 0).all(dim=1)
    assert silent.any() == (gate == "clamped") and not silent.all()
    torch.testing.assert_close(branch(crops), expected)


def test_each_convolution_of_the_chain_continues_the_one_before() -> None:
    """Everything else silenced: skip and patches are 0, both attentions are one half everywhere."""
    torch.manual_seed(0)
    block = LesionEnhancement(3, dropout=0.0).eval()
    crops = torch.rand(2, 3, 8, 8)
    silent = [block.skip, *(branch.exit for branch in block.patches), block.channel_attention, block.spatial_attention]
    for layer in silent:
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    first = block.chain[0](crops)
    second = block.chain[1](first)
    third = block.chain[2](second)
    expected = (first + second + third) / 4
    assert third.max() > 0
    torch.testing.assert_close(block(crops), expected, rtol=1e-4, atol=1e-5)
