"""Folders of a small random detector and of a tiny vision transformer, as their own libraries write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn


def settled(network: nn.Module) -> nn.Module:
    """Give batch norms statistics that are not at their neutral start, and set evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def write_detector(folder: Path, **changes: Any) -> tuple[nn.Module, Path]:
    """Write a detector's folder; return its ResNet with pyramid, too."""
    pytest.importorskip("detectron2", reason="optional extra detector is not installed")
    from d2rnet.cxr.detector.checkpoint import save_weights
    from d2rnet.cxr.detector.config import build_cfg, write_cfg
    from d2rnet.cxr.detector.registration import build_network
    from d2rnet.cxr.detector.settings import TrainDetectorSettings

    model = {"backbone_width": 16, "roi_fc_dim": 16, "fpn_channels": 16, "pixel_mean": 100.0, "pixel_std": 50.0} | changes
    cfg = build_cfg(TrainDetectorSettings().replaced(model=model))
    torch.manual_seed(8)
    network = settled(build_network(cfg))
    folder.mkdir(exist_ok=True)
    write_cfg(folder, cfg)
    save_weights(folder / "model_final.pth", network)
    return network, folder / "model_final.pth"


def write_transformer(folder: Path, kind: str) -> Any:
    """Save a tiny random vision transformer as its library does; return it."""
    transformers = pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
    names = {"vit": ("ViTConfig", "ViTModel"), "dinov2": ("Dinov2Config", "Dinov2Model")}[kind]
    torch.manual_seed(9)
    network = getattr(transformers, names[1])(getattr(transformers, names[0])(patch_size=8, **sizes)).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.53] * 3, "image_std": [0.26, 0.25, 0.26]}))
    return network
