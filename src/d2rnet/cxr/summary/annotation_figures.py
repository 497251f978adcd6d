"""What the report model sees of annotation.json: pseudo boxes per class, their scores, boxes per entry."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from d2rnet.figures.line_labels import ink
from d2rnet.figures.plots import COLOURS, PAGE_MM, SMALL_POINTS, figure
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import Entry

SCORE_BINS = 20


def draw_annotation(target: Path, splits: Mapping[str, Sequence[Entry]]) -> None:
    """Draw number per class, scores, and boxes per entry of all pseudo boxes in annotation.json.

    Args:
        target: file to write, without suffix.
        splits: split -> entries of annotation.json.
    """
    entries = [entry for part in splits.values() for entry in part]
    by_class = Counter(label for entry in entries for label in entry["labels"])
    names = sorted(CATEGORY_NAMES, key=lambda name: (by_class[name], name))
    with figure(target, width_mm=PAGE_MM, rows_mm=[78.0], columns=3) as (classes, scores, counts):
        classes.barh(names, [by_class[name] for name in names], color=COLOURS[0])
        classes.grid(axis="y", visible=False)
        classes.set(xlabel="pseudo boxes kept", title=f"{by_class.total():,} boxes, {len(entries):,} entries")
        for row, name in enumerate(names):
            classes.annotate(f" {by_class[name]:,}", (by_class[name], row), va="center", fontsize=SMALL_POINTS)
        classes.margins(x=0.16)
        found = np.array([score for entry in entries for score in entry["scores"]], dtype=np.float64)
        scores.hist(found, bins=np.linspace(0, 1, SCORE_BINS + 1).tolist(), color=COLOURS[0])
        scores.set(xlim=(0, 1), xlabel="score", ylabel="pseudo boxes")
        for shift, (split, part) in enumerate(splits.items()):
            number = Counter(len(entry["boxes"]) for entry in part)
            values = np.arange(max(number, default=0) + 1)
            share = [number[int(value)] / max(1, len(part)) for value in values]
            place = values + 0.27 * (shift - (len(splits) - 1) / 2)
            counts.bar(place, share, width=0.25, color=COLOURS[shift], label=f"{split}, n {len(part):,}")
        counts.set(xlabel="boxes per entry", ylabel="share of the entries of the split")
        counts.xaxis.set_major_locator(MaxNLocator(integer=True))
        words: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": SMALL_POINTS, "transform": counts.transAxes}
        for shift, (split, part) in enumerate(splits.items()):
            counts.text(1, 1 - 0.06 * shift, f"{split}, n {len(part):,}", color=ink(COLOURS[shift]), **words)
