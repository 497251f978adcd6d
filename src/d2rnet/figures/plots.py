"""One style for all figures: sizes, colours that colour-blind readers can tell apart, SVG and PNG.

Colours: Okabe and Ito, Color Universal Design, 2008; those of the 22 classes, for boxes on radiographs, are our own.
Figures are drawn without a display.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from d2rnet.files.atomic import atomic_path
from d2rnet.findings.classes import CATEGORY_NAMES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
# Chosen greedily so that the nearest pair is as far apart as can be in CIELAB, to normal eyes (least distance 22) and to eyes
# without red or without green cones (13; Machado et al., IEEE TVCG 2009). Lightness 55 to 92: seen on dark lungs, and black
# text is legible on all. The first ones, which differ most, go to the classes that VinDr-CXR has most boxes of.
CLASS_COLOURS = {
    "Aortic enlargement": "#FF9900", "Cardiomegaly": "#7777FF", "Pleural thickening": "#00FFEE",
    "Pulmonary fibrosis": "#EE4455", "Nodule/Mass": "#77BBFF", "Lung Opacity": "#EEEE77", "Pleural effusion": "#FF22AA",
    "Other lesion": "#99EE99", "Infiltration": "#EE8888", "ILD": "#FF3300", "Calcification": "#CC9944",
    "Consolidation": "#7799FF", "Atelectasis": "#AAFF00", "Rib fracture": "#66DDFF", "Mediastinal shift": "#66CCAA",
    "Enlarged PA": "#009955", "Pneumothorax": "#CC88CC", "Emphysema": "#CC55CC", "Lung cavity": "#DD5588",
    "Lung cyst": "#77DD33", "Clavicle fracture": "#00FFBB", "Edema": "#FFAA77",
}  # fmt: skip
PNG_DPI = 150
# What the page of Snakemake shows of a figure on a laptop (1366 x 768); it cuts off the left and the top of a larger one.
REPORT_INCHES = (10.4, 7.0)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "d2rnet",  # the same data gives the same file
    "svg.fonttype": "none",
}


@contextmanager
def figure(
    target: Path,
    *,
    rows: int = 1,
    columns: int = 1,
    shared: bool = False,
    panel_inches: tuple[float, float] = (4.5, 3.2),
    row_inches: Sequence[float] | None = None,
) -> Iterator[list[Axes]]:
    """Yield the panels of a figure, row by row; write ``target`` as SVG and PNG at the end.

    Args:
        target: file to write, without suffix.
        rows: number of rows of panels.
        columns: number of columns.
        shared: all panels have the same axes; their numbers stand at the left and at the bottom only.
        panel_inches: width and height of a panel.
        row_inches: height of each row; None: that of ``panel_inches``.
    """
    with matplotlib.rc_context(STYLE):
        heights = row_inches or [panel_inches[1]] * rows
        drawing = Figure(figsize=(columns * panel_inches[0], sum(heights)), layout="constrained")
        FigureCanvasAgg(drawing)
        yield list(drawing.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared, height_ratios=heights).ravel())
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            with atomic_path(target.with_suffix(suffix)) as temporary:
                drawing.savefig(temporary, dpi=PNG_DPI, metadata=metadata)


def class_colours() -> dict[str, str]:
    """Return the box colour of each class as ``#RRGGBB``, in the order of the class table; black text is legible on each."""
    return {name: CLASS_COLOURS[name] for name in CATEGORY_NAMES}


def series(history: Sequence[Mapping[str, Any]], clock: str, key: str) -> NDArray[np.float64]:
    """Return (L, 2) float64: ``clock`` and ``key`` of the lines of a training's history that have the key."""
    return np.array([(line[clock], line[key]) for line in history if key in line], dtype=np.float64).reshape(-1, 2)


def say_empty(panel: Axes, text: str) -> None:
    """Put a sentence in the middle of a panel that has nothing to show."""
    panel.set_axis_off()
    panel.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=GREY, transform=panel.transAxes)


def remove_unused(panels: Sequence[Axes], used: int, columns: int) -> None:
    """Take the panels that a grid has too many off the figure; the panels above them get their numbers back."""
    for panel in panels[used:]:
        panel.remove()
    for panel in panels[max(0, used - columns) : used]:
        panel.tick_params(labelbottom=True)
