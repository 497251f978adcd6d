"""Curves of both trainings from their metrics.jsonl: losses, pseudo boxes, learning rate, validation scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.figures.curves import EPOCH, Panel, draw_curves
from d2rnet.files.documents import read_json

DETECTOR_CLOCK = "iterations_done"

DETECTOR_PANELS = (
    Panel(
        "unweighted loss, labelled images",
        {
            "loss_cls": "class",
            "loss_box_reg": "box",
            "loss_box_nll": "uncertainty",
            "loss_rpn_cls": "proposal",
            "loss_rpn_loc": "its place",
        },
    ),
    Panel(
        "unweighted loss, pseudo boxes",
        {"loss_cls_pseudo": "class", "loss_box_reg_pseudo": "box", "loss_rpn_cls_pseudo": "proposal"},
    ),
    Panel("boxes per image", {"labelled_boxes_per_image": "labelled", "pseudo_boxes_per_image": "pseudo boxes"}),
    Panel("images with pseudo boxes, share", {"unlabelled_with_pseudo_boxes": "share of the images"}),
    Panel("AP50, validation split", {"validation_ema_teacher_AP50": "EMA teacher", "validation_student_AP50": "student"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)
REPORT_PANELS = (
    Panel("loss (nats per token)", {"train_loss": "training", "val_loss": "validation"}),
    Panel("losses of looking", {"pointer_loss": "pointer", "lesion_loss": "findings", "side_words_loss": "sides"}),
    Panel("alignment loss, weight included", {"local_alignment_loss": "local", "global_alignment_loss": "global"}),
    Panel("BLEU-4, greedy, validation split", {"val_bleu_4": "BLEU-4"}),
    Panel("reward", {"self_critical_reward": "drawn", "self_critical_baseline": "greedy", "val_reward": "greedy, validation"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)


def burn_in_end(run: Path) -> float | None:
    """Return the iteration after which the EMA teacher drew pseudo boxes, by run.json of train-detector; None: it is silent.

    Raises:
        FileNotFoundError: there is no such file.
    """
    settings = read_json(run).get("settings", {})
    return settings.get("training", {}).get("burn_in_iters")


def draw_detector_training(target: Path, history: Sequence[Mapping[str, Any]], burn_in_end: float | None) -> None:
    """Draw the losses of train-detector, its pseudo boxes, its validation scores where there are any, and its learning rate.

    Args:
        target: file to write, without suffix.
        history: lines of metrics.jsonl.
        burn_in_end: iteration that mutual learning began at; None: not known.
    """
    marks = {"end of burn-in": burn_in_end}
    draw_curves(target, history, DETECTOR_PANELS, clock=DETECTOR_CLOCK, x_label="iterations", marks=marks)


def draw_report_training(target: Path, history: Sequence[Mapping[str, Any]], kept_epoch: float | None) -> None:
    """Draw the losses of train-report-model, its validation score where there is one, and its learning rate.

    Args:
        target: file to write, without suffix.
        history: lines of metrics.jsonl.
        kept_epoch: epoch whose weights were kept; None: not marked.
    """
    marks = {f"weights kept: epoch {kept_epoch}": kept_epoch}
    draw_curves(target, history, REPORT_PANELS, clock=EPOCH, x_label="epochs", marks=marks)
