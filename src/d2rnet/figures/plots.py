"""One rule for all figures: as wide as a column or a page of a journal, text of 6 and 7 points at that size, SVG and PNG.

Widths: 89 and 183 mm, those of Nature. Colours: Okabe and Ito, Color Universal Design, 2008; those of the 22 classes,
for boxes on radiographs, are our own. Figures are drawn without a display.
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
COLUMN_MM, PAGE_MM = 89.0, 183.0
MOST_HEIGHT_MM = 170.0  # of a printed page; a laptop shows it whole on the page of Snakemake, too
MM_PER_INCH = 25.4
TEXT_POINTS, SMALL_POINTS = 7.0, 6.0  # names of axes and panels; numbers, labels of lines
PNG_DPI = 300
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": TEXT_POINTS,
    "axes.titlesize": TEXT_POINTS,
    "axes.labelsize": TEXT_POINTS,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": SMALL_POINTS,
    "legend.handlelength": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.4,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3,
    "svg.hashsalt": "d2rnet",  # the same data gives the same file
    "svg.fonttype": "none",
}


@contextmanager
def figure(
    target: Path,
    *,
    width_mm: float,
    rows_mm: Sequence[float],
    columns: int = 1,
    shared: bool = False,
) -> Iterator[list[Axes]]:
    """Yield the panels of a figure, row by row; write ``target`` as SVG and PNG at the end.

    Args:
        target: file to write, without suffix.
        width_mm: of the whole figure as printed: ``COLUMN_MM`` or ``PAGE_MM``.
        rows_mm: height of each row of panels.
        columns: number of columns.
        shared: all panels have the same axes; their numbers stand at the left and at the bottom only.

    Raises:
        ValueError: another width.
    """
    if width_mm not in (COLUMN_MM, PAGE_MM):
        raise ValueError(f"figure {target.name}: width {width_mm} mm; expected {COLUMN_MM:g} or {PAGE_MM:g}.")
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(width_mm / MM_PER_INCH, sum(rows_mm) / MM_PER_INCH), layout="constrained")
        FigureCanvasAgg(drawing)
        panels = drawing.subplots(len(rows_mm), columns, squeeze=False, sharex=shared, sharey=shared, height_ratios=rows_mm)
        yield list(panels.ravel())
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
