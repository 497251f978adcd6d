"""The EMA teacher: a copy of the student that follows it slowly and is never trained itself.

``teacher = keep * teacher + (1 - keep) * student`` over parameters and floating-point buffers (batch-norm statistics); integer
buffers (counters) are left alone. Unlike the authors', it stays in evaluation mode, so that drawing pseudo boxes does not move
its batch-norm statistics. Source: Unbiased Teacher v2, sec. 3.1; Mean Teacher, arXiv 1703.01780.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class EmaTeacher(Generic[Network]):
    """Holds the averaged network."""

    def __init__(self, student: Network) -> None:
        """Start as a copy of the student, in evaluation mode and without gradients."""
        self.model: Network = copy.deepcopy(student).eval().requires_grad_(False)
        self._mine = _averaged(self.model)
        self._theirs = _averaged(student)

    @torch.no_grad()
    def update(self, keep_rate: float) -> None:
        """Move towards the student.

        Args:
            keep_rate: share of the teacher that is kept, 0 (become the student) to 1 (stay).
        """
        torch._foreach_lerp_(self._mine, self._theirs, 1.0 - keep_rate)


def _averaged(model: nn.Module) -> list[Tensor]:
    """Parameters and persistent floating-point buffers, sharing the model's memory, in its order."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
