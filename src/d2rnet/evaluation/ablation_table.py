"""The table and the figure of an ablation.

An arm's score is the mean over its seeds. Intervals are 95 % percentile bootstrap intervals over studies of that mean, and of
its difference to the reference arm on the same resamples: they cover the choice of test studies, not that of training studies
or seeds. The least and greatest seed stand beside.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.evaluation.ablation_arm import Arm
from d2rnet.evaluation.metric_names import METRICS, Group, Metric, Shown, shown_in
from d2rnet.evaluation.resampling import percentile_interval
from d2rnet.figures import plots
from d2rnet.figures.tables import Table, html_page, markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json

DRAWN = ("lesion22_uncertain_positive_micro_f1", "bleu_4", "cider")
GROUNDING = {
    "hit_rate": "hits",
    "random_hit_rate": "random box",
    "reachable_rate": "best box",
    "true_hit_rate": "hits, lesion is there",
    "true_random_hit_rate": "random box, lesion is there",
    "true_reachable_rate": "best box, lesion is there",
}
COUNTS = ("sentences", "true_sentences", "sentences_of_entries_without_boxes", "entries_without_truth")


def make_document(
    rows: Mapping[str, Arm],
    *,
    reference: str,
    protocol: Mapping[str, Any],
    facts: Mapping[str, Any],
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Return ablation.json.

    Args:
        rows: name -> scored arm or baseline, in the order of the table.
        reference: the arm that others are compared with.
        protocol: text protocol, section, split and n of all scores.
        facts: machine, commits, number of seeds and steps.
        notes: metric -> why it has no value.
    """
    return {
        "protocol": dict(protocol),
        "facts": dict(facts),
        "reference": reference,
        "notes": dict(notes),
        "arms": {name: _row(arm, rows[reference]) for name, arm in rows.items()},
    }


def _row(arm: Arm, reference: Arm) -> dict[str, Any]:
    scores = {}
    for metric, values in arm.scores.items():
        difference = None
        if arm is not reference and metric in reference.scores:
            difference = {
                "value": float(np.mean(values) - np.mean(reference.scores[metric])),
                "interval": percentile_interval(arm.drawn[metric] - reference.drawn[metric]),
            }
        scores[metric] = {
            "value": float(np.mean(values)),
            "interval": percentile_interval(arm.drawn[metric]),
            "seeds": values,
            "difference": difference,
        }
    return {
        "label": arm.label,
        "scores": scores,
        "grounding": _mean_rates(arm.grounding),
        "train_seconds": arm.seconds,
    }


