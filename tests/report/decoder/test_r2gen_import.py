"""d2rnet import-r2gen: from a checkpoint to a folder without pickles, and back into a decoder."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from r2gen_reference import random_weights
from safetensors.torch import load_file
from torch import nn

from d2rnet.cli import entry as cli
from d2rnet.cxr.report_model.visual_extractor import VisualExtractor
from d2rnet.errors import CheckpointError
from d2rnet.report.decoder.r2gen_decoder import load_r2gen_decoder
from d2rnet.report.decoder.r2gen_import import import_r2gen, load_imported_decoder


def checkpoint(path: Path, *, prefix: str = "encoder_decoder.", **others: Any) -> Path:
    """Write what R2Gen's trainer writes."""
    state = {f"{prefix}{name}": tensor for name, tensor in random_weights(d_model=16, num_words=11).items()}
    torch.save({"epoch": 3, "state_dict": state | others, "optimizer": {"state": {}}, "monitor_best": 0.1}, path)
    return path


def image_network() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A ResNet, and the same under R2Gen's names: a Sequential of its parts but the last two."""
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None)
    parts = nn.Sequential(*list(resnet.children())[:-2])
    return resnet, {f"visual_extractor.model.{name}": tensor for name, tensor in parts.state_dict().items()}


def imported(source: Path, out: Path) -> Path:
    import_r2gen(checkpoint=source, out=out, num_heads=4, memory_heads=2)
    return out


@torch.no_grad()
def test_folder_gives_the_same_decoder(tmp_path: Path) -> None:
    folder = imported(checkpoint(tmp_path / "model.pth"), tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml", "decoder.safetensors", "model_card.md", "run.json",
    ]  # fmt: skip
    patches, ids = torch.randn(2, 5, 20), torch.tensor([[0, 3, 4, 1], [0, 7, 0, 0]])
    expected = load_r2gen_decoder(random_weights(d_model=16, num_words=11), 4, 2).log_probs(patches, ids)
    assert torch.equal(load_imported_decoder(folder).log_probs(patches, ids), expected)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config == {
        "format": "d2rnet-r2gen-decoder-1", "num_heads": 4, "memory_heads": 2, "special_id": 0,
        "shape": {"patch_width": 20, "d_model": 16, "d_ff": 16, "num_layers": 2, "memory_slots": 3, "num_tokens": 12},
    }  # fmt: skip


def test_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = checkpoint(tmp_path / "model.pth")
    arguments = ["import-r2gen", str(source), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--num-heads", "4", "--memory-heads", "2"]) == 0
    assert load_imported_decoder(tmp_path / "out").num_heads == 4
    assert cli.main([*arguments, "--num-heads", "5"]) == 2
    assert cli.main(["import-r2gen", str(tmp_path / "gone.pth"), "--out", str(tmp_path / "out")]) == 2


def test_image_network_becomes_backbone_weights(tmp_path: Path) -> None:
    resnet, renamed = image_network()
    folder = imported(checkpoint(tmp_path / "model.pth", **renamed), tmp_path / "out")
    found = load_file(folder / "backbone.safetensors")
    expected = {name: tensor for name, tensor in resnet.state_dict().items() if not name.startswith("fc.")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    extractor = VisualExtractor(backbone="resnet18", stages=4, patch_channels=8, attention=False)
    extractor.load_backbone(folder / "backbone.safetensors")
    assert torch.equal(extractor.backbone.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_what_is_left_out_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = {
        "LRE.conv.weight": torch.zeros(1),
        "visual_extractor.cpca.weight": torch.zeros(1),
        "visual_extractor.model.0.weight": torch.zeros(1),
    }
    with caplog.at_level(logging.WARNING):
        folder = imported(checkpoint(tmp_path / "model.pth", **others), tmp_path / "out")
    assert "LRE: 1 tensors left out" in caplog.text and "visual_extractor: 2 tensors left out" in caplog.text
    record = json.loads((folder / "run.json").read_text())
    assert record["counts"]["left_out_tensors"] == {"LRE": 1, "visual_extractor": 2}
    assert record["counts"]["backbone_tensors"] == 0
    assert not (folder / "backbone.safetensors").exists()


@pytest.mark.parametrize("prefix", ["", "module.encoder_decoder."])
def test_other_ways_of_saving(tmp_path: Path, prefix: str) -> None:
    folder = imported(checkpoint(tmp_path / "model.pth", prefix=prefix), tmp_path / "out")
    assert load_imported_decoder(folder).shape.num_tokens == 12
    torch.save(random_weights(d_model=16, num_words=11), tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    assert load_imported_decoder(imported(tmp_path / "bare.pth", tmp_path / "bare")).shape.num_tokens == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": torch.zeros(1)}}, "got other values under model"),
        ({"state_dict": {"a": torch.zeros(1)}}, r"model\.pth: state dict: no R2Gen decoder in it.*it has a\."),
        ({"state_dict": {"a": 1}}, "got other values under a"),
        ({}, "it has none"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        imported(tmp_path / "model.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "format: [", "not a YAML document"),
        ("config.yaml", "format: other", "got format 'other'"),
        ("config.yaml", "format: d2rnet-r2gen-decoder-1", "do not belong together"),
        ("decoder.safetensors", "half", "do not belong together"),
    ],
)
def test_damaged_folder(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = imported(checkpoint(tmp_path / "model.pth"), tmp_path / "out")
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_imported_decoder(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_imported_decoder(folder)
