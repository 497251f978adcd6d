"""Contrast by groups with soft targets: numbers by hand, a second way in plain loops, masks, processes, extremes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.contrastive import Relations, TargetRule, Temperature, grouped_contrast, target_shares
from d2rnet.training.processes import run_processes

# One entry of two groups, whose queue holds one text of the first group; temperatures 1. Keys: text 0, text 1, queue.
IMAGES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
TEXTS = IMAGES.clone()
QUEUE = torch.tensor([[[0.0, 1.0]], [[3.0, 4.0]]])
QUEUE_VALID = torch.tensor([[True], [False]])
# Row 0: products 1, 0, 0, so softmax e, 1, 1 over 4.71828; row 1: products 0, 1, 1, softmax 1, e, e over 6.43656.
LOG_0 = (-0.551445, -1.551445, -1.551445)
LOG_1 = (-1.861995, -0.861995, -0.861995)
# 0.2 * softmax + 0.8 for the pair, then 0.1 for the other group (text 1 of row 0; text 0 and the queue of row 1).
SHARES_0 = (0.915223, 0.0042388, 0.0423884)
SHARES_1 = (0.0031072, 0.884464, 0.0084464)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"normalise": False},
    {"soft_share": 0.0},
    {"soft_share": 1.0, "temperature": 0.3},
    {"other_groups_weight": 0.0},
    {"other_groups_weight": 1.0},
    {"other_groups_weight": 0.0, "other_groups_in_denominator": False},
]


def cross(shares: tuple[float, ...], logs: tuple[float, ...]) -> float:
    return -sum(share * value for share, value in zip(shares, logs, strict=True))


def hand(**options: Any) -> float:
    """The loss of the one entry."""
    rule = TargetRule(**{"temperature": 1.0} | options)
    valid = torch.ones(1, 2, dtype=torch.bool)
    return float(grouped_contrast(IMAGES, TEXTS, valid, QUEUE, QUEUE_VALID, temperature=1.0, targets=rule))


def test_by_hand_as_released() -> None:
    expected = (cross(SHARES_0, LOG_0) + cross(SHARES_1, LOG_1)) / 2
    assert expected == pytest.approx(0.676253, abs=2e-6)
    assert hand(normalise=False) == pytest.approx(expected, abs=2e-6)


def test_by_hand_with_rows_that_sum_to_1() -> None:
    expected = (cross(SHARES_0, LOG_0) / 0.9618502 + cross(SHARES_1, LOG_1) / 0.8960176) / 2
    assert expected == pytest.approx(0.732692, abs=2e-6)
    assert hand() == pytest.approx(expected, abs=2e-6)


def test_by_hand_hard_targets() -> None:
    assert hand(soft_share=0.0) == pytest.approx((0.551445 + 0.861995) / 2, abs=2e-6)


def test_by_hand_other_groups_stay_in_the_denominator_unless_told() -> None:
    hard = {"soft_share": 0.0, "other_groups_weight": 0.0}
    assert hand(**hard) == pytest.approx((0.551445 + 0.861995) / 2, abs=2e-6)
    # Without: row 0 has text 0 and the queue, log(1 + 1/e) = 0.313262; row 1 is alone with its text, 0.
    assert hand(**hard, other_groups_in_denominator=False) == pytest.approx(0.313262 / 2, abs=2e-6)


def test_by_hand_equal_texts_share_the_part_of_the_pair() -> None:
    numbers = (torch.tensor([[7, 7]]), torch.tensor([[7], [7]]))  # equal across groups, too: that does not count
    valid = torch.ones(1, 2, dtype=torch.bool)
    hard = TargetRule(soft_share=0.0)
    loss = grouped_contrast(
        IMAGES, TEXTS, valid, QUEUE, QUEUE_VALID, temperature=1.0, targets=hard, equal_texts=numbers
    )  # row 0: half to text 0, half to the queue
    assert float(loss) == pytest.approx(((0.551445 + 1.551445) / 2 + 0.861995) / 2, abs=2e-6)


def sample(entries: int = 3, groups: int = 2, size: int = 4, width: int = 5) -> dict[str, Tensor]:
    """Random vectors of length 1; some texts are missing, some equal, some places of the queue empty."""
    generator = torch.Generator().manual_seed(3)

    def vectors(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, width, generator=generator), dim=-1)

    return {
        "images": vectors(entries, groups),
        "texts": vectors(entries, groups),
        "valid": torch.rand(entries, groups, generator=generator) < 0.7,
        "queue": vectors(groups, size),
        "queue_valid": torch.rand(groups, size, generator=generator) < 0.7,
        "numbers": torch.randint(0, 3, (entries, groups), generator=generator),
        "queue_numbers": torch.randint(0, 3, (groups, size), generator=generator),
    }


def in_loops(data: dict[str, Tensor], rule: TargetRule, *, equal: bool, symmetric: bool, temperature: float = 0.2) -> float:
    """The loss, number by number."""
    entries, groups = data["valid"].shape
    batch = [(b, s) for b in range(entries) for s in range(groups) if data["valid"][b, s]]
    queued = [(s, q) for s in range(groups) for q in range(data["queue"].shape[1]) if data["queue_valid"][s, q]]

    def loss_of(rows: Tensor, others: Tensor, with_queue: bool) -> float:
        total = 0.0
        for b, s in batch:
            keys = [(c == b and u == s, u, data["texts"][c, u], others[c, u], data["numbers"][c, u]) for c, u in batch]
            if with_queue:
                keys += [(False, u, data["queue"][u, q], data["queue"][u, q], data["queue_numbers"][u, q]) for u, q in queued]
            if not rule.other_groups_in_denominator:
                keys = [key for key in keys if key[1] == s]
            own = [key[1] == s and bool(key[4] == data["numbers"][b, s]) if equal else key[0] for key in keys]
            soft = [math.exp(float(data["texts"][b, s] @ key[2]) / rule.temperature) for key in keys]
            shares = [
                (rule.soft_share * value / sum(soft) + (1 - rule.soft_share) * mine / sum(own))
                * (1 if key[1] == s else rule.other_groups_weight)
                for value, mine, key in zip(soft, own, keys, strict=True)
            ]
            if rule.normalise:
                shares = [share / sum(shares) for share in shares]
            logits = [float(rows[b, s] @ key[3]) / temperature for key in keys]
            log_total = math.log(sum(map(math.exp, logits)))
            total -= sum(share * (logit - log_total) for share, logit in zip(shares, logits, strict=True))
        return total / len(batch)

    loss = loss_of(data["images"], data["texts"], True)
    return (loss + loss_of(data["texts"], data["images"], False)) / 2 if symmetric else loss


def loss_of(data: dict[str, Tensor], rule: TargetRule, *, equal: bool, symmetric: bool) -> Tensor:
    """The loss of the code."""
    return grouped_contrast(
        *(data[name] for name in ("images", "texts", "valid", "queue", "queue_valid")),
        temperature=0.2,
        targets=rule,
        equal_texts=(data["numbers"], data["queue_numbers"]) if equal else None,
        symmetric=symmetric,
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("symmetric", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("equal", [False, True], ids=["pairs", "equal texts"])
def test_the_same_in_loops(options: dict[str, Any], equal: bool, symmetric: bool) -> None:
    data, rule = sample(), TargetRule(**options)
    assert 2 < data["valid"].sum() < 6 and 2 < data["queue_valid"].sum() < 8
    expected = in_loops(data, rule, equal=equal, symmetric=symmetric)
    assert float(loss_of(data, rule, equal=equal, symmetric=symmetric)) == pytest.approx(expected, abs=1e-5)


def test_order_of_groups_entries_and_queue_is_irrelevant() -> None:
    data, rule = sample(groups=3), TargetRule()
    options = {"equal": True, "symmetric": True}
    turned = {name: value.flip(1 if name in ("images", "texts", "valid", "numbers") else 0) for name, value in data.items()}
    assert float(loss_of(turned, rule, **options)) == pytest.approx(float(loss_of(data, rule, **options)), abs=1e-6)
    turned = {name: value.flip(1 if name.startswith("queue") else 0) for name, value in data.items()}
    assert float(loss_of(turned, rule, **options)) == pytest.approx(float(loss_of(data, rule, **options)), abs=1e-6)


def test_missing_texts_and_empty_places_hold_anything() -> None:
    data, rule = sample(), TargetRule()
    loss = loss_of(data, rule, equal=True, symmetric=True)
    data["texts"] = data["texts"].where(data["valid"][..., None], torch.tensor(50.0))
    data["images"] = data["images"].where(data["valid"][..., None], torch.tensor(-50.0))
    data["queue"] = data["queue"].where(data["queue_valid"][..., None], torch.tensor(50.0))
    assert float(loss_of(data, rule, equal=True, symmetric=True)) == pytest.approx(float(loss), abs=1e-6)


def test_targets_are_constants_and_the_queue_may_change_before_the_backward_pass() -> None:
    data = sample()
    images = data["images"].requires_grad_()
    data["queue"].requires_grad_()
    loss = loss_of(data, TargetRule(), equal=False, symmetric=False)
    with torch.no_grad():
        data["queue"].zero_()
    loss.backward()
    assert data["queue"].grad is None and not data["texts"].requires_grad
    assert (images.grad.abs().sum(dim=-1) > 0).equal(data["valid"])


def test_texts_that_are_trained_get_the_gradient_of_their_keys_alone() -> None:
    data, rule = sample(), TargetRule(soft_share=0.6)
    data["valid"][:] = True
    data |= {name: data[name][:, :0] for name in ("queue", "queue_valid", "queue_numbers")}
    texts = data["texts"].requires_grad_()
    keys = texts.flatten(0, 1)
    groups = torch.arange(6) % 2
    relations = Relations(torch.eye(6).bool(), groups[:, None] == groups, torch.zeros(6, 6).bool())
    shares = target_shares((keys @ keys.T).detach(), relations, rule)
    logits = data["images"].flatten(0, 1) @ keys.T / 0.2
    (expected,) = torch.autograd.grad(-(shares * logits.log_softmax(dim=1)).sum() / 6, texts)
    (found,) = torch.autograd.grad(loss_of(data, rule, equal=False, symmetric=False), texts)
    assert torch.allclose(found, expected, atol=1e-6) and found.any()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("what", ["no valid row", "no entry", "no queue", "huge"])
def test_finite_at_extremes(options: dict[str, Any], what: str) -> None:
    data = sample()
    if what == "no valid row":
        data["valid"][:] = False
    elif what == "no entry":
        data |= {name: data[name][:0] for name in ("images", "texts", "valid", "numbers")}
    elif what == "no queue":
        data |= {name: data[name][:, :0] for name in ("queue", "queue_valid", "queue_numbers")}
    else:
        data["queue"] = data["queue"] * 1e4  # noise of the released start has a length of 22
        data["images"] = data["images"] * 1e4
    images = data["images"].requires_grad_()
    loss = loss_of(data, TargetRule(**options), equal=False, symmetric=True)
    loss.backward()
    assert loss.isfinite() and images.grad.isfinite().all()
    if what in ("no valid row", "no entry"):
        assert loss.item() == 0 and not images.grad.any()


def test_autocast_keeps_float32() -> None:
    data, rule = sample(), TargetRule()
    plain = loss_of(data, rule, equal=True, symmetric=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss_of(data, rule, equal=True, symmetric=True), plain)
        halves = data | {name: data[name].bfloat16() for name in ("images", "texts")}
        loss = loss_of(halves, rule, equal=True, symmetric=True)
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(float(plain), rel=0.02)


def test_a_target_outside_the_denominator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a key cannot be a target without.*Set other_groups_weight to 0"):
        TargetRule(other_groups_in_denominator=False)


CASES = [(rule, equal, symmetric, size) for rule in (OPTIONS[0], OPTIONS[6]) for equal, symmetric, size in
         ((False, False, 3), (True, True, 3), (True, True, 1))]  # fmt: skip


def gradients(options: dict[str, Any], equal: bool, symmetric: bool, entries: int) -> list[Tensor]:
    """Loss and gradients of what makes images and texts, and of the temperature, averaged over processes."""
    data = sample(entries)
    part = torch.tensor_split(torch.arange(entries), num_processes())[process_rank()]
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({"images": torch.nn.Linear(5, 5), "texts": torch.nn.Linear(5, 5)})
    temperature = Temperature(0.2, learnable=True)
    mine = data | {name: data[name][part] for name in ("images", "texts", "valid", "numbers")}
    loss = grouped_contrast(
        F.normalize(layers["images"](mine["images"]), dim=-1),
        F.normalize(layers["texts"](mine["texts"]), dim=-1),
        *(mine[name] for name in ("valid", "queue", "queue_valid")),
        temperature=temperature(),
        targets=TargetRule(**options),
        equal_texts=(mine["numbers"], mine["queue_numbers"]) if equal else None,
        symmetric=symmetric,
    )
    loss.backward()
    found = [loss.detach(), *(parameter.grad for parameter in (*layers.parameters(), *temperature.parameters()))]
    if num_processes() > 1:
        for value in found:
            torch.distributed.all_reduce(value)
            value /= num_processes()
    return found


def write_gradients(folder: Path) -> None:
    """Run the cases in a training process; the first process keeps the results."""
    torch.set_num_threads(1)
    for number, case in enumerate(CASES):
        found = gradients(*case)
        if process_rank() == 0:
            torch.save(found, folder / f"{number}.pt")


def test_two_processes_make_the_step_of_one(tmp_path: Path) -> None:
    run_processes(write_gradients, tmp_path, processes=2, device=torch.device("cpu"))
    for number, case in enumerate(CASES):
        for one, two in zip(gradients(*case), torch.load(tmp_path / f"{number}.pt"), strict=True):
            assert torch.allclose(one, two, rtol=1e-4, atol=1e-6), case


def test_temperature() -> None:
    assert float(Temperature()()) == pytest.approx(0.07) and not Temperature()().requires_grad
    learnt = Temperature(0.02, learnable=True)
    optimizer = torch.optim.SGD(learnt.parameters(), lr=10.0)
    learnt().backward()  # d exp(x) = exp(x) = 0.02: the step is down by 0.2 * k
    assert float(learnt.logarithm.grad) == pytest.approx(0.02)
    for _ in range(10):
        optimizer.step()
    assert float(learnt.logarithm) < math.log(0.01) and float(learnt()) == pytest.approx(0.01)
    optimizer.zero_grad()
    (-learnt()).backward()  # up again, at once
    optimizer.step()
    assert float(learnt()) == pytest.approx(0.01 * math.exp(0.1))
    with torch.no_grad():
        learnt.logarithm.fill_(3.0)
    assert float(learnt()) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"temperature starts at 0.7; expected 0.01 to 0.5"):
        Temperature(0.7)
