"""A report model that starts from R2Gen's weights: what is taken, what stays random, what is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from r2gen_reference import random_weights

from d2rnet.errors import CheckpointError
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.r2gen_decoder import load_r2gen_decoder
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.interface import make_transformer
from d2rnet.report.settings import DecoderSettings

WORDS = {"embedding.weight", "logits.weight", "logits.bias"}
SETTINGS = DecoderSettings(d_model=16, d_ff=16, num_layers=2, num_heads=4, memory_slots=3, memory_heads=2)


def checkpoint(path: Path, *, prefix: str = "encoder_decoder.", **others: Any) -> Path:
    """Write what R2Gen's trainer writes."""
    state = {f"{prefix}{name}": tensor for name, tensor in random_weights(d_model=16, num_words=11).items()}
    torch.save({"epoch": 3, "state_dict": state | others, "optimizer": {"state": {}}, "monitor_best": 0.1}, path)
    return path


def started(source: Path, settings: DecoderSettings = SETTINGS) -> MemoryTransformer:
    """A Transformer of another vocabulary that starts from a file."""
    torch.manual_seed(0)
    transformer = make_transformer(settings, num_tokens=20)
    start_from_r2gen(transformer, source, settings)
    return transformer.eval()


def test_all_but_the_words_is_taken(tmp_path: Path) -> None:
    found = started(checkpoint(tmp_path / "model.pth")).state_dict()
    theirs = load_r2gen_decoder(random_weights(d_model=16, num_words=11), 4, 2).transformer.state_dict()
    torch.manual_seed(0)
    random = make_transformer(SETTINGS, num_tokens=20).state_dict()
    assert found.keys() == theirs.keys() > WORDS
    for name, tensor in found.items():
        assert torch.equal(tensor, random[name] if name in WORDS else theirs[name]), name


@torch.no_grad()
def test_encoder_computes_what_r2gens_does(tmp_path: Path) -> None:
    transformer = started(checkpoint(tmp_path / "model.pth"))
    theirs = load_r2gen_decoder(random_weights(d_model=16, num_words=11), 4, 2).transformer
    tokens = torch.randn(2, 5, 16)
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(transformer.encode(tokens, mask), theirs.encode(tokens, mask))


def test_what_is_taken_and_left_out_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = {"LRE.conv.weight": torch.zeros(1), "visual_extractor.cpca.weight": torch.zeros(1)}
    with caplog.at_level(logging.INFO):
        taken = started(checkpoint(tmp_path / "model.pth", **others)).state_dict().keys() - WORDS
    assert f"took {len(taken)} tensors; words and patch projection (5 tensors) begin at random" in caplog.text
    assert "LRE: 1 tensors left out" in caplog.text and "visual_extractor: 1 tensors left out" in caplog.text


@pytest.mark.parametrize("prefix", ["", "module.encoder_decoder."])
def test_other_ways_of_saving(tmp_path: Path, prefix: str) -> None:
    expected = started(checkpoint(tmp_path / "model.pth")).state_dict()
    found = started(checkpoint(tmp_path / "other.pth", prefix=prefix)).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.save(random_weights(d_model=16, num_words=11), tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    found = started(tmp_path / "bare.pth").state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


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
        started(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such weight file"):
        started(tmp_path / "gone.pth")


def test_sizes_that_do_not_fit_are_named_with_their_keys(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "model.pth")
    wide = SETTINGS.replaced(d_model=32, num_layers=3)
    with pytest.raises(CheckpointError, match=r"fit report\.model: d_model 32 instead of 16, num_layers 3 instead of 2"):
        started(path, wide)
    with pytest.raises(CheckpointError, match=r"model\.pth: state dict: width 16 is no multiple of num_heads 5"):
        started(path, SETTINGS.replaced(d_model=40, num_heads=5))
