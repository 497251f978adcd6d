"""The figure of stage 1's scores: retrieval beside chance, attention inside structures, similarity, zero-shot AUROC."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.figures.plots import COLOURS, GREY, PAGE_MM, figure

_EVEN = 1.0


def draw_structures(target: Path, metrics: Mapping[str, Any]) -> None:
    """Draw ``target`` (.svg and .png) from the metrics of evaluate-structures."""
    names = list(metrics["structures"])
    rows = list(metrics["structures"].values())
    shown = [name.replace("_", " ") for name in names]
    places = np.arange(len(names))
    with figure(target, width_mm=PAGE_MM, rows_mm=[62.0, 72.0], columns=2) as (retrieval, attention, similarity, zero_shot):
        found = [row["image_to_text_recall_at_5"] or 0 for row in rows]
        ends = _whiskers(found, [row["image_to_text_recall_at_5_interval"] for row in rows])
        retrieval.barh(places, found, xerr=ends, ecolor=GREY, color=COLOURS[0], height=0.6)
        retrieval.plot([row["image_to_text_chance_at_5"] or 0 for row in rows], places, "|", color=COLOURS[1], ms=8, mew=1.2)
        commonest = [row["image_to_text_commonest_at_5"] or 0 for row in rows]
        retrieval.plot(commonest, places, "d", color=COLOURS[4], ms=3)
        retrieval.set_title("own text among the 5 nearest\n| chance, \N{BLACK DIAMOND} commonest 5")
        retrieval.set_xlim(0, 1)
        ratios = [row.get("attention_ratio", np.nan) for row in rows]
        ends = _whiskers(ratios, [row.get("attention_ratio_interval") for row in rows])
        attention.barh(places, ratios, xerr=ends, ecolor=GREY, color=COLOURS[2], height=0.6)
        attention.axvline(_EVEN, color=GREY, linewidth=1)
        attention.set_title("attention inside,\nover the structure's share")
        for panel in (retrieval, attention):
            panel.set_yticks(places, shown)
            panel.set_ylim(len(names) - 0.4, -0.6)
        table = np.array(metrics["similarity_image_to_text"], dtype=float)
        image = similarity.imshow(table, cmap="cividis")
        similarity.figure.colorbar(image, ax=similarity, shrink=0.8)
        similarity.set_title("mean cosine\nobservation (row), text (column)")
        similarity.set_yticks(places, shown)
        similarity.set_xticks(places, [str(place + 1) for place in places])
        similarity.grid(visible=False)
        scored = [(label, one) for label, one in metrics["zero_shot_auroc"].items() if one["auroc"] is not None]
        scored.sort(key=lambda pair: pair[1]["auroc"])
        values = [one["auroc"] for _, one in scored]
        ends = _whiskers(values, [one.get("interval") for _, one in scored])
        zero_shot.barh(np.arange(len(scored)), values, xerr=ends, ecolor=GREY, color=COLOURS[3], height=0.6)
        zero_shot.axvline(0.5, color=GREY, linewidth=1)
        zero_shot.set_yticks(np.arange(len(scored)), [f"{label} ({one['positive']})" for label, one in scored])
        zero_shot.set_xlim(0, 1)
        zero_shot.set_title("zero-shot AUROC, 95 % interval\n(n: volumes that have it)")


def _whiskers(values: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> NDArray[np.float64]:
    """Return (2, S): how far the interval of each value reaches down and up; 0 where there is none."""
    ends = [(value, value) if interval is None else interval for value, interval in zip(values, intervals, strict=True)]
    low, high = np.array(ends, dtype=float).reshape(-1, 2).T  # no abnormality may have been scored
    middle = np.array(values, dtype=float)
    return np.nan_to_num(np.clip([middle - low, high - middle], 0, None))
