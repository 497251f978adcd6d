"""The EMA teacher over parameters and buffers."""

import pytest
import torch
from torch import nn

from d2rnet.cxr.detector.ema import EmaTeacher


def student_with(value: float) -> nn.BatchNorm1d:
    student = nn.BatchNorm1d(2)
    for tensor in student.state_dict().values():
        tensor.fill_(value)
    return student


@pytest.mark.parametrize(("keep_rate", "expected"), [(0.0, 9.0), (1.0, 1.0), (0.75, 3.0)])
def test_parameters_and_float_buffers_follow(keep_rate: float, expected: float) -> None:
    student = student_with(1)
    teacher = EmaTeacher(student)
    for tensor in student.state_dict().values():
        tensor.fill_(9)
    teacher.update(keep_rate)
    state = teacher.model.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert state[name].tolist() == [expected, expected], name
    assert state["num_batches_tracked"].item() == 1


def test_equal_networks_stay_equal_to_the_last_bit() -> None:
    student = student_with(0.1)
    teacher = EmaTeacher(student)
    for _ in range(100):
        teacher.update(0.9996)
    assert torch.equal(teacher.model.running_mean, student.running_mean)


def test_it_is_a_copy_in_evaluation_mode_without_gradients() -> None:
    student = student_with(1).train()
    teacher = EmaTeacher(student)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert teacher.model.weight.data_ptr() != student.weight.data_ptr()
    assert student.training
    assert student.weight.requires_grad
