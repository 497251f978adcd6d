"""The table and the figure of an ablation.

An arm's score is the mean over its seeds. Intervals are 95 % percentile bootstrap intervals over studies, or patients, of that
mean, and of its difference to the reference arm on the same resamples: they cover the choice of test studies, not that of
training studies or seeds. The least and greatest seed stand beside. Differences are over the seeds that both arms have: an arm
of one seed is not set beside the mean of others. Tables say how many seeds a number is over. A baseline, which has no seed, is
set beside all. A second interval of a difference over several seeds covers the seeds, too.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from d2rnet.evaluation.ablation_arm import BASELINE, Arm
from d2rnet.evaluation.ablation_cells import SEED
from d2rnet.evaluation.metric_names import Group, Metric
from d2rnet.evaluation.resampling import percentile_interval, seeds_interval
from d2rnet.figures import plots
from d2rnet.figures.tables import Table, html_page, markdown_table
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json

CSV_HEADER = (
    *("arm", "label", "metric", "value", "low", "high", "seeds"),
    *("difference", "difference_low", "difference_high"),
    *("difference_seeds_low", "difference_seeds_high", "difference_of_seeds"),
)
OF_SEEDS = (
    "A difference is over the seeds that an arm shares with '{reference}' ({seeds}), as many as its column says. The means "
    "above are over all seeds of an arm, so their difference may be another. A baseline has no seeds and is set beside all."
)


@dataclass(frozen=True)
class RateTable:
    """A further table: means over the seeds of what was measured beside the scores of the reports.

    Attributes:
        key: of an arm in ablation.json.
        heading: above the table.
        columns: rate -> its heading and format.
        others: rates that ablation.json alone has.
    """

    key: str
    heading: str
    columns: Mapping[str, tuple[str, str]]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How the ablation of one modality is shown.

    Attributes:
        title: of the page.
        metrics: key -> metric, in the order of the table.
        drawn: keys of the metrics in the figure.
        resampled: what intervals are over.
        rates: the further table.
    """

    title: str
    metrics: Mapping[str, Metric]
    drawn: tuple[str, ...]
    resampled: str
    rates: RateTable


