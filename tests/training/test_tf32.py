"""On a GPU a mixed training rounds its 32-bit products to TensorFloat-32, one of 32 bits does not."""

from collections.abc import Iterator

import pytest
import torch

from d2rnet.training.task import allow_tf32


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_the_precision_of_the_training_decides() -> None:
    for precision, expected in (("bf16-mixed", True), ("32-true", False), ("16-mixed", True)):
        allow_tf32(torch.device("cuda"), precision)
        assert flags() == (expected, expected)


def test_without_a_gpu_nothing_is_set() -> None:
    before = flags()
    allow_tf32(torch.device("cpu"), "bf16-mixed" if not before[0] else "32-true")
    assert flags() == before
