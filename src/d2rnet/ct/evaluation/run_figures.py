"""draw_ct_figures: figures and tables of a finished chest CT run, for the Snakemake report and for papers.

Reads: metrics.jsonl and config.yaml of both trainings, summary.json. Writes: SVG, PNG and HTML files
(docs/reference/formats.md), run.json. What stage 1 observes, evaluate_structures draws itself.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.ct.evaluation.abnormality_figure import draw_abnormalities, named_abnormalities
from d2rnet.errors import DatasetError
from d2rnet.figures.curves import EPOCH, Panel, draw_curves, kept_epoch, read_history
from d2rnet.figures.summary_lines import number
from d2rnet.figures.tables import Table, html_page
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
HISTORY = "metrics.jsonl"
CONFIG = "config.yaml"
SUMMARY_KEYS = ("synthetic", "structure_table", "table", "reports")
SYNTHETIC = "The cohort is synthetic: these numbers show that the machinery learns, never that it is good medicine."
STRUCTURE_PANELS = (
    Panel("contrast (nats per observation)", {"contrast_loss": "training", "val_loss": "validation"}),
    Panel(
        "validation split",
        {"val_recall_at_1": "own text\nnearest, share", "val_mean_length": "mean observation,\nlength"},
    ),
    Panel(
        "share in the queues",
        {
            "queue_fill": "places taken",
            "queue_normal_share": "normal texts",
            "queue_normal_share_greatest": "normal texts,\nmost of a structure",
        },
    ),
    Panel(
        "texts in the queues",
        {
            "queue_distinct_texts": "distinct texts",
            "queue_distinct_texts_least": "distinct texts,\nfewest of a structure",
            "queue_mean_age": "mean age, arrivals",
        },
    ),
    Panel("temperature", {"temperature": "temperature"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)
REPORT_PANELS = (
    Panel("loss (nats per token)", {"train_loss": "training", "val_loss": "validation"}),
    Panel("taught (nats per token)", {"abnormality_loss": "labels", "abnormality_words_loss": "abnormal sentences"}),
    Panel("BLEU-4, greedy, validation split", {"val_bleu_4": "BLEU-4"}),
    Panel("reward", {"self_critical_reward": "drawn", "self_critical_baseline": "greedy", "val_reward": "greedy, validation"}),
    Panel("learning rate", {"learning_rate": "learning rate"}),
)


def draw_ct_figures(*, structures: Path, report_model: Path, summary: Path, output: Path) -> None:
    """Draw the curves of both trainings and the abnormalities that reports name; lay out the tables.

    Args:
        structures: folder of train-structures: metrics.jsonl and config.yaml.
        report_model: folder of train-ct-report-model: likewise.
        summary: summary.json of summarize-ct.
        output: folder for the results.

    Raises:
        FileNotFoundError: an input is missing.
        ConfigError: a model's config.yaml cannot be read.
        DatasetError: an input is not what its format says.
    """
    content = _read_summary(summary)
    trainings = {"structure_training": (structures, STRUCTURE_PANELS), "report_training": (report_model, REPORT_PANELS)}
    for name, (folder, panels) in trainings.items():
        history = read_history(folder / HISTORY, EPOCH)
        kept = kept_epoch(folder / CONFIG)
        marks = {f"weights kept: epoch {kept}": kept}
        draw_curves(output / name, history, panels, clock=EPOCH, x_label="epochs", marks=marks)
    draw_abnormalities(output / "abnormalities", content["reports"])
    _write_tables(output, content)
    write_run_record(
        output / "run.json",
        command="draw-ct-figures",
        settings={},
        inputs={
            "structure_history": structures / HISTORY,
            "report_history": report_model / HISTORY,
            "summary": summary,
        },
    )
    log.info("figures and tables: %s", output)


def _read_summary(path: Path) -> dict[str, Any]:
    content = read_json(path)
    missing = [key for key in SUMMARY_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise DatasetError(
            f"{path}: lacks {', '.join(missing)}; expected summary.json of 'd2rnet summarize-ct'. Run it again."
        )
    return dict(content)


def _write_tables(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.html and abnormality_scores.html."""
    notes = [SYNTHETIC] if summary["synthetic"] else []
    tables = [_table("Stage 1, by structure.", summary["structure_table"]), _table("Stage 2, the reports.", summary["table"])]
    write_text(folder / "summary.html", html_page("All scores of the chest CT run", tables, notes))
    page = html_page("Abnormalities named in the reports", [_abnormality_table(summary["reports"])], notes)
    write_text(folder / "abnormality_scores.html", page)


def _table(heading: str, rows: Sequence[Mapping[str, str]]) -> Table:
    return Table(heading, tuple(rows[0]), [tuple(row.values()) for row in rows])


def _abnormality_table(metrics: Mapping[str, Any]) -> Table:
    rows = [
        [name, str(row["true"]), str(row["claimed"]), *(number(row[key]) for key in ("precision", "recall", "f1"))]
        for name, row in named_abnormalities(metrics).items()
    ]
    heading = "Volumes whose generated report names an abnormality, and whose reference does; doubtful mentions included."
    return Table(heading, ("abnormality", "in references", "in generated", "precision", "recall", "F1"), rows)
