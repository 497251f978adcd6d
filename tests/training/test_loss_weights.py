"""Weights of losses: ratios of gradient norms, the moving average and the warm-up, by hand."""

import pytest
import torch
from torch import nn

from d2rnet.training.loss_weights import LossWeights, mean_gradient, norm_ratio


def make_weights(*, target: float | None = None, warmup: int = 0, every: int = 1) -> LossWeights:
    return LossWeights({"one": 1.0, "other": 2.0}, target_ratio=target, warmup_steps=warmup, measure_every_steps=every)


def losses_of(first: nn.Parameter, second: nn.Parameter) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gradients: main (3, 4) and 12; ``one`` (1, 0) on the first alone; ``other`` (0, 5) and 12."""
    one = first[0]
    other = 5 * first[1] + 12 * second
    return {"one": one, "other": other}, 3 * first[0] + 4 * first[1] + 12 * second


def step(weights: LossWeights, losses: dict[str, torch.Tensor], main: torch.Tensor, shared: list[nn.Parameter]):
    """Weighed losses of a step."""
    weighed = weights(losses, main, shared)
    weights.after_step()
    return weighed


@pytest.fixture
def shared() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([0.5, -0.5])), nn.Parameter(torch.tensor(2.0))]


def test_ratio_is_over_what_a_loss_reaches(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    of_main = mean_gradient(main, shared)
    assert [part.tolist() for part in of_main] == [[3.0, 4.0], 12.0]
    assert float(norm_ratio(mean_gradient(losses["one"], shared), of_main)) == pytest.approx(1 / 5)  # |(1, 0)| / |(3, 4)|
    assert float(norm_ratio(mean_gradient(losses["other"], shared), of_main)) == pytest.approx(1.0)  # 13 / 13
    assert float(norm_ratio([torch.zeros(2), torch.zeros(())], of_main)) == 0.0


def test_weights_are_fixed_or_by_gradient(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    fixed = make_weights()
    assert {name: float(loss.detach()) for name, loss in fixed(losses, main, shared).items()} == {
        "one": 0.5,
        "other": pytest.approx(2 * 21.5),
    }
    assert fixed.values() == {
        "one_weight": 1.0,
        "one_gradient_ratio": pytest.approx(0.2),
        "other_weight": 2.0,
        "other_gradient_ratio": pytest.approx(2.0),
    }
    balanced = make_weights(target=0.5)
    weighed = balanced(losses, main, shared)
    assert float(weighed["one"].detach()) == pytest.approx(0.5 / 0.2 * 0.5)
    assert float(weighed["other"].detach()) == pytest.approx(2 * 0.5 / 1.0 * 21.5)


def test_a_loss_without_a_gradient_waits(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    weights = make_weights(target=0.5)
    weighed = step(weights, {**losses, "one": 0 * losses["one"] + 3.0}, main, shared)
    assert float(weighed["one"].detach()) == 0.0 and weights.measured.tolist() == [0, 1]
    step(weights, losses, main, shared)
    assert weights.measured.tolist() == [1, 2] and float(weights.weights()[0]) == pytest.approx(2.5)


def test_measurements_are_averaged_and_seldom(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    weights = make_weights(every=3)
    for factor in (1.0, 9.0, 9.0, 3.0, 9.0, 9.0):  # steps 0 and 3 are measured
        step(weights, {name: factor * loss for name, loss in losses.items()}, main, shared)
    assert weights.measured.tolist() == [2, 2] and weights.ratios.tolist() == pytest.approx([(0.2 + 0.6) / 2, (1 + 3) / 2])
    for _ in range(30):
        weights.ratios.fill_(1.0)
        weights.measured.fill_(50)
    weights(losses, main, shared)
    assert weights.ratios.tolist() == pytest.approx([0.9 + 0.1 * 0.2, 1.0])  # momentum 0.9 in the long run


def test_weights_rise_linearly(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    weights = make_weights(warmup=4)
    seen = [float(step(weights, losses, main, shared)["one"].detach()) / 0.5 for _ in range(6)]
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    weights.eval()(losses, main, shared)
    assert int(weights.steps) == 6  # looking is no step


def test_micro_batches_of_a_step_have_its_weight_and_one_measurement(shared: list[nn.Parameter]) -> None:
    losses, main = losses_of(*shared)
    weights = make_weights(warmup=2)
    assert [float(weights(losses, main, shared)["one"].detach()) / 0.5 for _ in range(3)] == pytest.approx([0.5] * 3)
    assert weights.measured.tolist() == [1, 1]
    weights.after_step()
    assert float(weights(losses, main, shared)["one"].detach()) / 0.5 == pytest.approx(1.0)
    assert weights.measured.tolist() == [2, 2]
