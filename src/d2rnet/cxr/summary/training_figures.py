"""Curves of both trainings from their metrics.jsonl: losses, learning rate, validation scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.figures.curves import EPOCH, Panel, draw_curves

DETECTOR_CLOCK = "iterations_done"

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


def draw_detector_training(target: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the losses of train-detector, its validation scores where there are any, and its learning rate."""
    draw_curves(target, history, DETECTOR_PANELS, clock=DETECTOR_CLOCK, x_label="iterations")


def draw_report_training(target: Path, history: Sequence[Mapping[str, Any]], kept_epoch: float | None) -> None:
    """Draw the losses of train-report-model, its validation score where there is one, and its learning rate.

    Args:
        target: file to write, without suffix.
        history: lines of metrics.jsonl.
        kept_epoch: epoch whose weights were kept; None: not marked.
    """
    draw_curves(target, history, REPORT_PANELS, clock=EPOCH, x_label="epochs", mark=kept_epoch)
