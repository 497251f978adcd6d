"""Devices: a GPU asked for where none is says so."""

import pytest

torch = pytest.importorskip("torch")

from d2rnet.errors import ConfigError  # noqa: E402
from d2rnet.runs.device import resolve_device  # noqa: E402


def test_auto_without_gpu_is_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_missing_gpu_is_named_with_its_remedy(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"0 GPU\(s\)\. Set runtime\.device to auto or cpu"):
        resolve_device(name)


def test_gpu_number_too_large(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"2 GPU\(s\)"):
        resolve_device("cuda:2")


def test_unknown_word():
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")
