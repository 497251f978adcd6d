"""The pretend GPU minds what a real one minds."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_gpu import on_gpu, pretend_gpu
from torch import Tensor, nn
from torchvision.ops import nms

from d2rnet.files.torch_files import load_torch, save_torch

HERE, THERE = torch.ones(3), "cuda:0"


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + HERE,
        lambda x: x.add_(HERE),
        lambda x: torch.cat([x, HERE]),
        lambda x: torch.stack([x.sum(), HERE.sum()]),
        lambda x: torch.where(x > 0, x, HERE),
        lambda x: HERE[x.long()],
        lambda x: nn.functional.linear(x, torch.ones(2, 3)),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: torch._foreach_lerp_([x], [HERE], 0.5),
        lambda x: nms(torch.ones(3, 4), x, 0.5),
        lambda x: next(iter(x[None])) + HERE,
        lambda x: torch.max(x[None], dim=0).values + HERE,
        lambda x: x.new_zeros(3) + torch.zeros(3),
        lambda x: torch.zeros(3, device=x.device) + torch.zeros(3),
        lambda x: copy.deepcopy(x) + HERE,
    ],
)
def test_mixed_devices_raise(mistake: Callable[[Tensor], object]) -> None:
    with pretend_gpu(), pytest.raises(RuntimeError, match="device"):
        mistake(torch.ones(3, device=THERE))


def test_what_a_gpu_allows() -> None:
    with pretend_gpu() as gpu:
        x = torch.ones(3).to(THERE, non_blocking=True)
        assert on_gpu(x + torch.tensor(2.0)) and on_gpu(x * 2)
        assert x.device == torch.device(THERE) and x.is_cuda and HERE.device.type == "cpu"
        assert not gpu.waits
        x.copy_(HERE)
        assert on_gpu(x) and not gpu.waits
        here = torch.zeros(3).copy_(x)
        assert not on_gpu(here) and gpu.waits == {"copy to the CPU": 1}
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x[0]),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[[0, 1]],
        lambda x: x[..., [0, 1]],
        lambda x: x.__setitem__([0, 1], 0.0),
        lambda x: x[np.array([0, 1])],
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: torch.where(x > 0),
        lambda x: torch.ones(2).to(x.device),
    ],
)
def test_each_wait_is_counted(wait: Callable[[Tensor], object]) -> None:
    with pretend_gpu() as gpu:
        x = torch.ones(3, device=THERE)
        x[torch.zeros(2, dtype=torch.long, device=THERE)].sum()
        x[..., 1:] = x[2]
        assert not gpu.waits
        wait(x)
        assert gpu.waits.total() == 1


def test_a_copy_is_a_copy_and_a_network_moves_whole(tmp_path: Path) -> None:
    with pretend_gpu():
        there = HERE.to(THERE)
        there.zero_()
        assert HERE.sum() == 3
        network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(THERE)
        twin = copy.deepcopy(network)
        assert all(on_gpu(tensor) for part in (network, twin) for tensor in part.state_dict().values())
        optimizer = torch.optim.AdamW(twin.parameters(), foreach=True)
        twin(torch.ones(4, 3, device=THERE)).sum().backward()
        optimizer.step()
        save_torch(tmp_path / "state.pth", {"twin": twin.state_dict(), "optimizer": optimizer.state_dict()})
        state = load_torch(tmp_path / "state.pth")
        assert not any(map(on_gpu, state["twin"].values()))
        network.load_state_dict(state["twin"])
        own = torch.optim.AdamW(network.parameters(), foreach=True)
        own.load_state_dict(state["optimizer"])
        assert on_gpu(own.state_dict()["state"][0]["exp_avg"]) and on_gpu(network[0].weight)