def _mean_rates(grounding: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean over the seeds of each rate, with the values of the seeds; None without grounding."""
    if not grounding:
        return None
    rates = {key: [found[key] for found in grounding] for key in (*GROUNDING, "ratio", *COUNTS)}
    means = {key: None if None in values else float(np.mean(values)) for key, values in rates.items()}
    return {**means, "seeds": rates}


def lay_out(document: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """Return the tables of ablation.json (scores, differences to the reference arm, grounding) and the notes below them."""
    arms = document["arms"]
    known = sorted(shown_in(Shown.ABLATION), key=lambda metric: metric.group is not Group.LESIONS)
    shown = [metric for metric in known if any(metric.key in arm["scores"] for arm in arms.values())]
    scores = [[arm["label"], *(_score(arm["scores"].get(m.key), m) for m in shown), _minutes(arm)] for arm in arms.values()]
    others = [arm for name, arm in arms.items() if name != document["reference"]]
    differences = [[arm["label"], *(_difference(arm["scores"].get(m.key), m) for m in shown)] for arm in others]
    names = [_heading(metric) for metric in shown]
    tables = [
        Table(
            "Mean over the seeds [95 % interval over studies] (least to greatest seed).",
            ("arm", *names, "training, min"),
            scores,
        ),
        Table(
            f"Difference to '{arms[document['reference']]['label']}' [95 % interval over studies].",
            ("arm", *names),
            differences,
        ),
    ]
    grounded = [(arm["label"], arm["grounding"]) for arm in arms.values() if arm["grounding"]]
    if grounded:
        heading = "Grounding: sentences whose attended box lies on a true lesion of the class that they name."
        counts = ("sentences", "sentences_of_entries_without_boxes")
        cells = [
            [label, *(f"{found[key]:.0f}" for key in counts), *(_share(found[key]) for key in GROUNDING)]
            for label, found in grounded
        ]
        tables.append(Table(heading, ("arm", "sentences per seed", "left out: no box", *GROUNDING.values()), cells))
    held = ", ".join(f"{key} {value}" for key, value in (*document["protocol"].items(), *document["facts"].items()))
    return tables, [f"{held}.", *(f"{metric}: {note}." for metric, note in document["notes"].items())]


def as_markdown(document: Mapping[str, Any]) -> str:
    """Lay out ablation.json as Markdown."""
    tables, notes = lay_out(document)
    lines: list[str] = []
    for table in tables:
        lines += [table.heading, "", *markdown_table(table.header, table.rows), ""]
    return "\n".join([*lines, *notes]) + "\n"


def write_table(document: Mapping[str, Any], output: Path) -> None:
    """Print the table; write ablation.json, ablation.md, ablation.html, ablation.svg and ablation.png to ``output``."""
    text = as_markdown(document)
    write_json(output / "ablation.json", document)
    write_text(output / "ablation.md", text)
    write_text(output / "ablation.html", html_page("Ablation of the report model", *lay_out(document)))
    draw(document, output / "ablation")
    print(text, end="")


def _score(score: Mapping[str, Any] | None, metric: Metric) -> str:
    if score is None:
        return "-"
    text = f"{_number(score['value'], metric)} [{', '.join(_number(end, metric) for end in score['interval'])}]"
    seeds = score["seeds"]
    return text + (f" ({_number(min(seeds), metric)} to {_number(max(seeds), metric)})" if len(seeds) > 1 else "")


def _difference(score: Mapping[str, Any] | None, metric: Metric) -> str:
    if score is None or score["difference"] is None:
        return "-"
    found = score["difference"]
    ends = ", ".join(_number(end, metric, sign="+") for end in found["interval"])
    return f"{_number(found['value'], metric, sign='+')} [{ends}]"


def _heading(metric: Metric) -> str:
    return f"{metric.heading}, %" if metric.group is Group.LESIONS else metric.heading


def _number(value: float, metric: Metric, *, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if metric.group is Group.LESIONS else metric.text(value, sign=sign)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _minutes(arm: Mapping[str, Any]) -> str:
    return f"{np.mean(arm['train_seconds']) / 60:.1f}" if arm["train_seconds"] else "-"


def draw(document: Mapping[str, Any], target: Path) -> None:
    """Draw lesion F1, BLEU-4 and CIDEr of every arm with intervals and seeds; write ``target`` as SVG and PNG."""
    arms = list(document["arms"].values())
    places = np.arange(len(arms))[::-1]
    with plots.figure(target, columns=len(DRAWN), shared=False, panel_inches=(3.4, 0.6 + 0.32 * len(arms))) as panels:
        for number, (metric, panel) in enumerate(zip(map(METRICS.__getitem__, DRAWN), panels, strict=True)):
            scale = 100 if metric.group is Group.LESIONS else 1
            for place, arm in zip(places, arms, strict=True):
                score = arm["scores"].get(metric.key)
                if score is None:
                    continue
                shown = {key: scale * np.asarray(score[key]) for key in ("value", "interval", "seeds")}
                panel.plot(shown["interval"], [place, place], color=plots.COLOURS[0], linewidth=2, zorder=2)
                panel.plot(shown["value"], place, "o", color=plots.COLOURS[0], markersize=5, zorder=4)
                panel.plot(shown["seeds"], [place] * len(score["seeds"]), "|", color=plots.COLOURS[1], markersize=8, zorder=3)
            panel.set(xlabel=_heading(metric), ylim=(-0.6, len(arms) - 0.4), yticks=places)
            panel.set_yticklabels([arm["label"] for arm in arms] if number == 0 else [])
