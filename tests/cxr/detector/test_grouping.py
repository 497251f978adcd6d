"""Dealing the images of an iteration to processes and micro-batches."""

import numpy as np
import pytest

from d2rnet.cxr.detector.grouping import common_hw, deal

PORTRAIT, LANDSCAPE = (100, 80), (80, 100)


def test_images_of_one_orientation_go_together() -> None:
    sizes = [LANDSCAPE, PORTRAIT, LANDSCAPE, PORTRAIT]
    assert deal(sizes, processes=1, steps=2) == [[1, 3, 0, 2]]
    assert deal(sizes, processes=2, steps=1) == [[1, 3], [0, 2]]


def test_small_images_come_before_large_ones_and_equal_ones_in_their_order() -> None:
    sizes = [(30, 20), (10, 10), (20, 20), (10, 10)]
    assert deal(sizes, processes=1, steps=1) == [[1, 3, 2, 0]]


def test_processes_have_neighbours_in_size_at_the_same_time() -> None:
    sizes = [(side, side) for side in range(1, 9)]
    assert deal(sizes, processes=2, steps=2) == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize(("processes", "steps"), [(1, 1), (1, 4), (3, 2), (4, 3)])
def test_every_image_is_dealt_once_and_each_process_gets_as_many(processes: int, steps: int) -> None:
    rng = np.random.default_rng(processes)
    sizes = [tuple(pair) for pair in rng.integers(10, 99, (processes * steps * 2, 2)).tolist()]
    dealt = deal(sizes, processes=processes, steps=steps)
    assert [len(own) for own in dealt] == [steps * 2] * processes
    assert sorted(index for own in dealt for index in own) == list(range(len(sizes)))


def test_the_size_that_holds_all() -> None:
    assert common_hw([(3, 9), (5, 2)]) == (5, 9)
