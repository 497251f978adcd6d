"""Devices: a GPU asked for where none is says so."""

import platform
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from d2rnet.errors import ConfigError  # noqa: E402
from d2rnet.runs.device import device_words, gpu_facts, resolve_device  # noqa: E402


def test_auto_without_gpu_is_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_missing_gpu_is_named_with_its_remedy(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"0 GPU\(s\): torch .*set runtime\.gpus to 0 and runtime\.device to cpu") as refused:
        resolve_device(name)
    assert "CUDA_VISIBLE_DEVICES is ''" in str(refused.value) and "NVIDIA driver is loaded" in str(refused.value)


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "built without CUDA (a CPU wheel)"), ("12.8", "built for CUDA 12.8, CUDA_VISIBLE_DEVICES is not set")],
)
def test_what_hides_a_gpu(monkeypatch, version, words):
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert words in gpu_facts()


def test_gpu_number_too_large(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"2 GPU\(s\)"):
        resolve_device("cuda:2")


def test_unknown_word():
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")


def test_devices_of_a_training_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert device_words(torch.device("cpu"), 2) == "cpu, 2 process(es)"
    assert device_words(torch.device("cuda")) == "cuda:0 (GPU 0), 1 process(es)"
    assert device_words(torch.device("cuda:1")) == "cuda:1 (GPU 1), 1 process(es)"
    assert device_words(torch.device("cuda"), 2) == "cuda:0 (GPU 0), cuda:1 (GPU 1), 2 process(es)"


_FAULTS = """
import resource, sys
import torch
from d2rnet.runs.device import freed_memory_kept

def pages():
    for turn in range(24):  # the heap grows for the first few
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24)  # 64 MiB, more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

before = resident_mib()
with freed_memory_kept(torch.device(sys.argv[1])):
    print(pages(), resident_mib() - before)
print(resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_freed_memory_is_kept_on_the_cpu_alone_and_given_back():
    """Pages that the last of many arrays of one size asks for, all of them or next to none, and MiB kept inside and after."""
    found = {}
    for device in ("cpu", "cuda"):
        done = subprocess.run([sys.executable, "-c", _FAULTS, device], capture_output=True, check=True)
        found[device] = [int(number) for number in done.stdout.split()]
    pages, kept, left = found["cpu"]
    assert pages < 100 and kept >= 60 and left < 30
    pages, kept, left = found["cuda"]
    assert pages > 1000 and kept < 30 and left < 30
