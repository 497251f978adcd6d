"""Weight files: released, resumed from, pretrained."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
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


def test_a_colour_stem_becomes_the_grey_one_that_sums_what_each_channel_gives(network: nn.Module, tmp_path: Path) -> None:
    """Ours sees (g - 127.5) / 64; torchvision's (g - mean_c) / std_c of the ImageNet, red first."""
    backbone = backbone_of(network)
    kernels = torch.randn(16, 3, 7, 7)
    torch.save(torchvision_names({**backbone, "stem.conv1.weight": kernels}), tmp_path / "resnet.pth")
    load_pretrained(tmp_path / "resnet.pth", network)
    grey = torch.rand(1, 1, 40, 40) * 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    theirs = torch.nn.functional.conv2d((grey - mean) / std, kernels)
    state = network.state_dict()
    ours = torch.nn.functional.conv2d((grey - 127.5) / 64, state[PREFIX + "stem.conv1.weight"])
    moved = state[PREFIX + "stem.conv1.norm.running_mean"] - backbone["stem.conv1.norm.running_mean"]
    torch.testing.assert_close(ours - moved[:, None, None], theirs, rtol=1e-4, atol=1e-3)
    assert moved.abs().max() > 0.1


@pytest.mark.parametrize("means", [[10.0, 20.0, 30.0], None])
def test_the_stem_of_a_detector_that_does_or_does_not_tell_its_channels(
    network: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture, means: list[float] | None
) -> None:
    backbone = backbone_of(network)
    kernels = torch.randn(16, 3, 7, 7)
    content = {PREFIX + name: value for name, value in {**backbone, "stem.conv1.weight": kernels}.items()}
    if means:
        content |= {"pixel_mean": torch.tensor(means)[:, None, None], "pixel_std": torch.full((3, 1, 1), 64.0)}
    torch.save({"model": content}, tmp_path / "w.pth")
    load_pretrained(tmp_path / "w.pth", network)
    state = network.state_dict()
    torch.testing.assert_close(state[PREFIX + "stem.conv1.weight"], kernels.sum(dim=1, keepdim=True))
    moved = backbone["stem.conv1.norm.running_mean"] - state[PREFIX + "stem.conv1.norm.running_mean"]
    offsets = torch.tensor([127.5 - mean for mean in means or [127.5] * 3])[:, None, None] / 64
    torch.testing.assert_close(moved, (kernels * offsets).sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4)
    assert ("does not tell how its input was normalised" in caplog.text) == (means is None)


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


BATCH_NORM_NAMES = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


def caffe2_blob(name: str, *, unfused: bool = False) -> str | None:
    """Name of a bottleneck ResNet's parameter in Caffe2; None for running statistics, which fused files fold away."""
    is_norm = "norm" in name
    end = ({"weight": "s", "bias": "b"} if is_norm else {"weight": "w"}) if not (unfused and is_norm) else BATCH_NORM_NAMES
    stage, *rest = name.split(".")
    if rest[-1] not in end:
        return None
    suffix = ("_bn_" if is_norm else "_") + end[rest[-1]]
    if stage == "stem":
        return ("res_conv1" if is_norm else "conv1") + suffix
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    return f"{stage}_{rest[0]}_{branch[rest[1]]}{suffix}"


def stock_network(depth: int) -> nn.Module:
    """detectron2's own network for colour images."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


@pytest.mark.parametrize(("depth", "norm"), [(50, "FrozenBN"), (101, "FrozenBN"), (50, "BN")])
def test_a_bare_pickle_of_caffe2_is_read_as_detectron2_reads_it(
    settings: TrainDetectorSettings, tmp_path: Path, depth: int, norm: str
) -> None:
    """As MSRA/R-50.pkl: neither author nor "blobs", batch norm not folded, a colour stem, a classifier, momenta."""
    stock = stock_network(depth)
    generator = torch.Generator().manual_seed(depth)
    backbone = {
        name.removeprefix(PREFIX): torch.rand(value.shape, generator=generator) + 0.5
        for name, value in stock.state_dict().items()
        if name.startswith(PREFIX)
    }
    blobs = {caffe2_blob(name, unfused=True): value.numpy() for name, value in backbone.items()}
    extra = {"conv1_b": np.ones(64, np.float32), "fc1000_w": np.ones((10, 4), np.float32), "fc1000_b": np.ones(10, np.float32)}
    content = {**blobs, **extra, "conv1_w_momentum": blobs["conv1_w"]}
    assert "res2_0_branch2a_bn_running_var" in content
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content, protocol=2))
    DetectionCheckpointer(stock).load(str(tmp_path / "R.pkl"))
    network = build_network(
        build_cfg(settings.replaced(model={"backbone_depth": depth, "backbone_width": 64, "norm": norm, "pixel_mean": 115.0}))
    )
    report = load_pretrained(tmp_path / "R.pkl", network)
    theirs, ours = stock.state_dict(), network.state_dict()
    names = [name for name in theirs if name.startswith(PREFIX)]
    assert len(names) == len(blobs) and set(names) <= set(report.loaded)
    for name in names:
        if not name.startswith(PREFIX + "stem"):
            assert torch.equal(ours[name], theirs[name]), name
    assert report.unused == ["conv1_b", "fc1000_b", "fc1000_w"]
    assert all(not name.startswith(PREFIX) for name in report.not_in_file)
    grey = torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        mine = network.eval().backbone.bottom_up.stem(network.preprocess_image([{"image": grey}]).tensor)
        stocks = stock.eval().backbone.bottom_up.stem(((grey - stock.pixel_mean) / stock.pixel_std)[None])
    inside = (..., slice(3, -3), slice(3, -3))  # both pad with 0, which is another grey here and there
    torch.testing.assert_close(mine[inside], stocks[inside], rtol=1e-4, atol=1e-2)
    assert stocks[inside].std() > 1


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


def test_bare_blobs_saved_by_torch_are_caffe2s_too(settings: TrainDetectorSettings, tmp_path: Path) -> None:
    network = build_network(build_cfg(settings.replaced(model={"backbone_depth": 50})))
    backbone = backbone_of(network)
    names = {caffe2_blob(name, unfused=True): name for name in backbone if not name.endswith("num_batches_tracked")}
    torch.save({blob: backbone[name] for blob, name in names.items()}, tmp_path / "w.pth")
    load_pretrained(tmp_path / "w.pth", network)
    assert_backbone_equals(network, backbone)


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
