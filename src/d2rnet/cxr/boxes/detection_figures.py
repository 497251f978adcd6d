"""Figures of evaluate_detector: precision and recall by class, free-response ROC, calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from d2rnet.cxr.boxes.average_precision import Points, points
from d2rnet.cxr.boxes.coco_scores import REPORTED, unweighted
from d2rnet.cxr.boxes.detection_scores import FROC_RATES, VOC_IOU, Evaluated
from d2rnet.figures.intervals import share_interval
from d2rnet.figures.line_labels import ink, label_ends
from d2rnet.figures.plots import COLOURS, COLUMN_MM, GREY, PAGE_MM, SMALL_POINTS, TEXT_POINTS, figure, remove_unused
from d2rnet.findings.classes import CATEGORY_NAMES

LABELS = {"ema_teacher": "EMA teacher", "student": "student"}
LINES = {"ema_teacher": "-", "student": "--"}  # colour and line differ, for print in grey
COLOUR = dict(zip(LABELS, COLOURS, strict=False))
PR_COLUMNS = 6  # of the 22 classes
PR_ROW_MM = 38.0
MOST_RATE = 10.0  # false positives per image that the figure goes to
FEW = 30  # boxes; the number in a smaller bin is said


def draw_figures(
    folder: Path,
    evaluated: Mapping[str, Evaluated],
    metrics: Mapping[str, Any],
) -> None:
    """Draw all figures of evaluate_detector as SVG and PNG.

    Args:
        folder: where to put them.
        evaluated: network -> its matched detections.
        metrics: content of metrics.json.
    """
    draw_precision_recall(folder / "precision_recall", evaluated, metrics)
    draw_froc(folder / "froc", evaluated, metrics)
    draw_reliability(folder / "reliability", metrics)


def draw_precision_recall(target: Path, evaluated: Mapping[str, Evaluated], metrics: Mapping[str, Any]) -> None:
    """Draw a panel per class with a truth box, best AP50 of the EMA teacher first: precision over recall at IoU >= 0.5."""
    first = next(iter(evaluated.values())).scored
    ap = {name: metrics[name]["per_class_AP50"] for name in evaluated}
    present = sorted(first.present.tolist(), key=lambda category: -(_ap(ap, next(iter(LABELS)), category) or 0))
    columns = min(PR_COLUMNS, len(present))
    rows = -(-len(present) // columns)
    with figure(target, width_mm=PAGE_MM, rows_mm=[PR_ROW_MM] * rows, columns=columns, shared=True) as panels:
        for panel, category in zip(panels, present, strict=False):
            for name, network in evaluated.items():
                at = _once(network.scored.ranking(category, [REPORTED["AP50"]]), first.images)
                marker = "." if len(at.hits) == 1 else None  # a line of one point is invisible
                panel.plot(at.recall, at.precision, LINES[name], color=COLOUR[name], label=LABELS[name], marker=marker)
            boxes = int((first.truth.classes == category).sum())
            found = ", ".join("-" if (value := _ap(ap, name, category)) is None else f"{value:.2f}" for name in LABELS)
            named = CATEGORY_NAMES[category]
            panel.set_title(f"{named}\nAP50 {found}; n {boxes}", fontsize=SMALL_POINTS, loc="left", linespacing=1.3)
        panels[0].set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        remove_unused(panels, len(present), columns)
        whole = panels[0].figure
        whole.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(LABELS))
        whole.supxlabel("recall", fontsize=TEXT_POINTS)
        whole.supylabel("precision (IoU ≥ 0.5)", fontsize=TEXT_POINTS)


def _ap(ap: Mapping[str, Mapping[str, float | None]], network: str, category: int) -> float | None:
    return ap[network].get(CATEGORY_NAMES[category]) if network in ap else None


def _once(ranking: Any, images: int) -> Points:
    """Points of a ranking with each image counted once."""
    return next(points(ranking, unweighted(images)))[0]


def draw_froc(target: Path, evaluated: Mapping[str, Evaluated], metrics: Mapping[str, Any]) -> None:
    """Draw sensitivity over false positives per image, with 95 % intervals at the rates of the protocol."""
    with figure(target, width_mm=COLUMN_MM, rows_mm=[62.0]) as (panel,):
        for name, network in evaluated.items():
            colour = COLOUR[name]
            at = _once(network.pooled_ranking(), network.scored.images)
            rate = (at.detections - at.hits)[:, 0] / network.scored.images
            recall = at.recall[:, 0][rate <= MOST_RATE]
            rate = np.append(rate[rate <= MOST_RATE], MOST_RATE)
            recall = np.append(recall, recall[-1] if len(recall) else 0.0)
            panel.step(rate, recall, LINES[name], where="post", color=colour, label=LABELS[name])
            froc = metrics[name]["froc"]
            known = [interval for interval in froc["intervals"] if interval]
            if len(known) == len(FROC_RATES):
                low, high = np.array(known).T
                panel.fill_between(FROC_RATES, low, high, color=colour, alpha=0.15, linewidth=0)
            panel.plot(FROC_RATES, froc["sensitivity"], "o", color=colour, label="_points")
        panel.set_xscale("log", base=2)
        panel.set_xticks(FROC_RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        panel.set(
            xlim=(1 / 10, MOST_RATE),
            ylim=(0, 1.02),
            xlabel="false positives per image",
            ylabel=f"sensitivity (boxes, IoU > {VOC_IOU})",
        )
        label_ends(panel)


def draw_reliability(target: Path, metrics: Mapping[str, Any]) -> None:
    """Draw the share of boxes that hit over their mean score, with 95 % intervals, and how many boxes each bin holds."""
    with figure(target, width_mm=PAGE_MM, rows_mm=[66.0], columns=2) as (curve, counts):
        curve.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, label="calibrated")
        for name, shift in zip(LABELS, (-0.02, 0.02), strict=True):
            bins = metrics[name]["calibration"]["bins"]
            ece = metrics[name]["calibration"]["ece"]
            label = LABELS[name] + ("" if ece is None else f",\nECE {ece:.3f}")
            _draw_shares(curve, [entry for entry in bins if entry["boxes"]], name, label)
            centres = np.array([(entry["from"] + entry["to"]) / 2 for entry in bins])
            counts.bar(
                centres + shift, [entry["boxes"] for entry in bins], width=0.035, color=COLOUR[name], label=LABELS[name]
            )
        curve.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean score of the bin", ylabel="share of boxes that hit (IoU ≥ 0.5)")
        label_ends(curve)
        counts.set(xlim=(0, 1), xlabel="score", ylabel="boxes")
        counts.set_yscale("symlog")
        counts.yaxis.set_major_formatter(lambda boxes, _: f"{boxes:,.0f}")  # no small exponents
        counts.set_ylim(bottom=0)


def _draw_shares(panel: Axes, bins: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    """Draw a line through the bins, an interval at each, and the number of boxes at those that have few."""
    scores, precision, numbers = ([entry[key] for entry in bins] for key in ("mean_score", "precision", "boxes"))
    panel.plot(scores, precision, LINES[name], marker="o", color=COLOUR[name], label=label)
    ends = [share_interval(round(share * n), n) for share, n in zip(precision, numbers, strict=True)]
    panel.vlines(scores, [low for low, _ in ends], [high for _, high in ends], color=COLOUR[name], linewidth=0.6)
    below = name != next(iter(LABELS))
    for score, share, n in zip(scores, precision, numbers, strict=True):
        if n < FEW:
            away = (2, -6 if below else 2)
            panel.annotate(
                f"n {n}", (score, share), away, textcoords="offset points", fontsize=SMALL_POINTS, color=ink(COLOUR[name])
            )
