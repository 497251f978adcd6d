"""Weight files: released, resumed from, pretrained."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from d2rnet.cxr.detector.checkpoint import load_pretrained, load_weights, save_weights
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.errors import CheckpointError

PREFIX = "backbone.bottom_up."


@pytest.fixture
def network(settings: TrainDetectorSettings) -> nn.Module:
    return build_network(build_cfg(settings))


def backbone_of(network: nn.Module) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {name.removeprefix(PREFIX): torch.randn(value.shape) for name, value in state.items() if name.startswith(PREFIX)}


def torchvision_names(backbone: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename as torchvision does: stem.conv1 -> conv1, res2.0.conv1.norm -> layer1.0.bn1, shortcut -> downsample."""
    renamed = {"fc.weight": torch.randn(10, 4)}
    for name, value in backbone.items():
        name = name.removeprefix("stem.").replace("shortcut.norm", "downsample.1").replace("shortcut.", "downsample.0.")
        for level in range(2, 6):
            name = name.replace(f"res{level}.", f"layer{level - 1}.")
        for number in range(1, 4):
            name = name.replace(f"conv{number}.norm", f"bn{number}")
        renamed[name] = value
    return renamed


def assert_backbone_equals(network: nn.Module, backbone: dict[str, torch.Tensor]) -> None:
    for name, value in network.state_dict().items():
        if name.startswith(PREFIX) and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, backbone[name.removeprefix(PREFIX)]), name


def test_released_weights_come_back(network: nn.Module, settings: TrainDetectorSettings, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", network)
    other = build_network(build_cfg(settings))
    load_weights(tmp_path / "w.pth", other)
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())
    assert list(tmp_path.iterdir()) == [tmp_path / "w.pth"]


def test_weights_of_another_network_name_the_keys(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    state["extra"] = state.pop("backbone.fpn_lateral3.weight")
    state["backbone.fpn_lateral3.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"Missing: backbone.fpn_lateral3.weight. Unknown: extra. Other shape: .*\(3,\)"):
        load_weights(tmp_path / "w.pth", network)


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_broken_and_missing_files(network: nn.Module, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w.pth: not a readable PyTorch file"):
        load_weights(tmp_path / "w.pth", network)
    with pytest.raises(CheckpointError, match=r"absent.pth: no such weight file"):
        load_weights(tmp_path / "absent.pth", network)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(network: nn.Module, tmp_path: Path, value: float) -> None:
    """With them no box is drawn, and nothing is said."""
    save_weights(tmp_path / "w.pth", network)
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    state["model"]["roi_heads.box_predictor.cls_score.bias"][3] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"NaN, infinity or whole numbers: roi_heads\.box_predictor\.cls_score\.bias"):
        load_weights(tmp_path / "w.pth", network)


def test_torchvision_backbone_loads_and_the_rest_is_reported(network: nn.Module, tmp_path: Path) -> None:
    backbone = backbone_of(network)
    torch.save(torchvision_names(backbone), tmp_path / "resnet.pth")
    report = load_pretrained(tmp_path / "resnet.pth", network)
    assert_backbone_equals(network, backbone)
    assert report.unused == ["fc.weight"]
    assert "roi_heads.box_predictor.cls_score.weight" in report.not_in_file


def test_three_channel_stem_is_summed(network: nn.Module, tmp_path: Path) -> None:
    backbone = backbone_of(network)
    kernels = torch.randn(16, 3, 7, 7)
    torch.save(torchvision_names({**backbone, "stem.conv1.weight": kernels}), tmp_path / "resnet.pth")
    load_pretrained(tmp_path / "resnet.pth", network)
    assert torch.equal(network.state_dict()[PREFIX + "stem.conv1.weight"], kernels.sum(dim=1, keepdim=True))


def test_detectron2_pickle_of_a_backbone(network: nn.Module, tmp_path: Path) -> None:
    backbone = backbone_of(network)
    arrays = {name: value.numpy() for name, value in backbone.items()}
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content))
    load_pretrained(tmp_path / "R.pkl", network)
    assert_backbone_equals(network, backbone)


def test_own_detector_loads_whole(network: nn.Module, settings: TrainDetectorSettings, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.pth", network)
    report = load_pretrained(tmp_path / "w.pth", build_network(build_cfg(settings)))
    assert report.not_in_file == []
    assert report.unused == []


def caffe2_blob(name: str) -> str | None:
    """Name of a bottleneck ResNet's parameter in Caffe2; None for running statistics, which Caffe2 files fold away."""
    end = {"weight": "_bn_s", "bias": "_bn_b"} if "norm" in name else {"weight": "_w"}
    stage, *rest = name.split(".")
    if rest[-1] not in end:
        return None
    if stage == "stem":
        return ("res_conv1" if "norm" in name else "conv1") + end[rest[-1]]
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    return f"{stage}_{rest[0]}_{branch[rest[1]]}{end[rest[-1]]}"


@pytest.mark.parametrize("is_original", [True, False])
@pytest.mark.parametrize(("norm", "loads"), [("FrozenBN", True), ("BN", False)])
def test_caffe2_blobs_need_frozen_normalisation(
    settings: TrainDetectorSettings, tmp_path: Path, norm: str, loads: bool, is_original: bool
) -> None:
    """Files of Caffe2 itself, and of detectron2's model zoo with Caffe2's names."""
    settings = settings.replaced(model={"backbone_depth": 50, "norm": norm})
    network = build_network(build_cfg(settings))
    backbone = backbone_of(network)
    blobs = {caffe2_blob(name): value.numpy() for name, value in backbone.items() if caffe2_blob(name)}
    content = {"blobs": blobs} if is_original else {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
    (tmp_path / "c2.pkl").write_bytes(pickle.dumps(content))
    if not loads:
        with pytest.raises(CheckpointError, match=r"backbone tensors are not in it. Missing: .*running_mean"):
            load_pretrained(tmp_path / "c2.pkl", network)
        return
    load_pretrained(tmp_path / "c2.pkl", network)
    state = network.state_dict()
    for name in ("stem.conv1.weight", "stem.conv1.norm.bias", "res2.0.shortcut.weight", "res5.2.conv3.norm.weight"):
        assert torch.equal(state[PREFIX + name], backbone[name]), name
    assert state[PREFIX + "res3.1.conv2.norm.running_mean"].abs().max() == 0


@pytest.mark.parametrize("content", [{"model": {"a": torch.zeros(3)}}, {"model": {}}])
def test_a_file_of_which_nothing_fits_is_an_error(network: nn.Module, tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"nothing in it fits|no tensors in it"):
        load_pretrained(tmp_path / "w.pth", network)


def test_half_a_backbone_is_an_error(network: nn.Module, tmp_path: Path) -> None:
    backbone = {name: value for name, value in backbone_of(network).items() if not name.startswith("res5")}
    torch.save(backbone, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"backbone tensors are not in it. Missing: backbone.bottom_up.res5"):
        load_pretrained(tmp_path / "w.pth", network)


def test_a_pickle_that_would_run_code_is_refused(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Path("x")}))
    with pytest.raises(CheckpointError, match=r"is not allowed in a weight file"):
        load_pretrained(tmp_path / "evil.pkl", network)