def make_document(
    rows: Mapping[str, Arm],
    layout: Layout,
    *,
    reference: str,
    protocol: Mapping[str, Any],
    facts: Mapping[str, Any],
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Return ablation.json.

    Args:
        rows: name -> scored arm or baseline, in the order of the table.
        layout: of the modality.
        reference: the arm that others are compared with.
        protocol: text protocol, section, split and n of all scores.
        facts: machine, commits and number of steps.
        notes: metric -> why it has no value.
    """
    return {
        "protocol": dict(protocol),
        "facts": dict(facts),
        "reference": reference,
        "notes": dict(notes),
        "arms": {name: _row(arm, rows[reference], layout.rates) for name, arm in rows.items()},
    }


def _row(arm: Arm, reference: Arm, rates: RateTable) -> dict[str, Any]:
    scores = {}
    for metric, values in arm.scores.items():
        value, drawn = arm.mean(metric, [*values])
        scores[metric] = {
            "value": value,
            "interval": percentile_interval(drawn),
            "seeds": [*values.values()],
            "difference": None if arm is reference else _difference_to(reference, arm, metric),
        }
    return {
        "label": arm.label,
        "seeds": _numbers(arm.seeds),
        "scores": scores,
        rates.key: _mean_rates(arm.rates, rates),
        "train_seconds": arm.seconds,
    }


def _numbers(seeds: Iterable[str]) -> list[int]:
    return [int(seed.removeprefix(SEED)) for seed in seeds]


def _difference_to(reference: Arm, arm: Arm, metric: str) -> dict[str, Any] | None:
    """Return the difference of an arm to the reference, over the seeds of both; None where the reference has no such score."""
    if metric not in reference.scores:
        return None
    own, others = [*arm.scores[metric]], [*reference.scores[metric]]
    both = [seed for seed in own if seed in others]
    value, drawn = arm.mean(metric, both or own)
    of_reference, reference_drawn = reference.mean(metric, both or others)
    differences = drawn - reference_drawn  # (S,)
    pairs = [(seed, seed) for seed in both] or [(seed, other) for seed in own for other in others if seed == BASELINE]
    of_seeds = [arm.scores[metric][seed] - reference.scores[metric][other] for seed, other in pairs]
    return {
        "value": value - of_reference,
        "interval": percentile_interval(differences),
        "interval_seeds": seeds_interval(of_seeds, differences),
        "seeds": _numbers(both or (others if own == [BASELINE] else ())),
    }


def _mean_rates(found: list[dict[str, Any]], rates: RateTable) -> dict[str, Any] | None:
    """Mean over the seeds of each rate, with the values of the seeds; None where there are none."""
    if not found:
        return None
    seeds = {key: [one[key] for one in found] for key in (*rates.columns, *rates.others)}
    means = {key: None if None in values else float(np.mean(values)) for key, values in seeds.items()}
    return {**means, "seeds": seeds}


def lay_out(document: Mapping[str, Any], layout: Layout) -> tuple[list[Table], list[str]]:
    """Return the tables of ablation.json (scores, differences to the reference arm, rates) and the notes below them."""
    arms = document["arms"]
    reference = arms[document["reference"]]
    shown = [metric for metric in layout.metrics.values() if any(metric.key in arm["scores"] for arm in arms.values())]
    scores = [
        [arm["label"], _count(arm), *(_score(arm["scores"].get(m.key), m) for m in shown), _minutes(arm)]
        for arm in arms.values()
    ]
    others = [arm for name, arm in arms.items() if name != document["reference"]]
    differences = [
        [arm["label"], _count(arm, reference), *(_difference(arm["scores"].get(m.key), m) for m in shown)] for arm in others
    ]
    names = [_heading(metric) for metric in shown]
    tables = [
        Table(
            f"Mean over the seeds [95 % interval over {layout.resampled}] (least to greatest seed).",
            ("arm", "seeds", *names, "training, min"),
            scores,
        ),
        Table(
            f"Difference to '{reference['label']}' [95 % interval over {layout.resampled} and seeds; "
            f"with one seed over {layout.resampled} alone].",
            ("arm", "seeds", *names),
            differences,
        ),
    ]
    rates = layout.rates
    measured = [(arm["label"], arm[rates.key]) for arm in arms.values() if arm[rates.key]]
    if measured:
        cells = [[label, *(_rate(found[key], form) for key, (_, form) in rates.columns.items())] for label, found in measured]
        tables.append(Table(rates.heading, ("arm", *(name for name, _ in rates.columns.values())), cells))
    held = ", ".join(f"{key} {value}" for key, value in (*document["protocol"].items(), *document["facts"].items()))
    of_seeds = OF_SEEDS.format(reference=reference["label"], seeds=", ".join(map(str, reference["seeds"])))
    return tables, [of_seeds, f"{held}.", *(f"{metric}: {note}." for metric, note in document["notes"].items())]


def _count(arm: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> str:
    """Return how many seeds an arm has, or shares with another; "-" for a baseline, which has none."""
    seeds = arm["seeds"]
    return str(len([seed for seed in seeds if other is None or seed in other["seeds"]])) if seeds else "-"


def as_markdown(document: Mapping[str, Any], layout: Layout) -> str:
    """Lay out ablation.json as Markdown."""
    tables, notes = lay_out(document, layout)
    lines: list[str] = []
    for table in tables:
        lines += [table.heading, "", *markdown_table(table.header, table.rows), ""]
    return "\n".join([*lines, *notes]) + "\n"


def as_csv(document: Mapping[str, Any]) -> str:
    """Lay out the scores of ablation.json as CSV, a line for each arm and metric; seeds have spaces between them."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_HEADER)
    table.writerows(_csv_rows(document))
    return text.getvalue()


def _csv_rows(document: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, arm in document["arms"].items():
        for metric, score in arm["scores"].items():
            found = score["difference"] or {"value": None, "interval": None, "interval_seeds": None, "seeds": ()}
            ends = [*(score["interval"] or (None, None))]
            of_difference = [found["value"]]
            for interval in (found["interval"], found["interval_seeds"]):
                of_difference += interval or (None, None)
            of_difference.append(" ".join(map(str, found["seeds"])))
            yield [name, arm["label"], metric, score["value"], *ends, " ".join(map(str, score["seeds"])), *of_difference]


def write_table(document: Mapping[str, Any], layout: Layout, output: Path) -> None:
    """Print the table; write ablation.json and, to show it, .md, .csv, .html, .svg and .png of that name to ``output``."""
    text = as_markdown(document, layout)
    write_json(output / "ablation.json", document)
    write_text(output / "ablation.md", text)
    write_text(output / "ablation.csv", as_csv(document))
    write_text(output / "ablation.html", html_page(layout.title, *lay_out(document, layout)))
    draw(document, layout, output / "ablation")
    print(text, end="")


def _score(score: Mapping[str, Any] | None, metric: Metric) -> str:
    if score is None:
        return "-"
    text = _number(score["value"], metric) + _ends(score["interval"], metric)
    seeds = score["seeds"]
    return text + (f" ({_number(min(seeds), metric)} to {_number(max(seeds), metric)})" if len(seeds) > 1 else "")


def _difference(score: Mapping[str, Any] | None, metric: Metric) -> str:
    if score is None or score["difference"] is None:
        return "-"
    found = score["difference"]
    return _number(found["value"], metric, sign="+") + _ends(found["interval_seeds"] or found["interval"], metric, sign="+")


def _ends(interval: list[float] | None, metric: Metric, *, sign: str = "") -> str:
    """Return an interval as shown behind its value; nothing where no resample has a value."""
    return f" [{', '.join(_number(end, metric, sign=sign) for end in interval)}]" if interval else ""


def _heading(metric: Metric) -> str:
    return metric.heading if metric.group is Group.WORDS else f"{metric.heading}, %"


def _number(value: float, metric: Metric, *, sign: str = "") -> str:
    return metric.text(value, sign=sign) if metric.group is Group.WORDS else f"{100 * value:{sign}.1f}"


def _rate(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _minutes(arm: Mapping[str, Any]) -> str:
    return f"{np.mean(arm['train_seconds']) / 60:.1f}" if arm["train_seconds"] else "-"


def draw(document: Mapping[str, Any], layout: Layout, target: Path) -> None:
    """Draw some scores of every arm with intervals and seeds; write ``target`` as SVG and PNG."""
    arms = list(document["arms"].values())
    places = np.arange(len(arms))[::-1]
    height = 16.0 + 5.5 * len(arms)
    with plots.figure(target, width_mm=plots.PAGE_MM, rows_mm=[height], columns=len(layout.drawn)) as panels:
        for number, (metric, panel) in enumerate(zip(map(layout.metrics.__getitem__, layout.drawn), panels, strict=True)):
            scale = 1 if metric.group is Group.WORDS else 100
            for place, arm in zip(places, arms, strict=True):
                score = arm["scores"].get(metric.key)
                if score is None:
                    continue
                shown = {key: scale * np.asarray(score[key] or []) for key in ("interval", "seeds")}
                panel.plot(
                    shown["interval"], [place] * len(shown["interval"]), color=plots.COLOURS[0], linewidth=1.2, zorder=2
                )
                panel.plot(scale * score["value"], place, "o", color=plots.COLOURS[0], zorder=4)
                panel.plot(shown["seeds"], [place] * len(score["seeds"]), "|", color=plots.COLOURS[1], markersize=6, zorder=3)
            panel.set(xlabel=_heading(metric), ylim=(-0.6, len(arms) - 0.4), yticks=places)
            panel.set_yticklabels([arm["label"] for arm in arms] if number == 0 else [])
        keys = [
            Line2D([], [], marker="o", linestyle="", color=plots.COLOURS[0], label="mean over the seeds"),
            Line2D([], [], color=plots.COLOURS[0], linewidth=1.2, label=f"95 % interval over {layout.resampled}"),
            Line2D([], [], marker="|", linestyle="", color=plots.COLOURS[1], markersize=6, label="one seed"),
        ]
        panels[0].figure.legend(handles=keys, loc="outside lower right", ncols=len(keys))
