"""Folders of base models: known by content wherever they lie, refused where something is missing; pieces as tokens."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from llm_samples import NEEDS_EXTRA, REPORTS, write_llama
from safetensors.torch import load_file, save_file

from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.report.llm.base import base_identity, check_identity, load_base, load_tokenizer
from d2rnet.report.llm.tokens import OFFSET, LlmTokens
from d2rnet.report.optional_packages import optional_package
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def tokens(llama: Path) -> LlmTokens:
    return LlmTokens(load_tokenizer(llama, place="weights"), "faithful")


def change_one_weight(folder: Path) -> None:
    """Give the file of weights another number in its middle; its size stays."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))


def change_tokenizer(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"</s>"', '"<end>"'))


@NEEDS_EXTRA
def test_a_base_model_is_known_by_its_content_wherever_it_lies(llama, tmp_path):
    known = base_identity(llama, place="weights")
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(llama, moved)
    (moved / "README.md").write_text("a page")
    (moved / "pytorch_model.bin").write_bytes(b"the same weights in the older format")
    assert len(known) == 64 and base_identity(moved, place="weights") == known
    check_identity(moved, known, place="weights")


@NEEDS_EXTRA
@pytest.mark.parametrize("change", [change_one_weight, change_config, change_tokenizer])
def test_another_base_model_is_refused(llama, tmp_path, change):
    known = base_identity(llama, place="weights")
    shutil.copytree(llama, tmp_path / "other")
    change(tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"model.weights: .*other: is base model .*; the adapters .* in {known[:12]}"):
        check_identity(tmp_path / "other", known, place="model.weights")


@NEEDS_EXTRA
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", None])
def test_a_folder_that_lacks_a_part_is_no_base_model(llama, tmp_path, name):
    folder = tmp_path / "part"
    if name is None:
        with pytest.raises(FileNotFoundError, match=r"model\.weights: .*part: no such folder; expected that of a causal"):
            base_identity(folder, place="model.weights")
        return
    shutil.copytree(llama, folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.weights: .*part: holds no causal language model; expected config"):
        base_identity(folder, place="model.weights")


@NEEDS_EXTRA
def test_a_base_model_is_frozen_in_its_type_and_does_not_draw(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "chat")
    (tmp_path / "chat" / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.6}))
    model = load_base(tmp_path / "chat", dtype=torch.bfloat16, place="weights")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.generation_config.do_sample and model.generation_config.temperature is None


@NEEDS_EXTRA
def test_weights_that_do_not_fill_the_model_are_refused(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    state = load_file(path)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 tensor\(s\) of the model are in no file, such as model\.layers\.1\.mlp\.up_p"
    ):
        load_base(tmp_path / "cut", dtype=torch.float32, place="weights")


@NEEDS_EXTRA
def test_what_is_no_model_and_no_tokenizer_is_refused(llama, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(CheckpointError, match="not a causal language model that transformers can load"):
        load_base(tmp_path, dtype=torch.float32, place="weights")
    with pytest.raises(CheckpointError, match="its tokenizer cannot be read"):
        load_tokenizer(tmp_path, place="weights")
    shutil.copytree(llama, tmp_path / "endless")
    config = json.loads((llama / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (tmp_path / "endless" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"names no end token \(eos_token\)"):
        load_tokenizer(tmp_path / "endless", place="weights")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"llm\.weights: needs the package peft .*pip install 'd2rnet\[llm\]'"):
        optional_package("peft", "llm.weights", extra="llm")


@NEEDS_EXTRA
@pytest.mark.parametrize("report", REPORTS)
def test_what_is_encoded_is_decoded_as_the_reference_is_cleaned(tokens, report):
    ids = tokens.encode(report.replace(" ", "\n", 1), max_tokens=60)
    assert ids[0] == BOS_ID and ids[-1] == EOS_ID and min(ids[1:-1]) >= OFFSET + 3
    words = report.replace(".", " .").replace("3 .5", "3.5").split()
    assert tokens.decode([*ids, PAD_ID, *ids]) == words
    assert LlmTokens(tokens.tokenizer, "r2gen").decode(ids)[:2] == [word.lower() for word in words[:2]]


@NEEDS_EXTRA
def test_a_cut_report_has_no_end_and_an_end_in_the_text_is_none(tokens):
    whole = tokens.encode(REPORTS[0], max_tokens=60)
    assert tokens.encode(REPORTS[0], max_tokens=len(whole) - 2) == whole
    assert tokens.encode(REPORTS[0], max_tokens=len(whole) - 3) == whole[:-2]
    assert tokens.encode("Lungs are clear.</s>", max_tokens=60) == tokens.encode("Lungs are clear.", max_tokens=60)
