"""Queue of differing texts: each rule on vectors that can be checked by hand, wrap-round, processes, resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.diverse_queue import RULES, DiverseQueue, text_number
from d2rnet.training.processes import run_processes

ONE_GROUP = torch.zeros(1, dtype=torch.long)


def direction(degrees: float) -> Tensor:
    """(1, 2) vector of length 1."""
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()])[None]


def add_degrees(queue: DiverseQueue, *degrees: float) -> None:
    """Add one text after the other to group 0; the number of a text is its angle."""
    for value in degrees:
        queue.add(direction(value), ONE_GROUP, torch.tensor([int(value)]))


def held(queue: DiverseQueue, group: int = 0) -> list[int]:
    """Numbers of the texts, oldest first."""
    return queue.numbers[group][queue.valid[group]].tolist()


def stream(count: int, *, groups: int = 3, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random texts of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    kinds = F.normalize(torch.randn(12, width, generator=generator), dim=1)
    numbers = torch.randint(0, 12, (count,), generator=generator)
    features = F.normalize(kinds[numbers] + 0.2 * torch.randn(count, width, generator=generator), dim=1)
    return features, torch.randint(0, groups, (count,), generator=generator), numbers, numbers < 5


def state_of(queue: DiverseQueue) -> dict[str, Tensor]:
    """What counts: buffers where there is something, scores apart, which may differ by rounding."""
    names = ("arrivals", "numbers", "normal", "features")
    return {name: getattr(queue, name)[queue.valid] for name in names} | {"arrived": queue.arrived, "valid": queue.valid}


def test_starts_empty_and_fills_from_the_front() -> None:
    queue = DiverseQueue(2, 3, 2)
    assert not queue.valid.any() and queue.report()["fill"] == 0
    add_degrees(queue, 10, 50)
    assert queue.valid.tolist() == [[True, True, False], [False] * 3]
    assert held(queue) == [10, 50] and torch.equal(queue.features[0, :1], direction(10))
    assert queue.report(0)["fill"] == pytest.approx(2 / 3) and queue.report()["fill"] == pytest.approx(1 / 3)


def test_fifo_goes_round_and_round() -> None:
    queue = DiverseQueue(1, 3, 2, rule="fifo")
    add_degrees(queue, *range(8))
    assert held(queue) == [5, 6, 7] and queue.arrivals.tolist() == [[5, 6, 7]]
    assert torch.allclose(queue.features[0], torch.cat([direction(5), direction(6), direction(7)]))


def test_released_keeps_scores_of_the_arrival() -> None:
    """0 met itself (1); 90 met 0 (0); 60 met 0 and 90 (0.5, 0.866: mean 0.683); 30 met all three (mean 0.744)."""
    queue = DiverseQueue(1, 4, 2, rule="released", temperature=0.1)
    add_degrees(queue, 0, 90, 60, 30)
    assert queue.scores[0].tolist() == pytest.approx([10.0, 0.0, 6.830127, 7.440169], abs=1e-5)
    # The newcomer met four (0.707 and 0.966, twice each: 0.836), so the first goes, though 30 and 60 are amid others.
    add_degrees(queue, 45)
    assert held(queue) == [90, 60, 30, 45]
    assert queue.scores[0].tolist() == pytest.approx([0.0, 6.830127, 7.440169, 8.365163], abs=1e-5)
    add_degrees(queue, 200)  # unlike all; and now 45 goes
    assert held(queue) == [90, 60, 30, 200]


def test_refreshed_looks_at_what_is_there_now() -> None:
    """Sums of products with the others: 0: 1.925, 10: 2.143, 20: 2.267, 90: 0.516, so 20 goes.

    Of those that are left 10 had most; with 170 there it is 90: 0: 0, 10: 0.219, 90: 0.347, 170: -1.751.
    """
    queue = DiverseQueue(1, 3, 2, rule="refreshed")
    add_degrees(queue, 0, 10, 20, 90)
    assert held(queue) == [0, 10, 90]
    add_degrees(queue, 170)
    assert held(queue) == [0, 10, 170]


def test_closest_pair_drops_its_older_text() -> None:
    queue = DiverseQueue(1, 3, 2, rule="closest_pair")
    add_degrees(queue, 0, 50, 180)
    add_degrees(queue, 52)
    assert held(queue) == [0, 180, 52]
    add_degrees(queue, 182)
    assert held(queue) == [0, 52, 182]
    add_degrees(queue, 100)  # 48 from 52, 52 from 0
    assert held(queue) == [0, 182, 100]
    # The nearest newer text of 0 was 52, which has gone: 100 now (82 from 182).
    assert queue.scores[0].tolist()[:2] == pytest.approx([-0.173648, 0.139173], abs=1e-5)
    assert queue.nearest[0].tolist()[:2] == [5, 5]


def test_closest_pair_is_the_closest_of_all_pairs() -> None:
    """Against a search over all pairs at each arrival."""
    features, groups, numbers, _ = stream(150, groups=1)
    features = features.double()  # as the search: no two pairs are the same within rounding
    queue = DiverseQueue(1, 9, 6)
    present: list[int] = []
    for arrival in range(len(features)):
        queue.add(features[arrival, None], groups[arrival, None], numbers[arrival, None])
        present.append(arrival)
        if len(present) > 9:
            pairs = [(float(features[one] @ features[two]), one) for one in present for two in present if one < two]
            present.remove(max(pairs)[1])
        assert queue.arrivals[0][queue.valid[0]].tolist() == present
        products = features[present] @ features[present].T
        newer = products.masked_fill(torch.ones_like(products).tril() > 0, -2)
        assert queue.scores[0, : len(present) - 1].tolist() == pytest.approx(newer.amax(dim=1)[:-1].tolist(), abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_is_its_texts_one_by_one(rule: str) -> None:
    features, groups, numbers, normal = stream(90)
    single, batches = DiverseQueue(3, 10, 6, rule=rule), DiverseQueue(3, 10, 6, rule=rule)
    for text in range(90):
        single.add(*(values[text, None] for values in (features, groups, numbers, normal)))
    for first in range(0, 90, 25):
        batches.add(*(values[first : first + 25] for values in (features, groups, numbers, normal)))
    for name, value in state_of(single).items():
        assert torch.equal(value, state_of(batches)[name]), name
    assert torch.allclose(single.scores[single.valid], batches.scores[batches.valid], rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_groups_do_not_meet_and_their_order_is_irrelevant(rule: str) -> None:
    features, groups, numbers, normal = stream(120)
    queue, turned = DiverseQueue(3, 10, 6, rule=rule), DiverseQueue(3, 10, 6, rule=rule)
    queue.add(features, groups, numbers, normal)
    turned.add(features, 2 - groups, numbers, normal)
    alone = DiverseQueue(1, 10, 6, rule=rule)
    mine = groups == 1
    alone.add(features[mine], groups[mine] - 1, numbers[mine], normal[mine])
    for name in ("arrivals", "numbers", "normal", "features"):
        assert torch.equal(getattr(queue, name), getattr(turned, name).flip(0)), name
        assert torch.equal(getattr(queue, name)[1], getattr(alone, name)[0]), name


@pytest.mark.parametrize("rule", RULES)
def test_equal_texts_are_admitted_once_if_told(rule: str) -> None:
    queue = DiverseQueue(1, 4, 2, rule=rule, admit_equal_texts="once")
    add_degrees(queue, 0, 40, 0, 80, 40, 40)
    assert held(queue) == [0, 80, 40] and queue.arrivals[0][queue.valid[0]].tolist() == [2, 3, 5]
    together = DiverseQueue(1, 4, 2, rule=rule, admit_equal_texts="once")
    angles = [0.0, 40.0, 0.0, 80.0, 40.0, 40.0, 40.0]
    together.add(torch.cat([direction(angle) for angle in angles]), ONE_GROUP.expand(7), torch.tensor(angles).long())
    assert held(together) == [0, 80, 40] and together.arrivals[0][together.valid[0]].tolist() == [2, 3, 6]
    always = DiverseQueue(1, 6, 2, rule=rule)
    add_degrees(always, 0, 40, 0, 80, 40, 40)
    assert held(always) == [0, 40, 0, 80, 40, 40]


def test_equal_texts_of_other_groups_stay() -> None:
    queue = DiverseQueue(2, 3, 2, admit_equal_texts="once")
    queue.add(direction(5).expand(2, 2), torch.tensor([0, 1]), torch.tensor([5, 5]))
    assert held(queue, 0) == held(queue, 1) == [5]


def test_start_with_noise_as_released() -> None:
    torch.manual_seed(0)
    queue = DiverseQueue(1, 50, 64, rule="released", start="noise")
    assert queue.valid.all() and (queue.scores == 10_000).all()
    assert 6 < float(queue.features.norm(dim=2).mean()) < 10  # 8 = sqrt(64): not of length 1
    assert queue.report() == {"fill": 0, "noise": 1, "normal_share": 0, "distinct_texts": 0, "mean_age": 0}
    features, _, numbers, normal = stream(80, groups=1, width=64)
    queue.add(features[:30], torch.zeros(30, dtype=torch.long), numbers[:30], normal[:30])
    assert queue.report()["noise"] == pytest.approx(20 / 50) and queue.report()["fill"] == pytest.approx(30 / 50)
    queue.add(features[30:], torch.zeros(50, dtype=torch.long), numbers[30:], normal[30:])
    assert queue.report()["noise"] == 0 and len(held(queue)) == 50


def test_report_by_hand() -> None:
    queue = DiverseQueue(2, 4, 2, rule="fifo")
    normal = torch.tensor([True, False, True, True, False])
    queue.add(torch.ones(5, 2), torch.tensor([0, 0, 0, 0, 1]), torch.tensor([3, 4, 3, 5, 3]), normal)
    assert queue.report(0) == {
        "fill": 1.0, "noise": 0.0, "normal_share": 0.75, "distinct_texts": 3.0, "mean_age": 1.5,
    }  # fmt: skip
    assert queue.report() == {
        "fill": 5 / 8, "noise": 0.0, "normal_share": 0.6, "distinct_texts": 4.0, "mean_age": 1.2,
    }  # fmt: skip


def test_the_poorest_of_the_groups_that_hold_a_text() -> None:
    queue = DiverseQueue(3, 4, 2, rule="fifo")
    assert queue.poorest() == {"normal_share_greatest": 0.0, "distinct_texts_least": 0.0}
    normal = torch.tensor([True, False, True, True, False])
    queue.add(torch.ones(5, 2), torch.tensor([0, 0, 0, 0, 1]), torch.tensor([3, 4, 3, 5, 3]), normal)
    assert queue.poorest() == {"normal_share_greatest": 0.75, "distinct_texts_least": 1.0}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("start", ["empty", "noise"])
def test_goes_on_from_its_state_exactly(rule: str, start: str) -> None:
    features, groups, numbers, normal = stream(150)
    options: dict[str, Any] = {"rule": rule, "start": start, "admit_equal_texts": "always"}
    torch.manual_seed(1)
    queue = DiverseQueue(3, 10, 6, **options)
    queue.add(features[:70], groups[:70], numbers[:70], normal[:70])
    resumed = DiverseQueue(3, 10, 6, **options)
    resumed.load_state_dict(queue.state_dict(), strict=True)
    for other in (queue, resumed):
        for first in range(70, 150, 8):
            other.add(*(values[first : first + 8] for values in (features, groups, numbers, normal)))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def filled(rule: str) -> DiverseQueue:
    """A queue after texts of all processes in three steps; in the last the second process has none."""
    features, groups, numbers, normal = stream(90)
    queue = DiverseQueue(3, 10, 6, rule=rule)
    for first, count, mine in ((0, 50, 30), (50, 30, 11), (80, 10, 10)):
        bounds = (first, first + mine, first + count) if num_processes() > 1 else (first, first + count)
        own = slice(bounds[process_rank()], bounds[process_rank() + 1])
        queue.add(features[own], groups[own], numbers[own], normal[own])
    return queue


def write_queues(folder: Path) -> None:
    """Fill queues in two training processes."""
    torch.set_num_threads(1)
    for rule in RULES:
        torch.save(filled(rule).state_dict(), folder / f"{rule}_{process_rank()}.pt")


def test_two_processes_hold_the_queue_of_one(tmp_path: Path) -> None:
    run_processes(write_queues, tmp_path, processes=2, device=torch.device("cpu"))
    for rule in RULES:
        single = filled(rule).state_dict()
        for process in (0, 1):
            shared = torch.load(tmp_path / f"{rule}_{process}.pt")
            assert all(torch.equal(value, shared[name]) for name, value in single.items()), rule


def test_no_text_and_no_gradient() -> None:
    queue = DiverseQueue(1, 3, 2)
    queue.add(torch.zeros(0, 2), ONE_GROUP[:0], ONE_GROUP[:0])
    assert not queue.valid.any()
    queue.add(direction(5).requires_grad_(), ONE_GROUP, ONE_GROUP)
    assert not queue.features.requires_grad
    queue.add(direction(7).bfloat16(), ONE_GROUP, ONE_GROUP)
    assert queue.features.dtype == torch.float32


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule 'oldest'; expected sizes from 1, one of fifo, released"):
        DiverseQueue(1, 3, 2, rule="oldest")
    with pytest.raises(ValueError, match=r"queue of 1 x 0 x 2"):
        DiverseQueue(1, 0, 2)
    for group in (-1, 1):
        with pytest.raises(ValueError, match=rf"groups {group} to {group}; expected 0 to 0"):
            DiverseQueue(1, 3, 2).add(direction(5), ONE_GROUP + group, ONE_GROUP)


def test_number_of_a_text() -> None:
    """The same in every run; fits int64."""
    assert text_number("The lungs are clear") != text_number("The lungs are clear.")
    assert text_number("The lungs are clear.") == 4269616200173781340
    assert all(0 <= text_number(str(number)) < 2**63 for number in range(200))
