"""Image networks and their pretrained weights: the same numbers as the project gives that the weights are from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from backbone_samples import settled, write_detector, write_transformer
from report_samples import NUM_TOKENS, SMALL_MODEL, make_batch
from safetensors.torch import save_file
from torch import Tensor, nn

from d2rnet.cxr.report_model.backbone_weights import (
    backbone_facts,
    backbone_inputs,
    load_backbone,
    load_detector,
    start_backbone,
)
from d2rnet.cxr.report_model.backbones import VisionTransformer, make_backbone, make_convolutional, transformer_facts
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.cxr.report_model.visual_extractor import VisualExtractor
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.training.collectives import GlobalBatchNorm

GREY = torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0)).float() / 255
OURS = (GREY - 0.449) / 0.226


@pytest.mark.parametrize(
    ("backbone", "stages", "channels", "side"),
    [("resnet18", 4, 512, 2), ("resnet50", 3, 1024, 4), ("densenet121", 2, 512, 8), ("densenet121", 4, 1024, 2)],
)
def test_shapes(backbone: str, stages: int, channels: int, side: int) -> None:
    network = make_convolutional(backbone, stages=stages)
    assert (network.channels, network.stride) == (channels, 64 // side)
    extractor = VisualExtractor(network, patch_channels=6, attention=False).eval()
    feature_map, patches = extractor(torch.zeros(1, 64, 64, dtype=torch.uint8))
    assert feature_map.shape == (1, channels, side, side)
    assert patches.shape == (1, side * side, 6)
    assert torch.equal(patches[0, side], extractor.projection(feature_map)[0, :, 1, 0])  # row by row
    assert all(isinstance(part, GlobalBatchNorm) for part in network.modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_torchvision(tmp_path: Path, backbone: str, suffix: str) -> None:
    """Random weights under torchvision's own keys, classifier included, on the grey image as three channels."""
    torch.manual_seed(5)
    reference = settled(getattr(torchvision.models, backbone)(weights=None))
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(reference.state_dict(), path)
    network = make_convolutional(backbone, stages=4)
    load_backbone(network, path)
    grey = OURS.expand(-1, 3, -1, -1)
    if backbone.startswith("densenet"):
        expected = reference.features(grey).relu()
    else:
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(grey))))
        expected = reference.layer4(reference.layer3(reference.layer2(reference.layer1(x))))
    torch.testing.assert_close(network.eval()(OURS), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backbone", ["resnet50", "densenet121"])
def test_weights_of_torchxrayvision(tmp_path: Path, backbone: str) -> None:
    """One input channel, pixels from -1024 to 1024, a prefix where the network is a part, old names of dense layers."""
    torch.manual_seed(6)
    whole = getattr(torchvision.models, backbone)(weights=None)
    if backbone == "resnet50":
        whole.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        reference = settled(nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2))
        state = {f"model.{name}": value for name, value in whole.state_dict().items()}
    else:
        whole.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        reference = settled(nn.Sequential(*list(whole.features.children())[:7]))
        state = {
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for name, v in whole.state_dict().items()
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "xrv.pt")
    network = make_convolutional(backbone, stages=2)
    load_backbone(network, tmp_path / "xrv.pt", pixels="torchxrayvision")
    network[0].padding = reference[0].padding = (0, 0)  # both pad with 0, which is another grey level
    found, expected = network.eval()(OURS), reference(2048 * GREY - 1024)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    load_backbone(network, tmp_path / "xrv.pt")
    assert not torch.allclose(network(OURS), expected, rtol=1e-3, atol=0.1 * float(expected.abs().max()))


@pytest.mark.parametrize("pixels", ["imagenet", "torchxrayvision"])
def test_first_layers_give_the_same_away_from_the_border(tmp_path: Path, pixels: str) -> None:
    torch.manual_seed(7)
    reference = settled(torchvision.models.resnet18(weights=None))
    reference.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.save(reference.state_dict(), tmp_path / "one.pth")
    network = make_convolutional("resnet18", stages=2)
    load_backbone(network.eval(), tmp_path / "one.pth", pixels=pixels)
    seen = OURS if pixels == "imagenet" else 2048 * GREY - 1024
    expected = reference.bn1(reference.conv1(seen))
    found = network.bn1(network.conv1(OURS))
    torch.testing.assert_close(found[:, :, 3:-3, 3:-3], expected[:, :, 3:-3, 3:-3], rtol=1e-3, atol=1e-2)


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_an_r2gen_checkpoint(tmp_path: Path, torchvision_state: dict[str, Tensor], prefix: str) -> None:
    """Its image network is a Sequential of the ResNet's parts but the last two."""
    resnet = torchvision.models.resnet18(weights=None)
    resnet.load_state_dict(torchvision_state)
    parts = nn.Sequential(*list(resnet.children())[:-2]).state_dict()
    renamed = {f"{prefix}visual_extractor.model.{name}": tensor for name, tensor in parts.items()}
    torch.save({"epoch": 3, "state_dict": {"encoder_decoder.logit.bias": torch.zeros(2), **renamed}}, tmp_path / "r2gen.pth")
    torch.save(torchvision_state, tmp_path / "resnet18.pth")
    found = [make_convolutional("resnet18", stages=4) for _ in range(2)]
    load_backbone(found[0], tmp_path / "r2gen.pth")
    load_backbone(found[1], tmp_path / "resnet18.pth")
    own, expected = (network.state_dict() for network in found)
    assert own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in expected)


