"""Curves of a training from its metrics.jsonl: one panel for what has one unit, over steps or epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.ticker import MaxNLocator

from d2rnet.errors import DatasetError
from d2rnet.figures.line_labels import label_ends, point_out
from d2rnet.figures.plots import COLOURS, PAGE_MM, figure, say_empty, series
from d2rnet.files.documents import read_jsonl
from d2rnet.settings import read_overlay

EPOCH = "epoch"
ROOM_ABOVE = 1.05  # of the highest value
ROW_MM = 46.0
MOST_MARKERS = 40  # longer curves are drawn without a marker per point
LINES = ("-", "--", "-.", ":", "-")  # colour and line differ, for print in grey


@dataclass(frozen=True)
class Panel:
    """What one panel shows: the name and unit of its y axis, and the keys of its curves with their names."""

    y_label: str
    curves: Mapping[str, str]


def read_history(path: Path, clock: str) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a training.

    Args:
        path: the file; it may be empty.
        clock: key that every line has, such as ``epoch``.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a line lacks the clock, or a value is neither a number nor, by class, an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by the rule that trains the model beside it.")
    lines = list(read_jsonl(path))
    for number, line in enumerate(lines, start=1):
        if clock not in line:
            raise DatasetError(f"{path}: line {number} lacks '{clock}'; expected the history of another training.")
        for key, value in line.items():
            if not isinstance(value, int | float | dict):
                raise DatasetError(f"{path}: line {number}: {key} is {value!r}; expected a number. Train again.")
    return lines


def kept_epoch(config: Path) -> float | None:
    """Return the epoch whose weights a model folder's config.yaml says it holds, None where it does not say.

    Raises:
        ConfigError: it cannot be read.
    """
    selected = read_overlay(config).get("selected")
    return selected.get("epoch") if isinstance(selected, dict) else None


def draw_curves(
    target: Path,
    history: Sequence[Mapping[str, Any]],
    wanted: Sequence[Panel],
    *,
    clock: str,
    x_label: str,
    marks: Mapping[str, float | None] = MappingProxyType({}),
) -> None:
    """Draw the panels that have data; two a row where there are four, else up to three.

    Args:
        target: file to write, without suffix.
        history: lines of metrics.jsonl.
        wanted: panels in their order.
        clock: key of the x axis.
        x_label: its name.
        marks: what to point out on the x axis: words -> place; None: not known.
    """
    shown = [panel for panel in wanted if any(key in line for line in history for key in panel.curves)]
    columns = 2 if len(shown) == 4 else min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    with figure(target, width_mm=PAGE_MM, rows_mm=[ROW_MM] * rows, columns=columns) as panels:
        if not shown:
            say_empty(panels[0], "The training wrote no history:\nit was shorter than one interval.")
        for panel in panels[max(1, len(shown)) :]:
            panel.remove()
        end = max((line[clock] for line in history), default=1)
        for number, (panel, content) in enumerate(zip(panels, shown, strict=False)):
            present = [key for key in content.curves if any(key in line for line in history)]
            highest = [line[key] for line in history for key in present if key in line]
            for key, line, colour in zip(present, LINES, COLOURS, strict=False):
                points = series(history, clock, key)
                marker = "." if len(points) <= MOST_MARKERS else None
                panel.plot(*points.T, line, marker=marker, color=colour, label=content.curves[key])
            panel.set(xlabel=x_label, ylabel=content.y_label, xlim=(0, 1.02 * end))
            panel.set_ylim(0, ROOM_ABOVE * max(highest, default=1) or 1)
            for text, place in marks.items():
                if place is not None:
                    point_out(panel, place, text if number == 0 else "")
            panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))  # labels of six digits have room
            panel.ticklabel_format(axis="y", scilimits=(-2, 4))
            if len(present) > 1:
                label_ends(panel)
