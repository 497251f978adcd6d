"""Model cards with the scores of the test split: the pages to hand on with weights.

The card beside a model is written when its training ends, before it is scored; summarize writes it again with its data and
scores. Reads: run.json of trainings and converters. Writes: detector_card.md, report_model_card.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from d2rnet.cxr.detector.card import DETECTOR_CARD
from d2rnet.cxr.report_model.card import REPORT_CARD
from d2rnet.cxr.summary.summary_rows import DETECTOR_LEGEND, HEADER, LEGEND, Row, difference_line
from d2rnet.figures.summary_lines import number, one_line
from d2rnet.figures.tables import markdown_table
from d2rnet.runs.cards import command_of, source_lines, write_card

CONVERTERS = {"convert-labelled": "data.labelled", "convert-unlabelled": "data.reports"}  # command -> section of its source


def write_scored_cards(
    models: Sequence[Path],
    counts: Sequence[Path],
    rows: Mapping[str, Sequence[Row]],
    metrics: Mapping[str, Mapping[str, Any]],
    output: Path,
) -> None:
    """Write the card of each model with its training data and its scores.

    Args:
        models: folders of train-detector and train-report-model.
        counts: counts.json of the converters; the run records beside them name the sources.
        rows: command -> its rows of the result table.
        metrics: command -> metrics.json of its evaluation.
        output: folder for the cards.

    Raises:
        FileNotFoundError: a folder has no run record.
        DatasetError: a folder is of another command.
    """
    sources = list(source_lines(counts, CONVERTERS))
    for folder in models:
        command = command_of(folder, CARDS)
        card, name, lines = CARDS[command]
        scores = [
            f"Test split, protocol: {one_line(metrics[command]['protocol'])}.",
            "",
            *markdown_table(HEADER, [astuple(row) for row in rows[command]]),
            "",
            *lines(metrics[command]),
        ]
        write_card(card, folder, output=output / name, scores=scores, sources=sources)


def _detector_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    teacher = metrics["ema_teacher"]
    boxes = teacher.get("boxes_per_class", {})
    yield from (f"{DETECTOR_LEGEND[0].upper()}{DETECTOR_LEGEND[1:]}", "")
    if difference := difference_line(metrics):
        yield from (difference, "")
    names = sorted((name for name in boxes if boxes[name]), key=lambda name: -boxes[name])
    keys = ("per_class_AP50", "per_class_AP40", "per_class_AP")
    yield from markdown_table(
        ("class", "test boxes", "AP50", "AP40", "AP"),
        [(name, str(boxes[name]), *(number(teacher[key].get(name)) for key in keys)) for name in names],
    )
    if unmeasured := teacher.get("classes_without_boxes"):
        yield from ("", f"Not measured, since the test split has no box of them: {', '.join(unmeasured)}.")
    if error := teacher.get("calibration", {}).get("ece"):
        yield from ("", f"Expected calibration error of the scores: {error:.3f}.")


def _report_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from (LEGEND, "")
    sides = metrics.get("clinical", {}).get("sides", {})
    if sides.get("compared"):
        wrong = sides["wrong_side"]
        yield f"- Of {sides['compared']} lesions that both reports name with a side, {wrong:.0%} are on the wrong one."
    texts = metrics.get("degeneracy", {})
    if texts:
        rates = [(name, texts[name]["normal_report_rate"]) for name in ("hypothesis", "reference")]
        shares = ", ".join(f"{rate:.0%} of the {'generated' if name == 'hypothesis' else 'reference'}" for name, rate in rates)
        yield f"- Reports that name no lesion: {shares} ones."
        yield f"- Generated reports that say a sentence twice: {texts['hypothesis']['repeated_sentence_rate']:.0%}."
    yield from (f"- {name}: {note}" for name, note in metrics.get("notes", {}).items())


CARDS = {
    "train-detector": (DETECTOR_CARD, "detector_card.md", _detector_lines),
    "train-report-model": (REPORT_CARD, "report_model_card.md", _report_lines),
}
