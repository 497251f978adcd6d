"""MONAI's networks and COLIPRI as encoders: raster order, grids, weights name by name, and what is said where they lack."""

import builtins
import importlib
import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from d2rnet.ct.structure_model import outside_encoders
from d2rnet.ct.structure_model.encoders import make_encoder
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.errors import CheckpointError, ConfigError

MONAI = VolumeEncoderSettings().replaced(kind="monai", layers=1, num_heads=2)
COLIPRI = VolumeEncoderSettings().replaced(kind="colipri", patch_zyx=(4, 4, 4), width=24, layers=2, num_heads=2)
SHAPE = (16, 32, 48)


def volumes(*shape, count=1):
    return torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(4)) * 2 - 1


def monai(name, patch, width, **changes):
    for package in ("monai", "einops") if name == "vit" else ("monai",):
        pytest.importorskip(package, reason="optional extra ct-encoders is not installed")
    torch.manual_seed(2)
    settings = MONAI.replaced(name=name, patch_zyx=(patch,) * 3, width=width, **changes)
    return make_encoder(settings, SHAPE).eval()


@pytest.mark.parametrize(
    ("name", "patch", "width", "grid"),
    [
        ("resnet18", 8, 128, (2, 4, 6)),
        ("resnet34", 4, 64, (4, 8, 12)),
        ("resnet50", 16, 1024, (1, 2, 3)),
        ("densenet121", 8, 512, (2, 4, 6)),
        ("densenet121", 16, 1024, (1, 2, 3)),
        ("vit", 8, 24, (2, 4, 6)),
    ],
)
def test_shapes_and_grids(name, patch, width, grid):
    encoder = monai(name, patch, width)
    with torch.no_grad():
        out = encoder(volumes(*SHAPE))
    assert encoder.grid_zyx == grid
    assert out.shape == (1, grid[0] * grid[1] * grid[2], encoder.width)
    assert encoder.width == width


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_the_coarsest_map_of_a_convolutional_network(name):
    pytest.importorskip("monai", reason="optional extra ct-encoders is not installed")
    width = 512 if name == "resnet18" else 1024
    encoder = make_encoder(MONAI.replaced(name=name, patch_zyx=(32, 32, 32), width=width), (32, 64, 64)).eval()
    with torch.no_grad():
        assert encoder(volumes(32, 64, 64)).shape == (1, 4, width)


PLACES = [(1, 2, 2), (14, 6, 42), (2, 30, 10), (6, 14, 46)]


def lit_patches(encoder, place):
    """Grid places of the tokens that a bright voxel changes."""
    dark = torch.full((1, 1, *SHAPE), -1.0)
    bright = dark.clone()
    bright[0, 0, place[0], place[1], place[2]] = 5.0
    with torch.no_grad():
        change = (encoder(bright) != encoder(dark)).any(dim=2)
    return change.view(encoder.grid_zyx).nonzero()


