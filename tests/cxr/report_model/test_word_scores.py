"""Scores of NAAF by hand, masks, and the boundary between matched and mismatched words."""

import math

import pytest
import torch
from torch.nn import functional as F

from d2rnet.cxr.report_model.word_scores import Boundary, best_similarities, optimal_boundary, word_scores

REGIONS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
WORDS = torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]])
YES = torch.ones(1, 2, dtype=torch.bool)


def test_score_by_hand() -> None:
    """Word 1 is shown by both regions, word 2 by none: -0.5 mismatch, nothing shared, relevance -0.16192."""
    score = word_scores(REGIONS, YES, WORDS, YES, boundary=torch.tensor(0.5), sharpness=10.0)
    shown = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]  # softmax of 10 * (0.1, 0.3)
    shared = (0.6 * shown[0] + 0.8 * shown[1]) / math.hypot(*shown)
    assert shared == pytest.approx(0.87324, abs=1e-5)
    first = 1 / (1 + math.exp(10 * (1.0 - 0.6 / math.hypot(0.6, 0.1))))  # leaky ReLU makes -1 of word 2 to -0.1
    related = [0.6 * first + 0.8 * (1 - first), -1 / (1 + math.exp(10 * 0.1 / math.hypot(0.6, 0.1)))]
    assert related == pytest.approx([0.70679, -0.16192], abs=1e-5)
    assert float(score) == pytest.approx((shared + related[0] - 0.5 + related[1]) / 2, abs=1e-5)
    assert float(score) == pytest.approx(0.45905, abs=2e-5)


def test_masked_regions_and_words_change_nothing() -> None:
    options = {"boundary": torch.tensor(0.1), "sharpness": 20.0}
    expected = word_scores(REGIONS, YES, WORDS, YES, **options)
    wider = torch.cat([REGIONS, torch.tensor([[[0.8, 0.6]]])], dim=1)
    longer = torch.cat([WORDS, torch.tensor([[[0.0, 1.0]]])], dim=1)
    mask = torch.tensor([[True, True, False]])
    assert torch.allclose(word_scores(wider, mask, longer, mask, **options), expected, atol=1e-6)
    assert not torch.allclose(word_scores(wider, mask | True, WORDS, YES, **options), expected, atol=1e-3)
    assert torch.equal(best_similarities(wider, mask, WORDS), torch.tensor([[[0.8, 0.0]]]))
    order = torch.tensor([1, 0])
    assert torch.allclose(word_scores(REGIONS[:, order], YES, WORDS[:, order], YES, **options), expected, atol=1e-6)


def test_grid_equals_pair_by_pair() -> None:
    torch.manual_seed(0)
    regions = F.normalize(torch.randn(3, 5, 4), dim=-1)
    words = F.normalize(torch.randn(2, 6, 4), dim=-1)
    region_mask = torch.rand(3, 5) < 0.7
    word_mask = torch.rand(2, 6) < 0.7
    options = {"boundary": torch.tensor(0.1), "sharpness": 5.0}
    grid = word_scores(regions, region_mask, words, word_mask, **options)
    for image in range(3):
        for report in range(2):
            some = regions[image][region_mask[image]][None]
            others = words[report][word_mask[report]][None]
            everything = [torch.ones(part.shape[:2], dtype=torch.bool) for part in (some, others)]
            alone = word_scores(some, everything[0], others, everything[1], **options)
            assert float(alone) == pytest.approx(float(grid[image, report]), abs=1e-5)


