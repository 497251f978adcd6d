"""The tables of stage 1's scores, as Markdown that is read on a terminal, too."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2rnet.figures.tables import markdown_table


def score_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Lay out metrics.json of evaluate-structures; return the lines."""

    def shown(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    header = [
        "structure",
        "n",
        "texts",
        "R@1",
        "R@5",
        "95 %",
        "chance@5",
        "commonest@5",
        "text to image R@5",
        "chance@5",
        "rank",
        "texts' rank",
        "false negatives",
    ]
    header += ["attention inside", "times its share", "hit"]
    rows = []
    for name, row in metrics["structures"].items():
        rows.append(
            [
                name,
                str(row["volumes"]),
                str(row["distinct_texts"]),
                shown(row["image_to_text_recall_at_1"]),
                shown(row["image_to_text_recall_at_5"]),
                _ends(row["image_to_text_recall_at_5_interval"]),
                shown(row["image_to_text_chance_at_5"]),
                shown(row["image_to_text_commonest_at_5"]),
                shown(row["text_to_image_recall_at_5"]),
                shown(row["text_to_image_chance_at_5"]),
                shown(row["effective_rank"], 1),
                shown(row["texts_effective_rank"], 1),
                _false_of(row),
                shown(row.get("attention_inside")),
                shown(row.get("attention_ratio"), 1),
                shown(row.get("pointing_hit")),
            ]
        )
    labels = [
        [label, str(one["positive"]), str(one["labelled"]), shown(one["auroc"]), _ends(one.get("interval"))]
        for label, one in metrics["zero_shot_auroc"].items()
    ]
    macro = shown(metrics["zero_shot_auroc_macro"])
    return [
        f"Stage 1 on {metrics['volumes']} test volumes of {metrics['patients']} patients.",
        "",
        *markdown_table(header, rows),
        "",
        *_mask_lines(metrics["masks"]),
        f"Zero-shot AUROC, macro {macro}:",
        "",
        *markdown_table(["abnormality", "positive", "labelled", "AUROC", "95 %"], labels),
    ]


def _mask_lines(compared: Mapping[str, Any] | None) -> list[str]:
    """Return what the columns of attention rest on; nothing without masks."""
    if compared is None:
        return []
    left_out = "".join(f"; left out: {number} ({reason})" for reason, number in compared["left_out"].items())
    return [f"Attention was compared with true masks in {compared['volumes']} volumes{left_out}.", ""]


def _ends(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""


def _false_of(row: Mapping[str, Any]) -> str:
    """Return how many of a batch's negatives of a structure are false."""
    if row["batch_negatives"] is None:
        return ""
    return f"{row['batch_false_negatives']:.1f} of {row['batch_negatives']:.1f}"