def test_weights_of_another_kind_are_refused(tmp_path: Path, torchvision_state: dict[str, Tensor]) -> None:
    network = make_convolutional("resnet18", stages=2)
    torch.save({f"module.{key}": value for key, value in torchvision_state.items()}, tmp_path / "prefixed.pth")
    with pytest.raises(CheckpointError, match=r"Missing \d+: conv1\.weight.*unused \d+: module\.conv1\.weight"):
        load_backbone(network, tmp_path / "prefixed.pth")
    with pytest.raises(FileNotFoundError, match="backbone_weights"):
        load_backbone(network, tmp_path / "none.pth")
    for name, kind in (("half.pth", "PyTorch"), ("half.safetensors", "safetensors")):
        (tmp_path / name).write_bytes(b"half a file")
        with pytest.raises(CheckpointError, match=f"{name}: not a readable {kind} file"):
            load_backbone(network, tmp_path / name)
    with pytest.raises(ConfigError, match="backbone_width: got 32; densenet121 has 64"):
        make_convolutional("densenet121", stages=2, width=32)


@pytest.mark.parametrize("changes", [{}, {"norm": "FrozenBN"}, {"backbone_depth": 50}])
def test_weights_of_a_detector(tmp_path: Path, changes: dict[str, Any]) -> None:
    detector, path = write_detector(tmp_path, **changes)
    settings = D2RNetModelSettings(
        backbone=f"resnet{changes.get('backbone_depth', 18)}", backbone_width=16, backbone_weights="detector"
    )
    network = make_backbone(settings, None).eval()
    start_backbone(network, settings, path)
    bottom_up = detector.backbone.bottom_up
    stem = bottom_up.stem.conv1((255 * GREY - 100) / 50)
    torch.testing.assert_close(
        network.bn1(network.conv1(OURS))[:, :, 3:-3, 3:-3], stem[:, :, 3:-3, 3:-3], rtol=1e-3, atol=1e-3
    )
    x = torch.rand(2, 16, 16, 16)
    torch.testing.assert_close(network.layer2(network.layer1(x)), bottom_up.res3(bottom_up.res2(x)), rtol=1e-3, atol=1e-3)
    assert backbone_inputs(settings, path) == {"backbone_weights": path, "backbone_config": tmp_path / "config.yaml"}


def test_a_detector_that_does_not_fit_is_named(tmp_path: Path) -> None:
    _, path = write_detector(tmp_path)
    with pytest.raises(CheckpointError, match=r"of another shape.*backbone_width as cxr\.detector\.model\.backbone_width"):
        load_detector(make_convolutional("resnet18", stages=2), path)
    with pytest.raises(CheckpointError, match=r"does not fit.*backbone_depth"):
        load_detector(make_convolutional("resnet34", stages=2, width=16), path)
    (tmp_path / "config.yaml").write_text("MODEL: {PIXEL_MEAN: [1.0]}")
    with pytest.raises(CheckpointError, match=r"config\.yaml: not the config\.yaml of a detector"):
        load_detector(make_convolutional("resnet18", stages=2, width=16), path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.yaml: no such file; expected what train-detector wrote"):
        load_detector(make_convolutional("resnet18", stages=2, width=16), path)
    settings = D2RNetModelSettings(backbone_weights="detector")
    with pytest.raises(ConfigError, match="no --detector was given"):
        start_backbone(make_convolutional("resnet18", stages=2), settings, None)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_the_whole_network_is_the_detectors(tmp_path: Path, stride_in_1x1: bool) -> None:
    """Grey levels normalised as ours, so that the border, where all pad with 0, is the same, too."""
    levels = {"pixel_mean": 255 * 0.449, "pixel_std": 255 * 0.226}
    detector, path = write_detector(tmp_path, backbone_depth=50, stride_in_1x1=stride_in_1x1, **levels)
    settings = D2RNetModelSettings(
        backbone="resnet50", backbone_width=16, backbone_stages=4, backbone_weights="detector", input_size_px=96
    )
    facts = backbone_facts(settings, path)
    network = make_backbone(settings, facts)
    start_backbone(network, settings, path)
    image = torch.rand(1, 1, 90, 96, generator=torch.Generator().manual_seed(3))  # 90 is odd after a stride
    expected = detector.backbone.bottom_up((image - 0.449) / 0.226)["res5"]
    found = network.eval()((image - 0.449) / 0.226)
    assert expected.shape == (1, 512, 3, 3) and expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max()))
    again = make_backbone(settings, json.loads(json.dumps(facts)))  # as a model folder keeps it
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(image), network(image))
    other = make_convolutional("resnet50", stages=4, width=16, stride_in_1x1=not stride_in_1x1)
    with pytest.raises(CheckpointError, match="stride in another convolution"):
        load_detector(other, path)
    other.load_state_dict(network.state_dict())  # the same weights, other pixels
    assert not torch.allclose(other.eval()((image - 0.449) / 0.226), expected, rtol=0.1, atol=0.1)