def double(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def error(t: float, matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> float:
    above = 0.5 * math.erfc((t - mismatched[0]) / (mismatched[1] * math.sqrt(2)))
    return alpha * above + 0.5 * math.erfc((matched[0] - t) / (matched[1] * math.sqrt(2)))


@pytest.mark.parametrize("spread", [0.1, 0.1 + 1e-9, 0.1 - 1e-9])
def test_boundary_of_equal_spreads(spread: float) -> None:
    """A is (near) 0: the middle, moved by variance / distance * ln(alpha)."""
    for alpha, expected in ((1.0, 0.3), (2.0, 0.3 + 0.01 / 0.4 * math.log(2))):
        t, holds = optimal_boundary(double(0.5, spread), double(0.1, 0.1), alpha)
        assert bool(holds) and float(t) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("matched", "mismatched", "alpha"),
    [((0.6, 0.2), (0.0, 0.1), 2.0), ((0.4, 0.05), (0.1, 0.2), 2.0), ((0.5, 0.3), (0.3, 0.1), 1.5)],
)
def test_boundary_is_the_minimum(matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> None:
    grid = torch.linspace(-1, 1, 20001, dtype=torch.float64).tolist()
    best = min(grid, key=lambda t: error(t, matched, mismatched, alpha))
    t, holds = optimal_boundary(double(*matched), double(*mismatched), alpha)
    assert bool(holds) and float(t) == pytest.approx(best, abs=2e-4)


@pytest.mark.parametrize(
    ("matched", "mismatched", "alpha"),
    [
        ((0.1, 0.1), (0.5, 0.1), 2.0),  # matched words are less alike: the root is a maximum
        ((0.0, 0.1), (0.0, 0.1), 1.0),  # no difference at all
        ((0.2, 0.3), (0.2, 0.1), 0.1),  # no real root
        ((1.0, 0.2), (0.99, 0.2), 2.0),  # root far above 1
    ],
)
def test_no_boundary(matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> None:
    assert not bool(optimal_boundary(double(*matched), double(*mismatched), alpha)[1])


def test_boundary_moves_slowly_and_stays_where_there_is_none() -> None:
    boundary = Boundary(start=0.0, momentum=0.9, alpha=1.0)
    best = torch.tensor([[[0.4, 0.6], [0.0, 0.2]]])  # spreads 0.1 about 0.5 and 0.1
    own = torch.tensor([[[True], [False]]]).expand_as(best)
    boundary.update(best, own, ~own)
    assert float(boundary.value) == pytest.approx(0.1 * 0.3, abs=1e-6)
    boundary.after_step()
    boundary.update(best, ~own, own)  # the other way round: no boundary
    boundary.after_step()
    boundary.update(best, own & False, ~own)  # no matched word at all
    boundary.after_step()
    assert float(boundary.value) == pytest.approx(0.03, abs=1e-6)
    assert list(boundary.state_dict()) == ["value"] and not boundary.value.requires_grad


def test_micro_batches_move_the_boundary_once_as_their_batch_would() -> None:
    best = torch.tensor([[[0.4, 0.6], [0.0, 0.2]], [[0.3, 0.5], [0.2, 0.6]]])
    own = torch.tensor([[[True], [False]], [[False], [True]]]).expand_as(best)
    whole, parts, steps = (Boundary(start=0.0, momentum=0.5, alpha=1.0) for _ in range(3))
    for _ in range(2):
        whole.update(best, own, ~own)
        whole.after_step()
        for part, mine in zip(best.split(1), own.split(1), strict=True):
            parts.update(part, mine, ~mine)
        parts.after_step()
    assert float(parts.value) == pytest.approx(float(whole.value), abs=1e-7)
    for _ in range(2):
        for part, mine in zip(best.split(1), own.split(1), strict=True):
            steps.update(part, mine, ~mine)
            steps.after_step()
    assert abs(float(steps.value) - float(whole.value)) > 0.01


def test_a_step_whose_micro_batches_have_no_boundary_together_stays_where_it_was() -> None:
    boundary = Boundary(start=0.0, momentum=0.9, alpha=1.0)
    best = torch.tensor([[[0.4, 0.6], [0.0, 0.2]]])
    own = torch.tensor([[[True], [False]]]).expand_as(best)
    boundary.update(best, own, ~own)
    assert float(boundary.value) == pytest.approx(0.03, abs=1e-6)
    boundary.update(best, ~own, own)  # with the other way round, both are alike
    assert float(boundary.value) == 0.0
