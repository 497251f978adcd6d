"""Curves of both trainings from their metrics.jsonl: losses, learning rate, validation scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from d2rnet.errors import DatasetError
from d2rnet.figures.plots import COLOURS, GREY, REPORT_INCHES, figure, say_empty, series
from d2rnet.files.documents import read_jsonl

DETECTOR_CLOCK = "iterations_done"
REPORT_CLOCK = "epoch"
ROOM_FOR_LEGEND = 1.4  # of the highest value
PANEL_INCHES = (REPORT_INCHES[0] / 3, 2.8)
MOST_MARKERS = 40  # longer curves are drawn without a marker per point


@dataclass(frozen=True)
class Panel:
    """What one panel shows: the keys of its curves with their names, and the name and unit of its y axis."""

    y_label: str
    curves: Mapping[str, str]


DETECTOR_PANELS = (
    Panel(
        "unweighted loss, labelled images",
        {
            "loss_cls": "class",
            "loss_box_reg": "box",
            "loss_box_nll": "box uncertainty",
            "loss_rpn_cls": "proposal: object or not",
            "loss_rpn_loc": "proposal: place",
        },
    ),
    Panel(
        "unweighted loss, pseudo boxes",
        {"loss_cls_pseudo": "class", "loss_box_reg_pseudo": "box", "loss_rpn_cls_pseudo": "proposal: object or not"},
    ),
    Panel("AP50, validation split", {"validation_ema_teacher_AP50": "EMA teacher", "validation_student_AP50": "student"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)
REPORT_PANELS = (
    Panel("loss (nats per token)", {"train_loss": "training split", "val_loss": "validation split"}),
    Panel("alignment loss, weight included", {"local_alignment_loss": "local (LAB)", "global_alignment_loss": "global (GAB)"}),
    Panel("BLEU-4, greedy, validation split", {"val_bleu_4": "BLEU-4"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)
LINES = ("-", "--", "-.", ":", "-")  # colour and line differ, for print in grey


def read_history(path: Path, clock: str) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a training.

    Args:
        path: the file; it may be empty.
        clock: key that every line has: ``iterations_done`` or ``epoch``.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: a line lacks the clock, or a value is neither a number nor, by class, an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet train-detector' or 'd2rnet train-report-model'.")
    lines = list(read_jsonl(path))
    for number, line in enumerate(lines, start=1):
        if clock not in line:
            raise DatasetError(f"{path}: line {number} lacks '{clock}'; expected the history of another training.")
        for key, value in line.items():
            if not isinstance(value, int | float | dict):
                raise DatasetError(f"{path}: line {number}: {key} is {value!r}; expected a number. Train again.")
    return lines


def draw_detector_training(target: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the losses of train-detector, its validation scores where there are any, and its learning rate."""
    _draw(target, history, DETECTOR_PANELS, clock=DETECTOR_CLOCK, x_label="iterations", mark=None)


def draw_report_training(target: Path, history: Sequence[Mapping[str, Any]], kept_epoch: float | None) -> None:
    """Draw the losses of train-report-model, its validation score where there is one, and its learning rate.

    Args:
        target: file to write, without suffix.
        history: lines of metrics.jsonl.
        kept_epoch: epoch whose weights were kept; None: not marked.
    """
    _draw(target, history, REPORT_PANELS, clock=REPORT_CLOCK, x_label="epochs", mark=kept_epoch)


def _draw(
    target: Path,
    history: Sequence[Mapping[str, Any]],
    wanted: Sequence[Panel],
    *,
    clock: str,
    x_label: str,
    mark: float | None,
) -> None:
    """Draw the panels that have data, up to three in one row, else two per row; ``mark`` is an x to point out."""
    shown = [panel for panel in wanted if any(key in line for line in history for key in panel.curves)]
    columns = max(1, len(shown)) if len(shown) <= 3 else 2
    with figure(target, rows=max(1, -(-len(shown) // columns)), columns=columns, panel_inches=PANEL_INCHES) as panels:
        if not shown:
            say_empty(panels[0], "The training wrote no history:\nit was shorter than one interval.")
        for panel in panels[max(1, len(shown)) :]:
            panel.remove()
        end = max((line[clock] for line in history), default=1)
        for number, (panel, content) in enumerate(zip(panels, shown, strict=False)):
            present = [key for key in content.curves if any(key in line for line in history)]
            for key, line, colour in zip(present, LINES, COLOURS, strict=False):
                points = series(history, clock, key)
                marker = "." if len(points) <= MOST_MARKERS else None
                panel.plot(*points.T, line, marker=marker, color=colour, label=content.curves[key])
            if mark is not None:
                panel.axvline(mark, color=GREY, linewidth=1, label=f"weights kept: epoch {mark:g}")
            panel.set(xlabel=x_label, ylabel=content.y_label, xlim=(0, 1.02 * end))
            panel.set_ylim(0, ROOM_FOR_LEGEND * panel.get_ylim()[1])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.ticklabel_format(axis="y", scilimits=(-2, 4))
            if len(present) > 1 or (mark is not None and number == 0):
                panel.legend(fontsize=7)
