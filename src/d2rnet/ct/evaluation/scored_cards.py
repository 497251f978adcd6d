"""Model cards of both stages with the scores of the test split: the pages to hand on with weights.

The card beside a model is written when its training ends, before it is scored; summarize-ct writes it again with its data and
scores. Reads: run.json of trainings and of convert-ct. Writes: structure_model_card.md, report_model_card.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from d2rnet.ct.report_model.card import CT_REPORT_CARD
from d2rnet.ct.structure_model.card import STRUCTURE_CARD
from d2rnet.runs.cards import command_of, source_lines, write_card

CARDS = {
    "train-structures": (STRUCTURE_CARD, "structure_model_card.md"),
    "train-ct-report-model": (CT_REPORT_CARD, "report_model_card.md"),
}
CONVERTERS = {"convert-ct": "ct.data.reports"}  # command -> section of its source


def write_scored_cards(
    models: Sequence[Path], counts: Sequence[Path], scores: Mapping[str, Sequence[str]], output: Path
) -> None:
    """Write the card of each model with the source of its data and its scores.

    Args:
        models: folders of train-structures and train-ct-report-model.
        counts: counts.json files; the run record of convert-ct beside its own names the source.
        scores: command -> Markdown lines.
        output: folder for the cards.

    Raises:
        FileNotFoundError: a folder has no run record.
        DatasetError: a folder is of another command.
    """
    sources = list(source_lines(counts, CONVERTERS))
    for folder in models:
        command = command_of(folder, CARDS)
        card, name = CARDS[command]
        write_card(card, folder, output=output / name, scores=scores[command], sources=sources)