@pytest.mark.parametrize("axes", ["zyx", "zxy", "xyz"])
def test_a_bright_voxel_enters_the_patch_of_the_vit_that_it_lies_in(axes):
    encoder = monai("vit", 4, 24, axes=axes)
    encoder.network.blocks = nn.ModuleList()  # before any attention
    encoder.network.norm = nn.Identity()
    for place in PLACES:
        assert lit_patches(encoder, place).tolist() == [[at // 4 for at in place]], place


@pytest.mark.parametrize("axes", ["zyx", "zxy", "xyz"])
def test_a_bright_voxel_lights_up_places_of_the_resnet_around_its_own(axes):
    """Before layer1 a place sees the 11 voxels around the corner of its patch along each axis."""
    encoder = monai("resnet18", 4, 64, axes=axes)
    encoder.network = encoder.network[:4]
    for place in PLACES:
        distance = (lit_patches(encoder, place) * 4 - torch.tensor(place)).abs()
        assert len(distance) and int(distance.max()) <= 5, place


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_a_batch_is_its_volumes_one_by_one(name):
    encoder = monai(name, 8, 128 if name == "resnet18" else 24)
    batch = volumes(*SHAPE, count=2)
    with torch.no_grad():
        alone = torch.cat([encoder(batch[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(encoder(batch), alone, rtol=1e-4, atol=1e-5)


def test_weights_of_a_whole_resnet_fill_its_first_layers(tmp_path):
    nets = pytest.importorskip("monai.networks.nets", reason="optional extra ct-encoders is not installed")
    torch.manual_seed(9)
    whole = nets.resnet18(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, num_classes=3)
    path = tmp_path / "resnet.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in whole.state_dict().items()}}, path)
    encoder = monai("resnet18", 8, 128, weights=str(path))
    whole.eval()
    with torch.no_grad():
        x = whole.maxpool(whole.act(whole.bn1(whole.conv1(volumes(*SHAPE)))))
        expected = whole.layer2(whole.layer1(x)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(volumes(*SHAPE)), expected)


@pytest.mark.parametrize(("depth", "shortcut", "width"), [(18, "A", 128), (50, "B", 512)])
def test_medicalnet_has_names_of_its_own(tmp_path, depth, shortcut, width):
    """Its smaller ResNets have shortcuts without weights, the others weights without a bias."""
    nets = pytest.importorskip("monai.networks.nets", reason="optional extra ct-encoders is not installed")
    make = getattr(nets, f"resnet{depth}")
    options = {"spatial_dims": 3, "n_input_channels": 1, "conv1_t_stride": 2, "feed_forward": False}
    path = tmp_path / "medicalnet.pth"
    torch.save(make(**options, shortcut_type=shortcut, bias_downsample=False).state_dict(), path)
    loaded = monai(f"medicalnet_resnet{depth}", 8, width, weights=str(path))
    again = monai(f"medicalnet_resnet{depth}", 8, width)  # as a model folder is read, whose weights are its own
    again.load_state_dict(loaded.state_dict(), strict=True)
    with pytest.raises(CheckpointError, match=r"lacks \d+ of the encoder's \d+ tensors: layer\d.0.downsample.0"):
        monai(f"resnet{depth}", 8, width, weights=str(path))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    nets = pytest.importorskip("monai.networks.nets", reason="optional extra ct-encoders is not installed")
    state = nets.densenet121(spatial_dims=3, in_channels=1, out_channels=2).state_dict()
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    monai("densenet121", 8, 512, weights=str(path))  # its own; the class_layers are left out
    with pytest.raises(CheckpointError, match=r"lacks \d+ of the encoder's \d+ tensors: bn1"):
        monai("resnet18", 8, 128, weights=str(path))
    torch.save({**state, "decoder.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"1 tensors belong to no part .*decoder.weight"):
        monai("densenet121", 8, 512, weights=str(path))
    with pytest.raises(CheckpointError, match="no such weight file"):
        monai("densenet121", 8, 512, weights=str(tmp_path / "absent.safetensors"))


def test_a_vit_of_another_grid_is_refused(tmp_path):
    encoder = monai("vit", 8, 24)
    path = tmp_path / "vit.safetensors"
    save_file({**encoder.network.state_dict(), "cls_token": torch.zeros(1, 1, 24)}, path)
    again = monai("vit", 8, 24, weights=str(path))
    torch.testing.assert_close(again(volumes(*SHAPE)), encoder(volumes(*SHAPE)))
    with pytest.raises(CheckpointError, match=r"position_embeddings \(1, 48, 24\) instead of \(1, 6, 24\)"):
        monai("vit", 16, 24, weights=str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet19"}, "name: got 'resnet19'; expected one of resnet18"),
        ({"name": None}, "name: got None"),
        ({"name": "resnet18", "patch_zyx": (8, 16, 16)}, r"patch_zyx: got \[8, 16, 16\]; resnet18 has cubes of 4 or 8"),
        ({"name": "resnet18", "patch_zyx": (8, 8, 8), "width": 96}, "width: got 96; resnet18 gives 128"),
        ({"name": "resnet18", "patch_zyx": (32, 32, 32), "width": 512}, "expected divisors of the volume's"),
        ({"name": "vit", "width": 25}, "width: got 25 with num_heads 2"),
        ({"name": "vit", "layers": 0}, "layers: got 0"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(MONAI.replaced(**changes), SHAPE)


@pytest.mark.parametrize(("settings", "extra"), [(MONAI.replaced(name="vit"), "ct-encoders"), (COLIPRI, "colipri")])
def test_an_absent_package_is_named_with_the_remedy(monkeypatch, settings, extra):
    real = importlib.import_module

    def without(name, *rest):
        if name.partition(".")[0] in ("monai", "einops", "dynamic_network_architectures"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(outside_encoders.importlib, "import_module", without)
    with pytest.raises(ConfigError, match=rf"{settings.kind} needs the package .*d2rnet\[{extra}\]"):
        make_encoder(settings, SHAPE)


def test_nothing_of_them_is_imported_before_it_is_chosen(monkeypatch):
    asked = []
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest, **named: asked.append(name) or real(name, *rest, **named))
    importlib.reload(outside_encoders)
    assert not any(name.split(".")[0] in ("monai", "dynamic_network_architectures") for name in asked)


class MeanPrimus(nn.Module):
    """Stands in for Primus: the mean of each patch, times a learnt vector, with Primus' names and arguments."""

    def __init__(self, *, embed_dim, patch_embed_size, input_shape, eva_depth, eva_numheads, **others):
        super().__init__()
        assert others == {
            "input_channels": 1,
            "num_classes": 1,
            "use_rot_pos_emb": True,
            "use_abs_pos_embed": False,
            "drop_path_rate": 0.2,
            "init_values": 0.1,
            "scale_attn_inner": True,
        }
        assert (eva_depth, eva_numheads) == (2, 2)
        self.input_shape = input_shape
        self.down_projection = nn.AvgPool3d(patch_embed_size)
        self.up_projection = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(embed_dim))
        self.register_buffer("mask_token", torch.zeros(1, 1, embed_dim))

    def forward(self, x):
        assert x.shape[2:] == self.input_shape
        self.seen = x
        return self.up_projection(self.down_projection(x) * self.scale.view(1, -1, 1, 1, 1))


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("dynamic_network_architectures.architectures.primus")
    module.Primus = MeanPrimus
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for parent in ("dynamic_network_architectures", "dynamic_network_architectures.architectures"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_colipri_sees_superior_anterior_right_and_gives_tokens_in_our_order(stand_in, axes):
    shape = (8, 12, 16)
    encoder = make_encoder(COLIPRI.replaced(axes=axes), shape)
    volume = volumes(*shape)
    tokens = encoder(volume)
    expected = nn.functional.avg_pool3d(volume, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[:, :, :1], expected)
    first_seen = encoder.network.seen[0, 0, 0, 0, 0]  # inferior, posterior, left: the last of our y and x
    torch.testing.assert_close(first_seen, volume[0, 0, 0, -1, -1])
    if axes == "xyz":  # right, anterior, superior
        torch.testing.assert_close(encoder.network.seen[0, 0, 1, 0, 0], volume[0, 0, 0, -1, -2])


def test_weights_of_colipri_are_those_of_its_image_encoder(stand_in, tmp_path):
    path = tmp_path / "model.safetensors"
    state = {
        "image_encoder.backbone.scale": torch.full((24,), 3.0),
        "image_encoder.backbone.mask_token": torch.zeros(1, 1, 24),
        "image_encoder.projector.weight": torch.zeros(2),
        "image_encoder.pooler.query": torch.zeros(2),
        "text_encoder.backbone.embeddings.weight": torch.zeros(2),
        "softmax_temperature": torch.ones(()),
    }
    save_file(state, path)
    encoder = make_encoder(COLIPRI.replaced(weights=str(path)), (8, 12, 16))
    torch.testing.assert_close(encoder.network.scale.detach(), torch.full((24,), 3.0))
    save_file({**state, "image_encoder.backbone.eva.blocks.0.gamma_1": torch.zeros(24)}, path)
    with pytest.raises(CheckpointError, match=r"belong to no part .*blocks.0.gamma_1"):
        make_encoder(COLIPRI.replaced(weights=str(path)), (8, 12, 16))


def test_the_real_network_of_colipri(tmp_path):
    pytest.importorskip("dynamic_network_architectures", reason="optional extra colipri is not installed")
    settings = COLIPRI.replaced(width=48)
    torch.manual_seed(0)
    encoder = make_encoder(settings, (8, 12, 16)).eval()
    out = encoder(volumes(8, 12, 16))
    assert out.shape == (1, 24, 48)
    path = tmp_path / "model.safetensors"
    save_file({f"image_encoder.backbone.{name}": value for name, value in encoder.network.state_dict().items()}, path)
    again = make_encoder(settings.replaced(weights=str(path)), (8, 12, 16)).eval()
    torch.testing.assert_close(again(volumes(8, 12, 16)), out)
