"""False negatives of the contrast: texts that it pushes away from a volume of which they are true.

The text of one training volume is true of another where both have the same labels of the structure (those of the 18
abnormalities that may lie in it), all known, and both reports find it normal, or both abnormal and a label says how. What is
counted is what a batch of training volumes is expected to hold; the queue adds to it what its share of normal texts
(metrics.jsonl) says.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from d2rnet.ct.structure_model.dataset import structure_texts
from d2rnet.ct.structure_model.settings import StructureModelSettings
from d2rnet.ct.structures.table import StructureTable
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report

State = tuple[Any, ...]


def false_negatives(
    entries: Sequence[Entry], table: StructureTable, settings: StructureModelSettings
) -> dict[str, dict[str, float | None]]:
    """Count the negatives of a batch, and the false ones among them, for each structure.

    Args:
        entries: of the training split.
        table: the structures.
        settings: of the training: its batch, what it does with structures that are not mentioned and with equal texts.

    Returns:
        Structure -> ``batch_negatives``, how many texts of the same structure an observation is pushed away from in a batch,
        and ``batch_false_negatives``, how many of these are true of it; None where fewer than two volumes speak of the
        structure.

    Raises:
        DatasetError: an entry was cut by another table.
    """
    texts = [structure_texts(entry, table, settings.text.missing) for entry in entries]
    training = settings.training
    others = min(training.batch_size, len(entries)) - 1
    found = {}
    for place, (name, structure) in enumerate(table.structures.items()):
        said = [
            (clean_report(row[place], settings.text.protocol), _state(entry, name, structure.labels))
            for entry, row in zip(entries, texts, strict=True)
            if row[place]
        ]
        found[name] = _expected(said, share=others / max(len(entries) - 1, 1), equal_texts=training.contrast.equal_texts)
    return found


def _state(entry: Entry, name: str, labels: Sequence[str]) -> State | None:
    """Return what is true of a volume's structure, None where it is not known; one not mentioned is taken for normal."""
    known = tuple(entry["labels"][CT_ABNORMALITIES.index(label)] for label in labels)
    mentioned = entry["structures"][name]
    abnormal = mentioned["abnormal"] if mentioned["text"] else False
    if abnormal is None or None in known or (abnormal and 1 not in known):
        return None
    return abnormal, *known


def _expected(said: Sequence[tuple[str, State | None]], *, share: float, equal_texts: bool) -> dict[str, float | None]:
    """Count for one structure.

    Args:
        said: text and state of each volume that has a text of it.
        share: of the other volumes that a batch holds.
        equal_texts: whether equal texts are no negatives.
    """
    if len(said) < 2:
        return {"batch_negatives": None, "batch_false_negatives": None}
    judged = [(text, state) for text, state in said if state is not None]
    pairs = len(said) * (len(said) - 1)
    alike = _pairs(state for _, state in judged)
    if equal_texts:
        pairs -= _pairs(text for text, _ in said)
        alike -= _pairs(judged)
    return {"batch_negatives": share * pairs / len(said), "batch_false_negatives": share * alike / len(said)}


def _pairs(values: Any) -> int:
    """Return how many ordered pairs of different places hold equal values."""
    return sum(count * (count - 1) for count in Counter(values).values())