def test_a_detector_of_plain_blocks_needs_no_facts(tmp_path: Path) -> None:
    _, path = write_detector(tmp_path, stride_in_1x1=True)  # ResNet-18 has no 1 x 1
    settings = D2RNetModelSettings(backbone_width=16, backbone_weights="detector")
    assert backbone_facts(settings, path) is None
    with pytest.raises(ConfigError, match="no --detector was given"):
        backbone_facts(settings, None)
    with pytest.raises(CheckpointError, match="backbone_config is a list"):
        make_backbone(settings, ["stride_in_1x1"])


def test_a_detector_that_normalises_by_groups_is_refused(tmp_path: Path) -> None:
    _, path = write_detector(tmp_path, backbone_width=32, norm="GN")
    with pytest.raises(CheckpointError, match="by groups"):
        load_detector(make_convolutional("resnet18", stages=2, width=32), path)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
@pytest.mark.parametrize("side", [32, 48])
def test_a_vision_transformer_of_a_folder(tmp_path: Path, kind: str, side: int) -> None:
    """Larger images than it was trained on have interpolated positions."""
    reference = write_transformer(tmp_path, kind)
    settings = D2RNetModelSettings(
        backbone="vision_transformer", backbone_weights=str(tmp_path), input_size_px=side, patch_channels=8
    )
    facts = transformer_facts(settings)
    network = make_backbone(settings, facts)
    assert isinstance(network, VisionTransformer) and (network.channels, network.stride) == (12, 8)
    start_backbone(network, settings, None)
    assert len(backbone_inputs(settings, None)) == 3
    grey = GREY[:, :, :side, :side]
    seen = (grey.expand(-1, 3, -1, -1) - 0.53) / torch.tensor([0.26, 0.25, 0.26]).view(1, 3, 1, 1)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    tokens = reference(pixel_values=seen, **options).last_hidden_state[:, 1:]  # the first is the class token
    found = network.eval()((grey - 0.449) / 0.226)
    assert found.shape == (2, 12, side // 8, side // 8)
    torch.testing.assert_close(found[:, :, 1, 2], tokens[:, side // 8 + 2], rtol=1e-3, atol=1e-4)
    assert network(OURS[:0, :, :side, :side]).shape == (0, 12, side // 8, side // 8)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    shutil.copy(tmp_path / "own.pth", tmp_path / "copy.pth")
    again = make_backbone(settings.replaced(backbone_weights=None), json.loads(json.dumps(facts)))  # the folder is not needed
    again.load_state_dict(torch.load(tmp_path / "copy.pth"))
    assert torch.equal(again.eval()((grey - 0.449) / 0.226), found)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_vision_transformer_that_was_saved_in_16_bits_is_trained_in_32(tmp_path: Path, key: str) -> None:
    reference = write_transformer(tmp_path, "vit").bfloat16()
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    (tmp_path / "config.json").write_text(json.dumps(config | {key: "bfloat16"}))
    settings = D2RNetModelSettings.read(
        SMALL_MODEL | {"backbone": "vision_transformer", "backbone_weights": str(tmp_path), "lesion_branch": "none"}
    )
    model = D2RNet(settings, num_tokens=NUM_TOKENS, num_categories=22, backbone_config=transformer_facts(settings))
    start_backbone(model.extractor.backbone, settings, None)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found = model.extractor.backbone.network.embeddings.patch_embeddings.projection.weight
    assert torch.equal(found, reference.embeddings.patch_embeddings.projection.weight.float())
    assert model(make_batch()).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "changes", "tokens"),
    [
        ("vit_mae", {}, 5),  # leaves out three quarters of the patches
        ("yolos", {"image_size": [32, 32]}, 117),  # 100 tokens of objects come behind them
    ],
)
def test_a_transformer_without_a_token_a_patch_is_refused(kind: str, changes: dict[str, Any], tokens: int) -> None:
    pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
    config = sizes | changes | {"model_type": kind, "patch_size": 8}
    network = VisionTransformer({"config": config, "mean": [0.5] * 3, "std": [0.5] * 3}, 32).eval()
    with pytest.raises(CheckpointError, match=rf"'{kind}' gives {tokens} tokens of an image of 4 x 4 patches"):
        network(OURS[:, :, :32, :32])


def test_a_vision_transformer_gets_the_grey_levels_of_its_preprocessor(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    settings = D2RNetModelSettings(backbone="vision_transformer", backbone_weights=str(tmp_path))
    assert transformer_facts(settings)["mean"] == [0.485, 0.456, 0.406]  # of ImageNet, where nothing is said
    given = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}
    for normalises, mean, std in ((True, [0.5, 0.4, 0.3], [0.2] * 3), (False, [0.0] * 3, [1.0] * 3)):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(given | {"do_normalize": normalises}))
        assert transformer_facts(settings) == {"config": {"model_type": "vit"}, "mean": mean, "std": std}


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        ({"rescale_factor": 0.00392156862745098}, [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]),  # 1 / 255, as libraries write it
        ({"rescale_factor": 1 / 127.5}, [0.25, 0.2, 0.15], [0.1, 0.1, 0.1]),  # levels from 0 to 2
        ({"do_rescale": False, "rescale_factor": 1 / 255}, [0.5 / 255, 0.4 / 255, 0.3 / 255], [0.2 / 255] * 3),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, [0.0] * 3, [0.5] * 3),
    ],
)
def test_a_vision_transformer_gets_the_scale_of_its_preprocessor(
    tmp_path: Path, said: dict[str, Any], mean: list[float], std: list[float]
) -> None:
    """It sees (255 * level * rescale_factor - image_mean) / image_std of our levels in [0, 1]."""
    pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    settings = D2RNetModelSettings(backbone="vision_transformer", backbone_weights=str(tmp_path))
    given = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given | said))
    facts = transformer_facts(settings)
    assert facts["mean"] == pytest.approx(mean) and facts["std"] == pytest.approx(std)
    for wrong in (0, -1, "1/255", True, None):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(given | {"rescale_factor": wrong}))
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: rescale_factor is .*expected a number above 0"):
            transformer_facts(settings)


