"""Figures of evaluate_detector: precision and recall by class, free-response ROC, calibration, pseudo boxes over training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.cxr.boxes.average_precision import Points, points
from d2rnet.cxr.boxes.coco_scores import REPORTED, unweighted
from d2rnet.cxr.boxes.detection_scores import FROC_RATES, VOC_IOU, Evaluated
from d2rnet.figures.plots import COLOURS, GREY, REPORT_INCHES, figure, remove_unused, say_empty, series
from d2rnet.findings.classes import CATEGORY_NAMES

LABELS = {"ema_teacher": "EMA teacher", "student": "student"}
LINES = {"ema_teacher": "-", "student": "--"}  # colour and line differ, for print in grey
COLOUR = dict(zip(LABELS, COLOURS, strict=False))
PR_COLUMNS = 5  # of the 22 classes
PR_ROWS = 5
PR_PANEL = (REPORT_INCHES[0] / PR_COLUMNS, REPORT_INCHES[1] / PR_ROWS)
CLOCK = "iterations_done"  # of metrics.jsonl


def draw_figures(
    folder: Path,
    evaluated: Mapping[str, Evaluated],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Draw all figures of evaluate_detector as SVG and PNG.

    Args:
        folder: where to put them.
        evaluated: network -> its matched detections.
        metrics: content of metrics.json.
        history: lines of metrics.jsonl of train-detector; may be empty.
    """
    draw_precision_recall(folder / "precision_recall", evaluated)
    draw_froc(folder / "froc", evaluated, metrics)
    draw_reliability(folder / "reliability", metrics)
    draw_pseudo_boxes(folder / "pseudo_boxes", history)


def draw_precision_recall(target: Path, evaluated: Mapping[str, Evaluated]) -> None:
    """Draw a panel per class with a truth box: precision over recall at IoU >= 0.5."""
    first = next(iter(evaluated.values())).scored
    present = first.present.tolist()
    columns = min(PR_COLUMNS, len(present))
    rows = -(-len(present) // columns)
    with figure(target, rows=rows, columns=columns, shared=True, panel_inches=PR_PANEL) as panels:
        for panel, category in zip(panels, present, strict=False):
            for name, network in evaluated.items():
                at = _once(network.scored.ranking(category, [REPORTED["AP50"]]), first.images)
                marker = "." if len(at.hits) == 1 else None  # a line of one point is invisible
                panel.plot(at.recall, at.precision, LINES[name], color=COLOUR[name], label=LABELS[name], marker=marker)
            boxes = int((first.truth.classes == category).sum())
            panel.set_title(f"{CATEGORY_NAMES[category]} ({boxes})", fontsize=8)
        panels[0].set(xlim=(0, 1.02), ylim=(0, 1.02))
        panels[0].legend(loc="upper right", fontsize=7)
        remove_unused(panels, len(present), columns)
        panels[0].figure.supxlabel("recall: share of the boxes found", fontsize=9)
        panels[0].figure.supylabel("precision: share of detections that hit (IoU ≥ 0.5)", fontsize=9)


def _once(ranking: Any, images: int) -> Points:
    """Points of a ranking with each image counted once."""
    return next(points(ranking, unweighted(images)))[0]


def draw_froc(target: Path, evaluated: Mapping[str, Evaluated], metrics: Mapping[str, Any]) -> None:
    """Draw sensitivity over false positives per image, with 95 % intervals at the rates of the protocol."""
    with figure(target) as (panel,):
        for name, network in evaluated.items():
            colour = COLOUR[name]
            at = _once(network.pooled_ranking(), network.scored.images)
            rate = (at.detections - at.hits)[:, 0] / network.scored.images
            panel.step(rate, at.recall[:, 0], LINES[name], where="post", color=colour, label=LABELS[name])
            froc = metrics[name]["froc"]
            known = [interval for interval in froc["intervals"] if interval]
            if len(known) == len(FROC_RATES):
                low, high = np.array(known).T
                panel.fill_between(FROC_RATES, low, high, color=colour, alpha=0.15, linewidth=0)
            panel.plot(FROC_RATES, froc["sensitivity"], "o", color=colour, markersize=3)
        panel.set_xscale("log", base=2)
        panel.set_xticks(FROC_RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        panel.set(
            xlim=(1 / 10, 10),
            ylim=(0, 1.02),
            xlabel="false positives per image",
            ylabel=f"sensitivity (boxes, IoU > {VOC_IOU})",
        )
        panel.legend(loc="lower right")


def draw_reliability(target: Path, metrics: Mapping[str, Any]) -> None:
    """Draw the share of boxes that hit over their mean score, and how many boxes each bin holds."""
    with figure(target, columns=2, panel_inches=(3.6, 3.2)) as (curve, counts):
        curve.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
        for name, shift in zip(LABELS, (-0.02, 0.02), strict=True):
            bins = metrics[name]["calibration"]["bins"]
            full = [entry for entry in bins if entry["boxes"]]
            ece = metrics[name]["calibration"]["ece"]
            label = LABELS[name] + ("" if ece is None else f", ECE {ece:.3f}")
            scores, precision = ([entry[key] for entry in full] for key in ("mean_score", "precision"))
            curve.plot(scores, precision, LINES[name], marker="o", markersize=3, color=COLOUR[name], label=label)
            centres = np.array([(entry["from"] + entry["to"]) / 2 for entry in bins])
            counts.bar(
                centres + shift, [entry["boxes"] for entry in bins], width=0.035, color=COLOUR[name], label=LABELS[name]
            )
        curve.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean score of the bin", ylabel="share of boxes that hit (IoU ≥ 0.5)")
        curve.legend(loc="upper left", fontsize=7)
        counts.set(xlim=(0, 1), xlabel="score", ylabel="boxes")
        counts.set_yscale("symlog")
        counts.set_ylim(bottom=0)


def draw_pseudo_boxes(target: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw pseudo boxes per image beside labelled ones, and the share of unlabelled images with any, over iterations."""
    with figure(target, columns=2, panel_inches=(3.8, 3.0)) as (boxes, share):
        labelled, pseudo = (series(history, CLOCK, f"{kind}_boxes_per_image") for kind in ("labelled", "pseudo"))
        if not len(pseudo):
            say_empty(boxes, "No pseudo box was drawn:\nthe run had no mutual learning.")
            share.remove()
            return
        boxes.plot(*labelled.T, "--", color=COLOURS[1], label="labelled (views of the student)")
        boxes.plot(*pseudo.T, "-", marker=".", color=COLOURS[0], label="pseudo boxes")
        boxes.set(xlabel="iterations", ylabel="boxes per image")
        share.plot(*series(history, CLOCK, "unlabelled_with_pseudo_boxes").T, "-", marker=".", color=COLOURS[0])
        share.set(xlabel="iterations", ylabel="share of images with a pseudo box", ylim=(0, 1.02))
        for panel in (boxes, share):
            panel.set_xlim(left=0)
        boxes.set_ylim(bottom=0)
        boxes.legend(fontsize=7)
