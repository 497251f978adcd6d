"""draw_figures: figures and tables of a finished run for the Snakemake report and for papers.

Reads: metrics.jsonl of both trainings, annotation.json, generated reports, radiographs, true boxes, summary.json.
Writes: SVG, PNG and HTML files (docs/reference/formats.md), run.json.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from d2rnet.cxr.boxes.true_boxes import TrueBoxes, read_true_boxes, true_boxes_of
from d2rnet.cxr.summary.annotation_figures import draw_annotation
from d2rnet.cxr.summary.run_tables import read_summary, write_tables
from d2rnet.cxr.summary.sample_readings import Sample, draw_samples
from d2rnet.cxr.summary.training_figures import DETECTOR_CLOCK, burn_in_end, draw_detector_training, draw_report_training
from d2rnet.errors import ConfigError
from d2rnet.evaluation.report_pairs import ReportPairs, read_pairs
from d2rnet.figures.curves import EPOCH, kept_epoch, read_history
from d2rnet.figures.tables import picture_page
from d2rnet.files.atomic import write_text
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
MOST_SAMPLES = 24


def draw_figures(
    *,
    detector: Path,
    report_model: Path,
    annotation: Path,
    generated: Path,
    image_root: Path,
    summary: Path,
    samples: int,
    output: Path,
    true_boxes: Path | None = None,
    shown_score: float = 0.0,
) -> None:
    """Draw the curves of both trainings, pseudo-box statistics and sample readings; lay out the tables.

    Args:
        detector: folder of train-detector: metrics.jsonl and run.json.
        report_model: folder of train-report-model: metrics.jsonl and config.yaml.
        annotation: annotation.json that the reports were written for.
        generated: test.jsonl of generate-reports.
        image_root: folder that ``image_path`` in annotation.json is relative to.
        summary: summary.json of summarize.
        samples: how many readings to draw, the first of the file; 1 to 24.
        output: folder for the results.
        true_boxes: true boxes to draw beside the pseudo boxes; None where they are not known.
        shown_score: least score of a box that is drawn whatever is written, 0 to 1.

    Raises:
        FileNotFoundError: an input is missing.
        ConfigError: ``samples`` or ``shown_score`` out of range, or the model's config.yaml cannot be read.
        DatasetError: an input is not what its format says.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ConfigError(f"--samples: got {samples}; expected 1 to {MOST_SAMPLES}.")
    if not 0 <= shown_score <= 1:
        raise ConfigError(f"--shown-score: got {shown_score}; expected a score from 0 to 1.")
    report_history = report_model / "metrics.jsonl"
    history = read_history(detector / "metrics.jsonl", DETECTOR_CLOCK)
    draw_detector_training(output / "detector_training", history, burn_in_end(detector / "run.json"))
    kept = kept_epoch(report_model / "config.yaml")
    draw_report_training(output / "report_training", read_history(report_history, EPOCH), kept)
    splits = load_annotation(annotation)
    draw_annotation(output / "pseudo_box_statistics", splits)
    pairs = read_pairs(generated, splits)
    shown = _samples(pairs, splits, read_true_boxes(true_boxes) if true_boxes else {}, shown_score)[:samples]
    draw_samples(output / "sample_readings", shown, image_root)
    write_text(output / "sample_readings.html", picture_page("Sample readings", output / "sample_readings.png"))
    write_tables(output, read_summary(summary))
    write_run_record(
        output / "run.json",
        command="draw-figures",
        settings={"samples": samples, "shown_score": shown_score},
        inputs={
            "detector_history": detector / "metrics.jsonl",
            "report_history": report_history,
            "annotation": annotation,
            "generated": generated,
            "summary": summary,
            **({"true_boxes": true_boxes} if true_boxes else {}),
        },
        counts={"samples": len(shown), "reports": len(pairs.ids)},
    )
    log.info("figures and tables: %s", output)


def _samples(pairs: ReportPairs, splits: Mapping[str, Sequence[Entry]], truth: TrueBoxes, shown_score: float) -> list[Sample]:
    """What is drawn of each entry with a generated report, in the order of the file."""
    entries = {entry["id"]: entry for entry in splits[pairs.split]}
    texts = zip(pairs.ids, pairs.references, pairs.hypotheses, pairs.sentences, strict=True)
    return [
        Sample(entries[name], reference, generated, sentences, true_boxes_of(entries[name], truth), shown_score)
        for name, reference, generated, sentences in texts
    ]