@pytest.mark.parametrize("kind", ["bert", "no_such_model"])
def test_a_folder_of_another_model_is_named_with_its_file(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "hidden_size": 12}))
    settings = D2RNetModelSettings(backbone="vision_transformer", backbone_weights=str(tmp_path))
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/config\.json: not of a vision transformer \(.*{kind}"):
        transformer_facts(settings)


def test_a_vision_transformer_feeds_the_model(tmp_path: Path) -> None:
    write_transformer(tmp_path, "vit")
    settings = D2RNetModelSettings.read(
        SMALL_MODEL | {"backbone": "vision_transformer", "backbone_weights": str(tmp_path), "lesion_branch": "roi_align"}
    )
    model = D2RNet(settings, num_tokens=NUM_TOKENS, num_categories=22, backbone_config=transformer_facts(settings))
    model(make_batch()).sum().backward()
    patches = model.extractor.backbone.network.embeddings.patch_embeddings.projection.weight
    assert patches.grad.abs().sum() > 0


def test_folders_that_are_no_vision_transformer_are_named(tmp_path: Path) -> None:
    write_transformer(tmp_path, "vit")
    settings = D2RNetModelSettings(backbone="vision_transformer", backbone_weights=str(tmp_path), input_size_px=36)
    with pytest.raises(ConfigError, match=r"input_size_px: got 36; expected a multiple of .* 8 pixels"):
        make_backbone(settings, transformer_facts(settings))
    with pytest.raises(ConfigError, match="expected its folder"):
        transformer_facts(settings.replaced(backbone_weights=None))
    with pytest.raises(FileNotFoundError, match=r"no config\.json in it"):
        transformer_facts(settings.replaced(backbone_weights=str(tmp_path / "gone")))
    with pytest.raises(CheckpointError, match="no backbone_config"):
        make_backbone(settings, None)
    network = make_backbone(settings.replaced(input_size_px=32), transformer_facts(settings))
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="not a vision transformer"):
        load_backbone(network, tmp_path)
    for text, message in (("{", "not a JSON document"), ("[]", "holds a list"), ("{}", "no model_type")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            transformer_facts(settings)
