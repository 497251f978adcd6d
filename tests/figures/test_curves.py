"""Curves of a training: the numbers of the x axis have room, however long it is."""

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from d2rnet.figures.curves import Panel, draw_curves

DIGIT_PT = 0.636 * 6  # of the sans at its size


@pytest.mark.parametrize("end", [10, 370, 500, 54000, 320000])
def test_numbers_of_the_axis_do_not_touch(tmp_path: Path, end: int) -> None:
    history = [{"done": end * part // 5, "a": 1.0, "b": 2.0, "c": 3.0} for part in range(1, 6)]
    panels = [Panel(curves={key: key}, y_label=key) for key in "abc"]
    draw_curves(tmp_path / "curves", history, panels, clock="done", x_label="iterations")
    rows = defaultdict(list)
    for x, y, number in re.findall(
        r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+)</text>', (tmp_path / "curves.svg").read_text()
    ):
        rows[y].append((float(x), number))
    (axis,) = [sorted(row) for row in rows.values() if len(row) >= 9]  # of the three panels, side by side
    for (x, number), (next_x, next_number) in pairwise(axis):
        assert next_x - x > DIGIT_PT * (len(number) + len(next_number)) / 2, (number, next_number)
