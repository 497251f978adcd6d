"""Labels at the ends of lines: apart, in order, inside the panel, legible; and the rule of sizes."""

import re

import pytest
from figure_size import breaks_the_rule

from d2rnet.figures.intervals import share_interval
from d2rnet.figures.line_labels import ink, label_ends, point_out, spread
from d2rnet.figures.plots import COLOURS, COLUMN_MM, PNG_DPI, figure


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.9, 0.1], [0.9, 0.1]),
        ([0.5, 0.5], [0.4, 0.6]),
        ([1.0, 0.95], [1.0, 0.8]),
        ([0.0, 0.0, 0.0], [0.0, 0.2, 0.4]),
        ([0.5, 0.45, 0.9], [0.575, 0.375, 0.9]),
        ([0.5] * 11, [round(0.1 * place, 1) for place in range(11)]),  # no room for 0.2 each
    ],
)
def test_places_move_apart_no_more_than_they_must(wanted, expected):
    assert spread(wanted, 0.2) == pytest.approx(expected)


def test_text_is_darkened_until_it_is_legible():
    assert ink("#000000") == "#000000" and ink("#0072B2") == "#0072b2"
    for colour in COLOURS:
        red, green, blue = (int(ink(colour)[start : start + 2], 16) / 255 for start in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
        assert 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) >= 4.45, colour


def test_lines_are_named_at_their_ends_and_axes_end_at_the_data(tmp_path):
    with figure(tmp_path / "two", width_mm=COLUMN_MM, rows_mm=[50.0]) as (panel,):
        panel.plot([0, 1, 2], [0.2, 0.4, 0.50], label="lower")
        panel.plot([0, 1, 2], [0.3, 0.6, 0.51], label="upper")
        panel.plot([0, 1], [0.3, 0.6], label="_unnamed")
        panel.set_ylim(0, 0.6)
        label_ends(panel)
        point_out(panel, 1, "here")
        limits = panel.get_ylim()
    text = (tmp_path / "two.svg").read_text()
    places = {name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(lower|upper)</text>', text)}
    assert places["lower"] - places["upper"] >= 6, "points; y grows downwards"
    assert limits == (0, 0.6) and "_unnamed" not in text and ">here</text>" in text
    assert breaks_the_rule(tmp_path / "two.svg") == []


def test_no_other_width_and_300_dots_an_inch(tmp_path):
    with (
        pytest.raises(ValueError, match="figure wide: width 120 mm; expected 89 or 183"),
        figure(tmp_path / "wide", width_mm=120, rows_mm=[9]),
    ):
        pass
    assert PNG_DPI == 300 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("hits", "cases", "expected"),
    [
        (0, 0, (0.0, 1.0)),
        (0, 10, (0.0, 0.2775)),
        (5, 10, (0.2366, 0.7634)),
        (10, 10, (0.7225, 1.0)),
        (81, 263, (0.2553, 0.3662)),
    ],
)
def test_wilson_interval(hits, cases, expected):
    assert share_interval(hits, cases) == pytest.approx(expected, abs=1e-4)


def test_more_hits_than_cases_are_refused():
    with pytest.raises(ValueError, match="got 3 of 2; expected 0 to 2"):
        share_interval(3, 2)
