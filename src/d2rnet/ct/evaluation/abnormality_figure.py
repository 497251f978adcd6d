"""The figure of the 18 abnormalities in generated reports: F1 of each with its n, and how often it is named and should be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from d2rnet.ct.evaluation.metric_table import HEADLINE, OWN
from d2rnet.figures.intervals import share_interval
from d2rnet.figures.plots import COLOURS, PAGE_MM, figure, say_empty

AGAINST_REFERENCES = f"{OWN}_vs_report_{HEADLINE}"


def named_abnormalities(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return abnormality -> ``true, claimed, precision, recall, f1`` against the references, the most frequent first.

    Args:
        metrics: metrics.json of evaluate-ct-reports.
    """
    found = metrics["labels"][AGAINST_REFERENCES]["per_class"]
    return dict(sorted(found.items(), key=lambda item: (-item[1]["true"], item[0])))


def draw_abnormalities(target: Path, metrics: Mapping[str, Any]) -> None:
    """Draw ``target`` (.svg and .png) from the metrics of evaluate-ct-reports; without any abnormality a sentence says so."""
    found = named_abnormalities(metrics)
    places = np.arange(len(found))
    with figure(target, width_mm=PAGE_MM, rows_mm=[30.0 + 5.0 * len(found)], columns=2) as (scores, counts):
        if not found:
            for panel in (scores, counts):
                say_empty(panel, "No report, generated or reference,\nnames an abnormality.")
            return
        rows = found.values()
        scores.barh(places, [row["f1"] or 0 for row in rows], color=COLOURS[0], height=0.6, label="F1")
        for key, of, shift, colour in (("precision", "claimed", -0.14, COLOURS[1]), ("recall", "true", 0.14, COLOURS[6])):
            values = [np.nan if row[key] is None else row[key] for row in rows]
            ends = [share_interval(round((row[key] or 0) * row[of]), row[of]) for row in rows]
            scores.hlines(places + shift, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=0.6)
            scores.plot(values, places + shift, "o", color=colour, label=f"{key}, 95 % interval", clip_on=False)
        scores.set(xlim=(0, 1), xlabel=f"named in the generated report, of {metrics['protocol']['n_volumes']} volumes")
        scores.set_yticks(places, [f"{name} ({row['true']})" for name, row in found.items()])
        counts.barh(places - 0.2, [row["true"] for row in rows], color=COLOURS[2], height=0.38, label="in references")
        counts.barh(places + 0.2, [row["claimed"] for row in rows], color=COLOURS[3], height=0.38, label="in generated")
        counts.set(xlabel="reports that name it")
        counts.set_yticks(places, [""] * len(found))
        for panel in (scores, counts):
            panel.set_ylim(len(found) - 0.4, -0.6)
            panel.grid(axis="y", visible=False)
            handles, labels = panel.get_legend_handles_labels()
            panel.legend(
                handles[::-1], labels[::-1], loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=len(labels)
            )
        counts.xaxis.set_major_locator(MaxNLocator(integer=True))
