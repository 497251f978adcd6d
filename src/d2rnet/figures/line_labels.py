"""Names of lines at their ends, in their colours, instead of a legend that covers or stretches the axes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from d2rnet.figures.plots import GREY, MM_PER_INCH, SMALL_POINTS

LINE_HEIGHT = 1.25  # of the font
NUMBERS_MM = 11.0  # of a row of panels, that numbers and names of its axes take
LEAST_CONTRAST = 4.5  # of text on white, WCAG 2.2
AWAY = 1.04  # where labels begin, in widths of the panel


def label_ends(panel: Axes) -> None:
    """Write the label of each line of a panel to the right of its last point; labels move apart, a thin line leads to each."""
    panel.get_xlim()  # limits are set by now, or computed here
    named = [
        line for line in panel.get_lines() if not str(line.get_label()).startswith("_") and len(np.asarray(line.get_xydata()))
    ]
    ends = [_end(line) for line in named]
    shares = [float(panel.transAxes.inverted().transform(panel.transData.transform(end))[1]) for end in ends]
    lines = max((str(line.get_label()).count("\n") + 1 for line in named), default=1)
    places = spread(shares, lines * SMALL_POINTS * LINE_HEIGHT / _height_points(panel))
    for line, end, place in zip(named, ends, places, strict=True):
        colour = to_hex(line.get_color())
        panel.annotate(
            str(line.get_label()),
            end,
            (AWAY, place),
            textcoords="axes fraction",
            va="center_baseline",
            fontsize=SMALL_POINTS,
            color=ink(colour),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )


def point_out(panel: Axes, place: float, text: str) -> None:
    """Draw a thin vertical line at ``place`` and say above the panel what is there."""
    panel.axvline(place, color=GREY, linewidth=0.6)
    panel.annotate(
        text, (place, 1.0), xycoords=panel.get_xaxis_transform(), xytext=(0, 1.5), textcoords="offset points",
        ha="center", va="bottom", fontsize=SMALL_POINTS, color=ink(GREY), annotation_clip=False,
    )  # fmt: skip


def spread(wanted: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move places apart: as near to the wanted ones as can be, ``gap`` from one another, in their order, within bounds.

    Args:
        wanted: places, in any order.
        gap: least distance; less where all would not fit.
        low: least place.
        high: greatest place.
    """
    if not wanted:
        return []
    order = np.argsort(wanted, kind="stable")
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    steps = gap * np.arange(len(wanted))
    blocks: list[list[float]] = []  # of places less their steps, which must not fall: pooled where they do
    for value in np.asarray(wanted, dtype=float)[order] - steps:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    pooled = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    found = np.empty(len(wanted))
    found[order] = np.clip(pooled, low, high - steps[-1]) + steps
    return found.tolist()


def ink(colour: str) -> str:
    """Return a colour, darker where text in it were hard to read on white."""
    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < LEAST_CONTRAST:
        rgb = 0.95 * rgb
    return to_hex(tuple(rgb))


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _end(line: Line2D) -> tuple[float, float]:
    across, up = np.asarray(line.get_xydata(), dtype=float)[-1]
    return float(across), float(up)


def _height_points(panel: Axes) -> float:
    """Height of a panel before it is laid out: its row's, less what numbers and names take."""
    place = panel.get_subplotspec()
    whole = panel.get_figure(root=True)
    assert whole is not None  # panels are made by plots.figure
    figure_mm = whole.get_size_inches()[1] * MM_PER_INCH
    if place is None:
        return 72 * figure_mm / MM_PER_INCH
    heights = np.asarray(place.get_gridspec().get_height_ratios(), dtype=float)
    row_mm = figure_mm * heights[place.rowspan.start] / heights.sum()
    return 72 * max(row_mm - NUMBERS_MM, 5.0) / MM_PER_INCH
