"""Networks with batch norms, chunk by chunk: statistics, outputs and gradients are those of all rows at once."""

import copy

import pytest
import torch
from torch import Tensor, nn

from d2rnet.training.chunks import run_in_chunks
from d2rnet.training.collectives import GlobalBatchNorm


class Network(nn.Module):
    """Two norms behind each other and a third beside the second, so that one gradient meets the statistics of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = GlobalBatchNorm(3)
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.beside = nn.Conv2d(3, 4, 1, stride=2)
        self.norms = nn.ModuleList(GlobalBatchNorm(4) for _ in range(2))
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        seen = self.norm(self.first(x)).tanh()
        both = self.norms[0](self.second(seen)).tanh() * self.norms[1](self.beside(seen))
        return both.square().mean(dim=(2, 3))


def made() -> tuple[Network, Tensor]:
    torch.manual_seed(2)
    network = Network().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network, torch.randn(7, 1, 6, 6).double() * torch.arange(1, 8).double()[:, None, None, None] + 3


@pytest.mark.parametrize("chunk", [1, 3, 6, 7, 20])
def test_chunks_make_the_step_of_all_rows(chunk: int) -> None:
    whole, x = made()
    parts = copy.deepcopy(whole)
    asked = torch.randn(7, 4).double()
    expected = whole(x)
    expected.backward(asked)
    found = run_in_chunks(parts, lambda rows: parts(x[rows]), count=7, chunk=chunk)
    found.backward(asked)
    torch.testing.assert_close(found, expected)
    for (name, one), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
        assert other.grad.abs().max() > 1e-3 or name.endswith(".bias"), name
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for one, other in zip(parts.buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert all(norm.instead is None for norm in (parts.norm, *parts.norms))


def test_one_norm_by_hand() -> None:
    """Rows 0, 2 | 4, 10: mean 4, variance 14; the third one's gradient of (x - 4) / sqrt(14) pulls at all four."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), GlobalBatchNorm(1)).double()
    nn.init.ones_(network[0].weight)
    network[1].eps = 0.0
    x = torch.tensor([0.0, 2.0, 4.0, 10.0]).double().view(4, 1, 1, 1)
    found = run_in_chunks(network, lambda rows: network(x[rows]).flatten(1), count=4, chunk=2)
    assert (found * 14**0.5).flatten().tolist() == pytest.approx([-4, -2, 0, 6])
    found[3].backward()
    # 6 w / sqrt(14 w^2) does not change with w; the norm's own factor and shift have 6 / sqrt(14) and 1.
    assert float(network[0].weight.grad) == pytest.approx(0, abs=1e-12)
    assert float(network[1].weight.grad) == pytest.approx(6 / 14**0.5) and float(network[1].bias.grad) == 1
    assert float(network[1].running_mean) == pytest.approx(0.4) and float(network[1].num_batches_tracked) == 1
    assert float(network[1].running_var) == pytest.approx(0.9 + 0.1 * 14 * 4 / 3)


def test_passes_are_counted_and_no_chunk_is_larger_than_asked() -> None:
    network, x = made()
    found = run_in_chunks(network, lambda rows: network(x[rows]), count=7, chunk=3)
    assert network.calls == [3, 3, 1] * (3 + 1)  # as far as each norm, and to the end
    network.calls.clear()
    found.sum().backward(retain_graph=True)
    assert network.calls == [3, 3, 1] * (3 + 1)
    first = network.first.weight.grad.clone()
    found.sum().backward()
    torch.testing.assert_close(network.first.weight.grad, 2 * first)


def test_evaluation_takes_the_running_statistics() -> None:
    network, x = made()
    network.eval()
    found = run_in_chunks(network, lambda rows: network(x[rows]), count=7, chunk=3)
    assert network.calls == [3, 3, 1] and torch.allclose(found, network(x))


def test_nothing_is_kept_for_the_backward_pass_but_inputs() -> None:
    """The plain forward pass keeps every map of every row."""
    network, x = made()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        run_in_chunks(network, lambda rows: network(x[rows]), count=7, chunk=3)
        assert not kept
        network(x)
    assert sum(tensor.numel() for tensor in kept) > 3 * x.numel()


def test_half_precision_is_that_of_the_forward_pass() -> None:
    """The backward pass runs outside of autocast and computes again as the forward pass did."""
    whole, x = made()
    whole, x = whole.float(), x.float()
    parts = copy.deepcopy(whole)
    kinds = set()

    def run(rows: slice) -> Tensor:
        out = parts(x[rows])
        kinds.add(out.dtype)
        return out

    with torch.autocast("cpu", torch.bfloat16):
        expected = whole(x)
        found = run_in_chunks(parts, run, count=7, chunk=3)
    found.sum().backward()
    expected.sum().backward()
    assert found.dtype == expected.dtype
    assert kinds == {expected.dtype}
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    gradient, other = parts.second.weight.grad, whole.second.weight.grad
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.99
