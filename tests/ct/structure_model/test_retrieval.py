"""Retrieval of stage 1: places, equals in random order, and how far embeddings spread; by hand and against all orders."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from d2rnet.ct.structure_model.diagnostics import effective_rank, spread
from d2rnet.ct.structure_model.retrieval import (
    Places,
    chance_of_any,
    image_to_text,
    retrieval_scores,
    retrieve,
    text_to_image,
)

Floats = NDArray[np.float64]
ROUNDING = 1e-7


def unit(*degrees: float) -> Floats:
    """Vectors of length 1 in the plane: (n, 2)."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_own_text_among_the_distinct_ones() -> None:
    places = image_to_text(unit(0, 40, 50), unit(0, 30, 90), np.array([0, 2, 2]))
    assert places.before.tolist() == [0, 2, 1] and places.equals.tolist() == [1, 1, 1]
    assert [places.found(rank).tolist() for rank in (1, 2, 3)] == [[1, 0, 0], [1, 0, 1], [1, 1, 1]]


def test_texts_of_one_vector_are_told_apart_by_chance() -> None:
    """What differs behind the last token that is read, from batches of other lengths: equal but for rounding."""
    texts = unit(0, 0, 0, 90)
    texts[0] *= 1 + ROUNDING
    places = image_to_text(unit(10, 10, 10), texts, np.array([0, 1, 3]))
    assert places.before.tolist() == [0, 0, 3] and places.equals.tolist() == [3, 3, 1]
    for rank in (1, 2, 3, 4):
        assert places.found(rank).tolist() == pytest.approx([min(rank, 3) / 3] * 2 + [float(rank == 4)])


def test_any_volume_that_has_the_text_counts() -> None:
    own = np.array([0, 0, 1, 1, 1])
    images = unit(5, 60, 20, 20, 20)
    places = text_to_image(images, unit(0, 20), own)
    assert (places.before.tolist(), places.equals.tolist(), places.right.tolist()) == ([0, 0], [1, 3], [1, 3])
    places = text_to_image(images, unit(20, 0), own)  # of text 0 three wrong ones are nearer, of text 1 one
    assert (places.before.tolist(), places.equals.tolist(), places.right.tolist()) == ([3, 1], [1, 3], [1, 3])


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_equals_are_found_as_in_the_mean_over_all_their_orders(rank: int) -> None:
    right = [True, False, True, False]  # four equals behind one that is nearer
    orders = [any(([False, *order])[:rank]) for order in permutations(right)]
    found = Places(np.array([1]), np.array([4]), np.array([2])).found(rank)
    assert found.tolist() == pytest.approx([np.mean(orders)])


def test_a_model_that_tells_nothing_apart_finds_what_chance_does() -> None:
    count, distinct = 20, 8
    alike = np.tile(unit(30), (count, 1))
    numbers = np.arange(count) % distinct
    row = retrieval_scores(retrieve(alike, alike, np.ones(count, bool), numbers), np.ones((count, 3), np.float32))
    for rank in (1, 5, 10):
        for way in ("image_to_text", "text_to_image"):
            assert row[f"{way}_recall_at_{rank}"] == pytest.approx(row[f"{way}_chance_at_{rank}"])
    assert row["image_to_text_recall_at_5_interval"] == pytest.approx([5 / distinct] * 2)


def test_only_volumes_with_a_text_take_part() -> None:
    known = np.array([True, False, True])
    found = retrieve(unit(0, 45, 90), unit(0, 0, 90), known, np.array([7, 7, 3]))
    assert found.known is known and found.sharing == [1, 1] and found.by_image.before.tolist() == [0, 0]
    nothing = retrieval_scores(retrieve(unit(0), unit(0), np.array([False]), np.array([7])), np.ones((1, 3), np.float32))
    assert nothing["volumes"] == 0 and nothing["image_to_text_recall_at_1"] is None
    assert nothing["text_to_image_chance_at_5"] is None and nothing["image_to_text_recall_at_5_interval"] is None


def test_blind_draws() -> None:
    assert chance_of_any(10, [1, 3], 2) == pytest.approx((2 / 10 + (1 - 7 / 10 * 6 / 9)) / 2)
    assert chance_of_any(4, [1], 9) == 1.0 and chance_of_any(0, [], 5) is None


def test_thousands_of_volumes_take_little() -> None:
    """Two matrices of products and their comparisons, no loop over pairs."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(3000, 8))
    own = np.arange(3000) // 2
    texts = images[::2]
    for places in (image_to_text(images, texts, own), text_to_image(images, texts, own)):
        assert places.found(10).shape == (len(places.before),) and (places.equals == 1).mean() > 0.99


def test_texts_that_are_all_alike_are_a_collapse_of_texts() -> None:
    images = np.eye(6)
    row = spread(images, unit(0, 1, 2, 3))
    assert not row["collapsed"] and row["texts_collapsed"] and row["texts_mean_length"] > 0.99
    line = unit(0, 0.1, 180, 180.1, 0.2, 179.9)  # far apart, but all on one line
    row = spread(images, line)
    assert row["texts_collapsed"] and row["texts_mean_length"] < 0.1
    assert row["texts_effective_rank"] == effective_rank(line)
    row = spread(np.tile(unit(0), (6, 1)), np.eye(6))
    assert row["collapsed"] and not row["texts_collapsed"]


@pytest.mark.parametrize("texts", [unit(), unit(0), unit(0, 90)])
def test_few_texts_are_no_collapse(texts: Floats) -> None:
    """Two texts lie on a line however well they are told apart, and one is alike itself."""
    row = spread(np.eye(6), texts)
    assert row["texts_collapsed"] is False and (row["texts_effective_rank"] is None) == (len(texts) == 0)
